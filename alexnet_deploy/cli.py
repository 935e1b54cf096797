"""The command `alexnet-deploy`: one group, its commands loaded when they are named.

Exit codes: 0 done; those of `errors`; 2 for wrong usage also from click; 130 after Ctrl-C, 143
after SIGTERM, 129 after SIGHUP; 141 when the reader of stdout went away. A bug keeps its traceback.
"""

import importlib

import click

from alexnet_deploy import __version__
from alexnet_deploy.console.group import ErrorsReported, end_at_signals, ignore_warnings_of_pillow

# In the order of the help: from a checkpoint to results, then what one asks about files.
COMMANDS = (
    *("export", "classify", "embed", "index", "search"),
    *("verify", "evaluate", "info", "doctor"),
)


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
    ignore_warnings_of_pillow()
    cli(prog_name="alexnet-deploy")
