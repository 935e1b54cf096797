"""`alexnet-deploy index`."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from alexnet_deploy.choices import ANNS, CODE_BITS, Ann
from alexnet_deploy.commands import options as shared
from alexnet_deploy.console.decoding import pixel_options
from alexnet_deploy.console.paths import FILE, LAYER
from alexnet_deploy.console.reporting import Reporter, print_result, say
from alexnet_deploy.errors import UsageError

if TYPE_CHECKING:
    from alexnet_deploy.inference.failures import FailureLimit


_EVERYWHERE = {"directory", "as_json", "quiet", "verbose"}
_TAKEN = {
    "--from": _EVERYWHERE
    | {"sources", "made_by", "ann", "codes", "coder", "layer", "model", "max_failures"}
    | {"precision", "decode", "colour", "threads"},
    "--export": _EVERYWHERE | {"exported"},
}
"""Parameters of runs that look at no photograph; none other says anything to them."""


def _check_taken(own: str) -> None:
    """Refuse what was said on the command line and would be ignored."""
    context = click.get_current_context()
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if source is ParameterSource.COMMANDLINE and name not in _TAKEN[own]:
            given = parameter.opts[0] if isinstance(parameter, click.Option) else "FOLDER"
            raise UsageError(f"{own} and {given}: do not go together; leave one out")


def _or_exchange(command: Callable[..., None]) -> Callable[..., None]:
    """Let `--from` and `--export` be runs of their own."""

    @functools.wraps(command)
    def chosen(
        sources: tuple[Path, ...],
        made_by: str | None,
        exported: Path | None,
        codes: str | None,
        coder: Path | None,
        **arguments: Any,
    ) -> None:
        ways = {"--ann": arguments["ann"], "--codes": codes and int(codes), "--coder": coder}
        given = [option for option, value in ways.items() if value is not None]
        if len(given) > 1:
            raise UsageError(
                f"{' and '.join(given)}: each says how vectors are compressed; choose one"
            )
        arguments["ann"] = ways[given[0]] if given else "auto"
        if made_by is not None and not sources:
            raise UsageError(f"--made-by {made_by}: is for --from; add it, or leave this out")
        if not sources and exported is None:
            command(**arguments)
            return
        _check_taken("--from" if sources else "--export")
        if sources:
            _import(sources, made_by, **arguments)
        elif exported is not None:
            _export(exported, arguments["directory"], arguments["as_json"])

    return chosen


def _import(
    sources: tuple[Path, ...],
    made_by: str | None,
    *,
    directory: Path,
    layer: str | None,
    as_json: bool,
    max_failures: "FailureLimit",
    ann: Ann | int | Path,
    model_arguments: shared.ModelArguments,
    **of_folders: Any,
) -> None:
    from alexnet_deploy.index.imported import ImportReport, import_files

    report, reporter = ImportReport(directory=directory), Reporter()
    with reporter:
        import_files(
            directory,
            sources,
            model_arguments.request(layer),
            made_by=made_by,
            ann=ann,
            report=report,
            on_plan=reporter.expect,
            on_result=reporter.advance,
            notify=say,
        )
    if as_json:
        print_result(report.to_json())
    say(report.line())
    report.check(max_failures)


def _export(folder: Path, directory: Path, as_json: bool) -> None:
    from alexnet_deploy.index.exported import export_files

    reporter = Reporter()
    with reporter:
        report = export_files(
            directory, folder, on_plan=reporter.expect, on_result=reporter.advance
        )
    if as_json:
        print_result(report.to_json())
    say(report.line())


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
    help="Take a folder, or a file of --from, out of the index; without other FOLDERs do nothing "
    "else.",
)
@click.option(
    "--ann",
    type=click.Choice(ANNS),
    help="Whether to compress the vectors, so that searches read few of them; exact takes it back. "
    " [default: auto: as before, and where comparing all would take longer than 0.2 s]",
)
@click.option(
    "--codes",
    type=click.Choice(list(map(str, CODE_BITS))),
    help="Compress the vectors and give each a binary code of so many bits, too, by which search "
    "--effort chooses what it compares; --ann compressed drops them.",
)
@click.option(
    "--coder",
    type=FILE,
    metavar="HEAD.onnx",
    help="As --codes, by a coder that was trained: python -m training.experiments.codes.",
)
@click.option(
    "--from",
    "sources",
    metavar="FILE|FOLDER",
    type=FILE,
    multiple=True,
    help="Copy vectors from .parquet files, as of embed or --export, or from a folder of "
    "clip-retrieval; repeat for more.",
)
@click.option(
    "--made-by",
    metavar="NAME",
    help="What made the vectors of --from, where no record says it.  [default: the index's]",
)
@click.option(
    "--export",
    "exported",
    metavar="FOLDER",
    type=FILE,
    help="Write the vectors as .parquet files, for other programs, and do nothing else.",
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
@_or_exchange
def index(
    folders: tuple[Path, ...],
    directory: Path,
    layer: str | None,
    exclude: tuple[str, ...],
    as_json: bool,
    max_failures: "FailureLimit",
    model_arguments: shared.ModelArguments,
    **options: Any,
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

    --from copies vectors that were made already; run it again to continue, or after a file changed.
    """
    from alexnet_deploy.index.report import IndexReport
    from alexnet_deploy.index.update import UpdateOptions, bring_up_to_date

    report, reporter = IndexReport(directory=directory), Reporter()
    patterns = tuple(filter(None, exclude)) if exclude else None
    with reporter:
        bring_up_to_date(
            directory,
            folders,
            model_arguments.request(layer),
            UpdateOptions(exclude=patterns, **options),
            report=report,
            on_plan=reporter.expect,
            on_result=lambda result: reporter.advance(result.source, result.error),
            notify=say,
        )
    if as_json:
        print_result(report.to_json())
    say(report.line())
    report.check(max_failures)
