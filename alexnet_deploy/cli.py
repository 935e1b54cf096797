"""The command `alexnet-deploy`: one group, its commands loaded when they are named.

Exit codes: 0 done; those of `errors`; 2 for wrong usage also from click; 130 after Ctrl-C, 143
after SIGTERM, 129 after SIGHUP; 141 when the reader of stdout went away. A bug keeps its traceback.
"""

import errno
import importlib
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from alexnet_deploy import __version__
from alexnet_deploy.commands.reporting import BROKEN_PIPE_EXIT, discard_stdout
from alexnet_deploy.errors import AlexNetDeployError
from alexnet_deploy.path_text import printable

# In the order of the help: from a checkpoint to results, then what one asks about files.
COMMANDS = (
    *("export", "classify", "embed", "index", "search"),
    *("verify", "evaluate", "info", "doctor"),
)
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class ErrorsReported(click.Group):
    """A group whose commands end with one message and an exit code where a user can mend it."""

    # The two together see every error: the first parses the group's own options.
    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Parse the group's arguments."""
        with _errors_reported():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with _errors_reported():
            return super().invoke(ctx)


class _Group(ErrorsReported):
    """A group that imports `commands/<name>.py` when `<name>` is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"alexnet_deploy.commands.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command


@contextmanager
def _errors_reported() -> Iterator[None]:
    """Turn what a user can cause into one message and an exit code; let bugs through."""
    try:
        yield
    except AlexNetDeployError as error:
        raise _failed(str(error), error.exit_code) from error
    except click.exceptions.NoArgsIsHelpError:
        raise
    except click.UsageError as error:
        # Its message repeats what the user wrote, which may be a file's name.
        message = _printable_lines(error.format_message())
        raise click.UsageError(message, ctx=error.ctx) from error
    except KeyboardInterrupt as interrupt:
        number = interrupt.args[0] if interrupt.args else signal.SIGINT
        click.echo("interrupted" if number == signal.SIGINT else "terminated", err=True)
        raise click.exceptions.Exit(128 + number) from interrupt
    except BrokenPipeError as error:
        discard_stdout()
        raise click.exceptions.Exit(BROKEN_PIPE_EXIT) from error
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        discard_stdout()
        reason = os.strerror(error.errno)
        raise _failed(f"cannot write ({reason}); free some space", 1) from error


def _failed(message: str, exit_code: int) -> click.exceptions.Exit:
    """Print the one message of a failure; return what ends the command with `exit_code`."""
    click.echo(f"Error: {_printable_lines(message)}", err=True)
    return click.exceptions.Exit(exit_code)


def _printable_lines(text: str) -> str:
    return "\n".join(map(printable, text.split("\n")))


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: alexnet-deploy classify photos/ --top5",
)
@click.version_option(__version__, message="alexnet-deploy %(version)s")
def cli() -> None:
    """AlexNet (2012), from a checkpoint to labels, vectors and image search.

    Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 wrong
    usage, 3 too many photographs failed, 4 verification failed, 5 incompatible file.
    """


def main() -> None:
    """Run the command line: the console script."""
    end_at_signals()
    cli(prog_name="alexnet-deploy")


def end_at_signals() -> None:
    """Let SIGTERM and SIGHUP end the program as Ctrl-C does."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)


def _stop(number: int, frame: object) -> None:
    """End as Ctrl-C does, so that half-written files are removed."""
    raise KeyboardInterrupt(number)
