"""`alexnet-deploy index`."""

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import click

from alexnet_deploy.choices import ANNS, Ann
from alexnet_deploy.commands import options as shared
from alexnet_deploy.console.decoding import pixel_options
from alexnet_deploy.console.paths import FILE, LAYER
from alexnet_deploy.console.reporting import Reporter, print_result, say
from alexnet_deploy.errors import UsageError

if TYPE_CHECKING:
    from alexnet_deploy.inference.failures import FailureLimit


@click.command(epilog="Example: alexnet-deploy index photos/")
@click.argument("folders", metavar="[FOLDER]...", nargs=-1, type=FILE)
@click.option(
    "--layer",
    type=LAYER,
    help="Layer to index, named as for embed.  [default: the index's, else fc7]",
)
@click.option("--retry-failed", is_flag=True, help="Retry what failed in an earlier run.")
@click.option(
    "--prune", is_flag=True, help="Remove what is gone, however much, and free its space."
)
@click.option("--repair", is_flag=True, help="Check every vector, and embed damaged ones again.")
@click.option(
    "--root",
    "moved_roots",
    metavar="OLD=NEW",
    multiple=True,
    help="A folder of the index was moved; repeat for more.",
)
@click.option(
    "--exclude",
    metavar="PATTERN",
    multiple=True,
    help="Leave out what matches, from now on: raw, '*.png', 2019/raw; repeat for more, '' for "
    "nothing.  [default: as before]",
)
@click.option(
    "--remove",
    metavar="FOLDER",
    type=FILE,
    multiple=True,
    help="Take a folder out of the index; without other FOLDERs do nothing else.",
)
@click.option(
    "--ann",
    type=click.Choice(ANNS),
    help="Whether to compress the vectors, so that searches read few of them; exact takes it back. "
    " [default: auto: as before, and where comparing all would take longer than 0.2 s]",
)
@click.option(
    "--codes",
    type=click.Choice(["64", "128", "256", "512"]),
    help="Compress the vectors and give each a binary code of so many bits, too, by which search "
    "--effort chooses what it compares; --ann compressed drops them.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@functools.partial(
    pixel_options,
    decode_default="the index's; scaled for a new one",
    colour_default="the index's; srgb for a new one",
)
@shared.fast_option
@shared.failure_options
@shared.index_options
def index(
    folders: tuple[Path, ...],
    directory: Path,
    layer: str | None,
    retry_failed: bool,
    prune: bool,
    repair: bool,
    moved_roots: tuple[str, ...],
    exclude: tuple[str, ...],
    remove: tuple[Path, ...],
    ann: Ann | None,
    codes: str | None,
    as_json: bool,
    include_hidden: bool,
    max_failures: "FailureLimit",
    model_arguments: shared.ModelArguments,
) -> None:
    """Index folders of photographs, to search them.

    Run it again at any time, after any interruption: it resumes, adds what is new or has
    changed, and drops what is gone. Without FOLDER, all folders of the index, if you have named
    them for it before.

    A PATTERN without a slash is compared with every name in the folders, one with a slash with
    the path from each; ** stands for any folders. It is kept for later runs, in place of those
    before. What matches, and what --remove names, leaves the index; the files stay.

    Layer, precision and decoding stay as they were when the index was made, also with --fast.

    Renamed and copied files keep their vectors. A folder that lost more than a fifth of its
    photographs, perhaps because its drive is not mounted, keeps them until --prune (exit 1).
    """
    from alexnet_deploy.index.report import IndexReport
    from alexnet_deploy.index.update import UpdateOptions, bring_up_to_date

    report, reporter = IndexReport(directory=directory), Reporter()
    options = UpdateOptions(
        include_hidden=include_hidden,
        retry_failed=retry_failed,
        prune=prune,
        repair=repair,
        moved_roots=moved_roots,
        exclude=tuple(filter(None, exclude)) if exclude else None,
        remove=remove,
        ann=_ann(ann, codes),
    )
    with reporter:
        bring_up_to_date(
            directory,
            folders,
            model_arguments.request(layer),
            options,
            report=report,
            on_plan=reporter.expect,
            on_result=lambda result: reporter.advance(result.source, result.error),
            notify=say,
        )
    if as_json:
        print_result(report.to_json())
    say(report.line())
    report.check(max_failures)


def _ann(ann: Ann | None, codes: str | None) -> Ann | int:
    if ann is not None and codes is not None:
        raise UsageError("--ann and --codes: both say how the vectors are compressed; choose one")
    return ann or int(codes or 0) or "auto"
