"""`alexnet-deploy search`."""

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alexnet_deploy.choices import METRICS, Metric
from alexnet_deploy.commands import options as shared
from alexnet_deploy.console.paths import FILE
from alexnet_deploy.console.reporting import Reporter, say
from alexnet_deploy.errors import UsageError

if TYPE_CHECKING:
    from alexnet_deploy.index.results import SearchResult
    from alexnet_deploy.inference.failures import FailureLimit


@click.command(epilog="Example: alexnet-deploy search query.jpg --sheet neighbours.html")
@click.option(
    "-k",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="Neighbours for each query.",
)
@click.option(
    "--metric",
    type=click.Choice(METRICS),
    help="What is nearest: cosine retrieves better, l2 is the paper's.  [default: cosine]",
)
@click.option(
    "--max-distance",
    type=click.FloatRange(min=0),
    help="Leave out what is farther: 1 - cosine similarity, or the L2 distance.",
)
@click.option(
    "--within",
    metavar="FOLDER",
    type=FILE,
    multiple=True,
    help="Compare only photographs in it; repeat for more folders.",
)
@click.option(
    "--glob",
    metavar="PATTERN",
    multiple=True,
    help="Compare only what matches, as for index --exclude: '*.png', 2019/raw; repeat for more.",
)
@click.option(
    "--since",
    metavar="DATE",
    help="Compare only files modified on 2024-05-01, or at 2024-05-01T18:30, or later.",
)
@click.option(
    "--rotations",
    is_flag=True,
    help="Find copies that were turned, too: search in four orientations, take the nearest.",
)
@click.option(
    "--effort",
    type=click.IntRange(min=1),
    metavar="R",
    help="In an index whose vectors are compressed, compare only R of them; below twice -k not "
    "enough.  [default: as many as prove that none was missed]",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one line per query.")
@click.option(
    "--paths",
    "as_paths",
    is_flag=True,
    help="Print only the neighbours' paths, but of those that are gone.",
)
@click.option("-0", "--null", "null", is_flag=True, help="End each path of --paths with a NUL.")
@click.option(
    "--sheet",
    "sheets",
    type=FILE,
    multiple=True,
    help="Draw queries and neighbours as .png or .html; repeat for both.",
)
@functools.partial(shared.photograph_options, metavar="QUERY")
@shared.index_options
def search(
    photographs: shared.Photographs,
    directory: Path,
    k: int,
    metric: Metric | None,
    as_json: bool,
    as_paths: bool,
    null: bool,
    sheets: tuple[Path, ...],
    max_failures: "FailureLimit",
    model_arguments: shared.ModelArguments,
    **criteria: Any,
) -> None:
    """Find the indexed photographs nearest to others.

    QUERY is a photograph, a folder, a pattern such as '*.png', or - for standard input.

    Every vector is compared, or every one that --within, --glob and --since all leave; where they
    are compressed, every one that can be among the nearest, unless --effort says less. A PATTERN
    without a slash is compared with every name in the indexed folders, one with a slash with the
    path from each. A DATE is local time, and a file has the one from when it was indexed.

    A query's own file is left out, copies of it are not. A file with
    the very bytes of the query is "identical", one that is no longer there "gone", one with
    another size or time than when it was indexed "changed". At distance 0 others may be identical,
    too: the network sees only the middle of a photograph. What was imported has the name that its
    file of vectors gives it, and no photograph is opened for it.
    """
    from alexnet_deploy.index.session import Index
    from alexnet_deploy.inference.failures import at_least_one
    from alexnet_deploy.inference.run import RunSummary
    from alexnet_deploy.photographs.sources import path_of

    _check(as_json, as_paths, null, sheets)
    find = photographs.find
    summary, report = RunSummary(), Reporter(find)
    found = at_least_one(find(summary.left_out), summary.left_out)
    with ExitStack() as stack:
        index = stack.enter_context(Index(directory, model_arguments.request(), notify=say))
        for sheet in sheets:
            index.check_not_photograph(sheet, find())
        results = index.search(found, k, metric=metric, summary=summary, **criteria)
        stack.enter_context(closing(results))
        writers = [_stdout_writer(report, as_json, as_paths, null)]
        for sheet in sheets:
            writers.append(stack.enter_context(_sheet_writer(sheet, metric or index.metric)))
        stack.enter_context(report)
        for result in results:
            report.advance(path_of(result.query), result.error)
            for write in writers:
                write(result)
    report.finish(summary, max_failures)


def _check(as_json: bool, as_paths: bool, null: bool, sheets: tuple[Path, ...]) -> None:
    """Refuse options that exclude each other before any work is done."""
    if as_json and as_paths:
        raise UsageError("--json and --paths: both say what goes to stdout; choose one")
    if null and not as_paths:
        raise UsageError("-0 ends the paths of --paths; add --paths")
    if sheets:
        from alexnet_deploy.figures.sheets import check_sheets

        check_sheets(sheets)


@contextmanager
def _sheet_writer(path: Path, metric: Metric) -> Iterator[Callable[["SearchResult"], None]]:
    from alexnet_deploy.figures.sheet_cells import search_row, search_text
    from alexnet_deploy.figures.sheets import open_sheet

    with open_sheet(path, search_text(metric), notify=say) as add:
        yield lambda result: add(search_row(result, metric))


def _stdout_writer(
    report: Reporter, as_json: bool, as_paths: bool, null: bool
) -> Callable[["SearchResult"], None]:
    """Return what prints a query's result: as JSON, as paths, or as a table."""
    if as_json:
        return lambda result: report.result(result.to_json())
    if as_paths:
        end = b"\0" if null else b"\n"
        return lambda result: report.result(
            b"".join(
                os.fsencode(one.imported or one.path) + end
                for one in result.neighbours
                if not one.is_gone
            )
        )
    return lambda result: report.result(result.to_text() + "\n") if result.error is None else None
