"""What a command says while it works: results on stdout, everything else on stderr."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self, TextIO

import click

from alexnet_deploy.console.verbosity import verbosity
from alexnet_deploy.errors import Argument, Message, OutputError
from alexnet_deploy.files.path_text import printable

if TYPE_CHECKING:
    from alexnet_deploy.console.progress import ProgressBar
    from alexnet_deploy.inference.failures import FailureLimit
    from alexnet_deploy.inference.run import RunSummary

BROKEN_PIPE_EXIT = 128 + 13
"""As of a program that SIGPIPE ended, so that `set -o pipefail` treats it as it does others."""

_OPTIONS = {
    "calibrate_on": "calibrate",
    "checkpoint": "against",
    "compute_capabilities": "compute-capability",
    "directory": "index",
    "hardware_compatibility": "hardware-compatible",
    "profile.max": "max-batch",
    "profile.min": "min-batch",
    "photographs": "no-verify",
    "moved_roots": "root",
    "num_epochs": "epochs",
    "num_workers": "workers",
    "profile.opt": "opt-batch",
    "ranks.fc6": "fc6-rank",
    "ranks.fc7": "fc7-rank",
    "recipe.batch_size": "batch-size",
    "recipe.learning_rate": "learning-rate",
    "recipe.name": "recipe",
    "recipe.num_epochs": "epochs",
    "weights": "weight",
}
"""Arguments whose options have another name, but for the hyphens."""


def option(argument: Argument) -> str:
    """Return an argument of the library as the command line has it: `--batch-size 8`, `--prune`."""
    owner, _, field = argument.name.rpartition(".")
    if owner == "recipe" and argument.name not in _OPTIONS:
        return f"--set {field}={argument.value}"
    name = _OPTIONS.get(argument.name, argument.name.replace("_", "-"))
    written = f"-{name}" if len(name) == 1 else f"--{name}"
    is_flag = argument.value is None or argument.value is True
    return written if is_flag else f"{written} {argument.value}"


def in_options(text: str) -> str:
    """Return `text` with options for the arguments of the library in it, if any."""
    return text.rendered(option) if isinstance(text, Message) else text


def print_result(text: str | bytes, *, end: str = "\n") -> None:
    """Write `text` to stdout at once.

    Raises:
        click.exceptions.Exit: nobody reads stdout any more (`| head`).
        OutputError: it cannot be written, for instance to a full disk.
    """
    if sys.stdout is None:  # as after `>&-`; click would say nothing
        raise OutputError("standard output: is closed; send it somewhere, if only to /dev/null")
    try:
        if isinstance(text, bytes):
            click.echo(text, nl=False)
        else:
            click.echo(text + end, nl=False)
    except BrokenPipeError as error:
        discard_stdout()
        raise click.exceptions.Exit(BROKEN_PIPE_EXIT) from error
    except OSError as error:
        discard_stdout()
        raise OutputError(
            f"standard output: cannot be written ({error.strerror or error}); "
            "free some space or send it elsewhere"
        ) from error


def say(line: str) -> None:
    """Print a line for people on stderr, harmless to a terminal whatever it names."""
    if verbosity() >= 0:
        complain(line)


def complain(line: str) -> None:
    """Print a line on stderr that `-q` does not leave out."""
    click.echo(printable(in_options(line)), err=True)


@contextmanager
def bytes_shown() -> Iterator[Callable[[int, int], None]]:
    """Yield what shows how many bytes of how many have come: a bar, if stderr is a terminal."""
    if not _is_terminal(sys.stderr):
        yield lambda come, total: None
        return
    from alexnet_deploy.console.progress import BytesBar

    with BytesBar() as bar:
        yield bar.update


def discard_stdout() -> None:
    """Send what is still buffered nowhere: Python would write it at exit and fail once more."""
    # A test's stdout has no descriptor, and nothing that is written at exit.
    with suppress(OSError, ValueError):
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, sys.stdout.fileno())
        os.close(descriptor)


class Reporter:
    """Print results, failures and, on a terminal, a progress bar that stays out of their way.

    Args:
        countable: returns the photographs again, for the bar to count; None where `expect` will
            tell their number.
    """

    def __init__(self, countable: Callable[[], Iterable[object]] | None = None) -> None:
        self._countable = countable
        self._bar: ProgressBar | None = None
        self._num_failed = 0
        self._stack = ExitStack()

    def result(self, text: str | bytes) -> None:
        """Print one result on stdout, byte for byte if it is bytes, but harmless to a terminal."""
        if isinstance(text, bytes) and _is_terminal(sys.stdout):
            lines = os.fsdecode(text).removesuffix("\n").split("\n")
            text = "\n".join(map(printable, lines))
        if self._bar is not None and isinstance(text, str) and _is_same_terminal(sys.stdout):
            self._bar.print(text)
        else:
            print_result(text)

    def advance(self, path: Path | str | None, error: str | None) -> None:
        """Count one photograph, without a path if from standard input; say why it failed."""
        if error is not None:
            self._num_failed += 1
            line = printable(f"failed: {path or '-'}: {in_options(error)}")
            if self._bar is None:
                complain(line)
            else:
                self._bar.print(line)
        elif verbosity() > 0:
            say(f"done: {path or '-'}")
        if self._bar is not None:
            self._bar.advance(self._num_failed)

    def finish(self, summary: "RunSummary", limit: "FailureLimit") -> None:
        """Print the last lines: what was left out, how many were done and failed, and the time.

        Raises:
            TooManyFailuresError: more failed than `limit` allows.
        """
        from alexnet_deploy.inference.failures import check_failures

        summary.stop_clock()
        if left_out := summary.left_out.line():
            say(left_out)
        say(summary.line())
        check_failures(summary.num_failed, summary.num_done + summary.num_failed, limit)

    def expect(self, num_photographs: int) -> None:
        """Show the bar for so many photographs."""
        if num_photographs:
            self._show(lambda: range(num_photographs))

    def __enter__(self) -> Self:
        if self._countable is not None:
            self._show(self._countable)
        return self

    def _show(self, countable: Callable[[], Iterable[object]]) -> None:
        if sys.stderr is not None and sys.stderr.isatty() and not verbosity():
            from alexnet_deploy.console.progress import ProgressBar

            self._bar = self._stack.enter_context(ProgressBar(countable))

    def __exit__(self, *error: object) -> None:
        self._stack.close()


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()


def _is_same_terminal(stream: TextIO) -> bool:
    """Tell whether `stream` writes to the terminal where stderr's progress bar is."""
    with suppress(OSError):
        return stream.isatty() and os.path.sameopenfile(stream.fileno(), sys.stderr.fileno())
    return False
