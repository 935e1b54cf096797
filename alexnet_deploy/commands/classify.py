"""`alexnet-deploy classify`."""

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from alexnet_deploy.commands import options as shared
from alexnet_deploy.commands.reporting import Reporter, say
from alexnet_deploy.errors import UsageError

if TYPE_CHECKING:
    from alexnet_deploy.classification import Classification
    from alexnet_deploy.inference import FailureLimit
    from alexnet_deploy.model_spec import ModelSpec

_STDOUT = Path("-")
_MAX_LABEL_WIDTH = 32  # a longer label pushes its path to the right

_Writer = Callable[["Classification"], object]


@click.command(epilog="Example: alexnet-deploy classify photos/ --top5 --csv labels.csv")
@click.option(
    "--top", type=click.IntRange(min=1), help="Classes to name.  [default: 1; 5 with --figure]"
)
@click.option("--top5", "top", flag_value=5, type=int, help="The same as --top 5.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one line per photograph.")
@click.option("--csv", "csv_file", type=shared.FILE, help="Write one row per class; - for stdout.")
@click.option("--figure", type=shared.FILE, help="Draw the first 64 photographs as PNG.")
@shared.photograph_options
@shared.model_options
def classify(
    paths: tuple[str, ...],
    top: int | None,
    as_json: bool,
    csv_file: Path | None,
    figure: Path | None,
    include_hidden: bool,
    max_failures: "FailureLimit",
    engine_options: shared.EngineArguments,
) -> None:
    """Say what photographs show.

    PATH is a file, a folder (searched through) or a pattern such as '*.png'.

    Prints a table, unless --json or --csv is given. With --json, a line for each photograph:
    {"path", "predictions": [{"label", "index", "probability"}]} or {"path", "error"}; a path
    that is not UTF-8 comes with "path_base64". The columns of --csv: path, rank, index, label,
    probability, error.
    """
    from alexnet_deploy import classification
    from alexnet_deploy.images import find_photographs
    from alexnet_deploy.inference import RunSummary

    _check(as_json, csv_file, figure)
    find = functools.partial(find_photographs, paths, include_hidden=include_hidden)
    found, summary, report = find(), RunSummary(), Reporter(find)
    num_classes = top or (1 if figure is None else 5)
    with ExitStack() as stack:
        engine = stack.enter_context(engine_options.open(("probabilities",)))
        writers = [_stdout_writer(report, engine.spec, num_classes, as_json, csv_file)]
        if figure is not None:
            writers.append(stack.enter_context(_figure_writer(figure, engine.spec)))
        # Inside the figure's, so that an error while rows are written names this file.
        if csv_file is not None and csv_file != _STDOUT:
            writers.append(stack.enter_context(_csv_writer(csv_file)))
        stack.enter_context(report)
        for result in classification.classify(
            engine, found, top=num_classes, threads=engine_options.threads, summary=summary
        ):
            report.advance(result.path, result.error)
            for write in writers:
                write(result)
    report.finish(summary, max_failures)


def _check(as_json: bool, csv_file: Path | None, figure: Path | None) -> None:
    """Refuse options that exclude each other before any work is done."""
    if as_json and csv_file == _STDOUT:
        raise UsageError("--json and --csv -: both would go to stdout; give --csv a file")
    if figure is not None and figure.suffix.lower() != ".png":
        raise UsageError(f"--figure {figure}: figures are PNG; choose a name ending in .png")


def _stdout_writer(
    report: Reporter, spec: "ModelSpec", num_classes: int, as_json: bool, csv_file: Path | None
) -> _Writer:
    """Return what prints a photograph: as JSON, as CSV, as a part of the table, or not."""
    from alexnet_deploy.classification import CSV_HEADER, to_csv, to_json

    if as_json:
        return lambda result: report.result(to_json(result))
    if csv_file == _STDOUT:
        report.result(CSV_HEADER)
        return lambda result: report.result(to_csv(result))
    if csv_file is not None:
        return lambda _: None
    longest = max((len(label) for label in spec.labels), default=len("class 999"))
    table = functools.partial(_table, num_classes, min(longest, _MAX_LABEL_WIDTH))
    return lambda result: report.result(table(result)) if result.error is None else None


def _table(num_classes: int, width: int, result: "Classification") -> str:
    """Return a photograph's part of the table: one line, or with more classes a block."""
    from alexnet_deploy.path_text import printable

    path = click.style(printable(result.path), bold=True)
    rows = [
        f"{one.probability:6.1%}  {printable(one.label):{width if num_classes == 1 else 0}}"
        for one in result.predictions
    ]
    return f"{rows[0]}  {path}" if num_classes == 1 else "\n".join([path, *rows])


@contextmanager
def _csv_writer(path: Path) -> Iterator[_Writer]:
    from alexnet_deploy.classification import CSV_HEADER, to_csv
    from alexnet_deploy.output_files import atomic_write

    with atomic_write(path) as file:
        file.write(CSV_HEADER)
        yield lambda result: file.write(to_csv(result))


@contextmanager
def _figure_writer(path: Path, spec: "ModelSpec") -> Iterator[_Writer]:
    """Collect the photographs to draw; draw them when the run is over."""
    from alexnet_deploy.figures import MAX_PHOTOGRAPHS, write_figure
    from alexnet_deploy.output_files import atomic_write

    results: list[Classification] = []
    num_seen = 0

    def add(result: "Classification") -> None:
        nonlocal num_seen
        num_seen += 1
        if len(results) < MAX_PHOTOGRAPHS:
            results.append(result)

    with atomic_write(path) as file:
        yield add
        write_figure(file, results, spec)
    if num_seen > len(results):
        say(f"{path}: shows the first {len(results)} of {num_seen:,} photographs")
