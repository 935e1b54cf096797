"""`alexnet-deploy duplicates`."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from alexnet_deploy.commands import options as shared
from alexnet_deploy.console.decoding import decoding_options
from alexnet_deploy.console.paths import FILE
from alexnet_deploy.console.reporting import Reporter, print_result, say

if TYPE_CHECKING:
    from alexnet_deploy.index.duplicate_groups import Duplicates
    from alexnet_deploy.inference.failures import FailureLimit


@click.command(epilog="Example: alexnet-deploy duplicates --sheet duplicates.html")
@shared.index_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--sheet",
    "sheets",
    type=FILE,
    multiple=True,
    help="Draw the groups as .png or .html; repeat for both.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="CPU threads, for decoding and for comparing.  [default: all cores]",
)
@decoding_options
@shared.max_failures_option
def duplicates(
    directory: Path,
    as_json: bool,
    sheets: tuple[Path, ...],
    threads: int | None,
    max_failures: "FailureLimit",
) -> None:
    """Find the indexed photographs that are there more than once.

    Three answers, in groups: files with the same bytes; files with the same pixels, such as a
    JPEG and a PNG made of it; and photographs that are nearly the same: saved again, scaled,
    grey, turned, mirrored, brighter, or with up to a fifth cut off. Of each group only the first
    goes into the next answer. No file is changed or deleted.

    The same pixels means what is decoded here: upright, in sRGB, 8 bits a channel, of animations
    the first picture. Nearly the same means that the greys of two correlate by .98 or more, and
    differ nowhere much, once one is turned and cut to match; so may two shots of a still scene.
    Each is compared with the largest file of its group, and not with the others. Links to one file
    are one photograph. What was imported with index --from is left out.

    The first run decodes each photograph once, and stores its perceptual hash in the index; one
    that was stopped is continued. Needs the package ImageHash.
    """
    from alexnet_deploy.index.duplicates import find_duplicates
    from alexnet_deploy.inference.failures import check_failures

    if sheets:
        from alexnet_deploy.figures.sheets import check_sheets
        from alexnet_deploy.index.session import Index

        check_sheets(sheets)
        with Index(directory) as index:
            for sheet in sheets:
                index.check_not_photograph(sheet, [])
    with ExitStack() as stack:
        draws = [stack.enter_context(_sheet_writer(sheet)) for sheet in sheets]
        with Reporter() as reporter:
            found = find_duplicates(
                directory,
                threads=threads,
                on_plan=reporter.expect,
                on_read=reporter.advance,
                notify=say,
            )
        for draw in draws:
            draw(found)
    if as_json:
        print_result(found.to_json())
    elif any(found.kinds.values()):
        print_result(found.to_text())
    say(found.line())
    check_failures(found.num_failed, found.num_photographs + found.num_absent, max_failures)


@contextmanager
def _sheet_writer(path: Path) -> Iterator[Callable[["Duplicates"], None]]:
    from alexnet_deploy.figures.copies import DUPLICATES_TEXT, duplicate_rows
    from alexnet_deploy.figures.sheets import open_sheet

    def draw(found: "Duplicates") -> None:
        for row in duplicate_rows(found):
            add(row)

    with open_sheet(path, DUPLICATES_TEXT, notify=say) as add:
        yield draw
