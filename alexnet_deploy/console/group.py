"""From errors and signals to one message and an exit code, for each command line of the project."""

import errno
import os
import pkgutil
import signal
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import click

from alexnet_deploy.console.reporting import (
    BROKEN_PIPE_EXIT,
    complain,
    discard_stdout,
    in_options,
)
from alexnet_deploy.console.signals import word_for
from alexnet_deploy.console.verbosity import verbosity, verbosity_options
from alexnet_deploy.errors import AlexNetDeployError
from alexnet_deploy.files.path_text import printable

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class CommandGroup(click.Group):
    """A group whose commands end with one message and an exit code where a user can mend it.

    Args:
        lazy_commands: `module:attribute` of each command that is imported only when it is named,
            by its name; they come before those added to the group, all in the order given.
    """

    def __init__(
        self, *args: Any, lazy_commands: Mapping[str, str] = MappingProxyType({}), **extra: Any
    ) -> None:
        super().__init__(*args, **extra)
        self._lazy_commands = lazy_commands

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names as they were given; click would sort them."""
        return [*self._lazy_commands, *self.commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command, imported if it is lazy; None for an unknown name."""
        command = super().get_command(ctx, cmd_name)
        if cmd_name in self._lazy_commands:
            command = pkgutil.resolve_name(self._lazy_commands[cmd_name])
        return None if command is None else verbosity_options(command)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command and its arguments; for a slip, name what may be meant."""
        names = self.list_commands(ctx)
        near = [] if args[0] in names else _near(args[0], names)
        if near and not ctx.resilient_parsing:
            raise click.UsageError(
                f"No such command '{args[0]}'. Did you mean {' or '.join(near)}?", ctx=ctx
            )
        return super().resolve_command(ctx, args)

    # The two together see every error: the first parses the group's own options.
    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Parse the group's arguments."""
        with _errors_reported():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with _errors_reported():
            return super().invoke(ctx)


def _near(name: str, names: list[str]) -> list[str]:
    import difflib  # slow to import, for what is seldom needed

    return difflib.get_close_matches(name, names)


@contextmanager
def _errors_reported() -> Iterator[None]:
    """Turn what a user can cause into one message and an exit code; let bugs through."""
    try:
        yield
    except AlexNetDeployError as error:
        if verbosity() > 0:
            for line in "".join(traceback.format_exception(error)).splitlines():
                complain(line)
        raise _failed(in_options(error.message), error.exit_code) from error
    except click.exceptions.NoArgsIsHelpError:
        raise
    except click.UsageError as error:
        # Its message repeats what the user wrote, which may be a file's name.
        message = printable(error.format_message())
        raise click.UsageError(message, ctx=error.ctx) from error
    except KeyboardInterrupt as interrupt:
        number = interrupt.args[0] if interrupt.args else signal.SIGINT
        click.echo(word_for(number), err=True)
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
    click.echo(f"Error: {printable(message)}", err=True)
    return click.exceptions.Exit(exit_code)


def ignore_warnings_of_pillow() -> None:
    """Hide Pillow's warnings (large image, odd EXIF): they do not name the file."""
    warnings.filterwarnings("ignore", module=r"PIL\.")
