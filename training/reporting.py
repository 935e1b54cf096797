"""The trainer's progress reports: lines and a progress bar on stderr."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Protocol

from alexnet_deploy.console.progress import ProgressBar
from alexnet_deploy.console.reporting import in_options, say
from alexnet_deploy.files.path_text import printable
from training.epoch_log import EpochRecord


class Reporter(Protocol):
    """Receives the progress of a run."""

    def say(self, line: str) -> None:
        """Show one line."""

    def failed(self, path: Path, reason: str) -> None:
        """Report a photograph that was skipped."""

    def begin(self, title: str, num_photographs: int, *, done: int) -> None:
        """Start counting photographs, of which `done` were processed before."""

    def advance(self, num_photographs: int) -> None:
        """Count some more."""

    def end(self) -> None:
        """Stop counting."""


@contextmanager
def counting(
    reporter: Reporter, title: str, num_photographs: int, *, done: int = 0
) -> Iterator[None]:
    """Count photographs for as long as the block runs."""
    reporter.begin(title, num_photographs, done=done)
    try:
        yield
    finally:
        reporter.end()


class TerminalReporter:
    """A `Reporter` on stderr; the bar is shown only if stderr is a terminal.

    If the terminal is closed, or the reader of a pipe exits, the run continues: its results are
    files.
    """

    def __init__(self) -> None:
        self._bar: ProgressBar | None = None
        self._stack = ExitStack()
        self._num_failed = 0
        self._told: set[Path] = set()

    def say(self, line: str) -> None:
        """Print one line."""
        with suppress(OSError):
            if self._bar is None:
                say(line)
            else:
                self._bar.print(printable(in_options(line)))

    def failed(self, path: Path, reason: str) -> None:
        """Count a skipped photograph; print it the first time only, not in every epoch."""
        self._num_failed += 1
        if path not in self._told:
            self._told.add(path)
            self.say(f"skipped: {path}: {reason}")

    def begin(self, title: str, num_photographs: int, *, done: int) -> None:
        """Show the bar for the photographs that remain."""
        self._num_failed = 0
        if sys.stderr is not None and sys.stderr.isatty():
            self._bar = self._stack.enter_context(
                ProgressBar(lambda: range(num_photographs - done), title)
            )

    def advance(self, num_photographs: int) -> None:
        """Count the photographs of one step."""
        if self._bar is not None:
            self._bar.advance(self._num_failed, num_photographs)

    def end(self) -> None:
        """Remove the bar."""
        self._bar = None
        with suppress(OSError):
            self._stack.close()


def epoch_line(record: EpochRecord, num_epochs: int) -> str:
    """Summarize an epoch, from 1, in one line."""
    parts = [
        f"epoch {record.epoch} of {num_epochs}: "
        f"loss {record.train_loss:.3f}, rate {record.learning_rate:.2g}"
    ]
    if record.val_top1 is not None:
        parts.append(
            f"validation loss {record.val_loss:.3f}, top-1 {record.val_top1:.1%}, "
            f"top-5 {record.val_top5:.1%}{' (best)' if record.best else ''}"
        )
    parts.append(f"{record.images_per_second:,.0f} images/s")
    if record.num_skipped:
        parts.append(f"{record.num_skipped:,} skipped")
    if record.epoch < num_epochs:
        parts.append(f"{_duration((num_epochs - record.epoch) * record.wall_s)} left")
    return "; ".join(parts)


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if not minutes:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"
