"""A progress bar on the terminal behind stderr: the owner of rich."""

import threading
from collections.abc import Callable, Iterable
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text


class ProgressBar:
    """Show the count, the rate, the time left and the failures; lines can be printed above it.

    Args:
        countable: returns the same things again, to be counted in the background while the work
            goes on; until that is known no time left is shown.
        title: stands before the bar.
    """

    def __init__(self, countable: Callable[[], Iterable[object]], title: str = "") -> None:
        self._countable = countable
        self._console = Console(stderr=True)
        titled = (TextColumn("{task.description}"),) if title else ()
        self._progress = Progress(
            *titled,
            BarColumn(),
            _CountColumn(),
            TextColumn("{task.fields[failed]}", style="red"),
            TimeRemainingColumn(compact=True),
            console=self._console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._progress.add_task(title, total=None, failed="")
        self._stopped = threading.Event()

    def advance(self, num_failed: int, count: int = 1) -> None:
        """Count `count` more; `num_failed` of all so far failed."""
        failed = f"{num_failed:,} failed" if num_failed else ""
        self._progress.update(self._task, advance=count, failed=failed)

    def print(self, text: str) -> None:
        """Print `text`, with its ANSI colours, above the bar."""
        self._console.print(Text.from_ansi(text), soft_wrap=True)

    def __enter__(self) -> Self:
        self._progress.start()
        threading.Thread(target=self._count, name="count", daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopped.set()
        self._progress.stop()

    def _count(self) -> None:
        total = 0
        for _ in self._countable():
            if self._stopped.is_set():
                return
            total += 1
        self._progress.update(self._task, total=total)


class BytesBar:
    """Show how much of a download is there; lines on stderr pass above it."""

    def __init__(self) -> None:
        self._progress = Progress(
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(compact=True),
            console=Console(stderr=True),
            transient=True,
            redirect_stdout=False,
        )
        self._task = self._progress.add_task("", visible=False)

    def update(self, come: int, total: int) -> None:
        """Show that `come` of `total` bytes are there."""
        self._progress.update(self._task, completed=come, total=total, visible=come < total)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()


class _CountColumn(ProgressColumn):
    """`1,024 of 1,695  209/s`."""

    def render(self, task: Task) -> Text:
        count = f"{int(task.completed):,}"
        if task.total is not None:
            count += f" of {int(task.total):,}"
        # Since the start: rich's own rate takes the photographs of a batch for a burst.
        if task.completed and task.elapsed:
            count += f"  {task.completed / task.elapsed:,.0f}/s"
        return Text(count)
