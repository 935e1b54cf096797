"""The command `alexnet-deploy`: one group, its commands loaded when they are named.

Exit codes: 0 done; those of `errors`; 2 for wrong usage also from click; 130 after Ctrl-C, 143
after SIGTERM, 129 after SIGHUP; 141 when the reader of stdout went away. A bug keeps its traceback.
"""

import atexit
import gc
import os
import sys

import click

from alexnet_deploy import __version__
from alexnet_deploy.console.group import CommandGroup, ignore_warnings_of_pillow
from alexnet_deploy.console.signals import end_in_order

COMMANDS = {
    "models": "alexnet_deploy.commands.models:models",
    "pull": "alexnet_deploy.commands.pull:pull",
    "import": "alexnet_deploy.commands.import_weights:import_",
    "export": "alexnet_deploy.commands.export:export",
    "classify": "alexnet_deploy.commands.classify:classify",
    "embed": "alexnet_deploy.commands.embed:embed",
    "index": "alexnet_deploy.commands.index:index",
    "search": "alexnet_deploy.commands.search:search",
    "duplicates": "alexnet_deploy.commands.duplicates:duplicates",
    "verify": "alexnet_deploy.commands.verify:verify",
    "evaluate": "alexnet_deploy.commands.evaluate:evaluate",
    "bench": "alexnet_deploy.commands.bench:bench",
    "info": "alexnet_deploy.commands.info:info",
    "doctor": "alexnet_deploy.commands.doctor:doctor",
}
"""Where each command is, in the order of the help: from weights to results, then questions."""


@click.group(
    cls=CommandGroup,
    lazy_commands=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: alexnet-deploy classify photos/ --top5",
)
@click.version_option(__version__, message="alexnet-deploy %(version)s")
def cli() -> None:
    """AlexNet (2012), from a checkpoint to labels, vectors and image search.

    Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 wrong
    usage, 3 too many photographs failed, 4 verification failed, 5 incompatible file. What
    --json prints is in a table of the package's page, "JSON".
    """


def main() -> None:
    """Run the command line."""
    end_in_order()
    ignore_warnings_of_pillow()
    # The converter is a third of `import openvino`, which does without it. Not in the library:
    # elsewhere in a process it may be wanted.
    sys.modules.setdefault("openvino.tools.ovc", None)  # type: ignore[arg-type]
    # Importing NumPy starts threads of its BLAS, which wait spinning for work: 2**26 cycles, 30 ms.
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "20")
    # Imports make many objects and no cycles, for which Python would look every 700 objects, and in
    # all of them again before it ends.
    gc.set_threshold(5_000)
    atexit.register(gc.freeze)
    cli(prog_name="alexnet-deploy")
