"""`alexnet-deploy classify`."""

import os
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from alexnet_deploy.commands import options as shared
from alexnet_deploy.console.decoding import pixel_options
from alexnet_deploy.console.paths import FILE
from alexnet_deploy.console.reporting import Reporter, say
from alexnet_deploy.errors import UsageError

if TYPE_CHECKING:
    from alexnet_deploy.inference.classification import Classification
    from alexnet_deploy.inference.failures import FailureLimit
    from alexnet_deploy.model.spec import ModelSpec

_STDOUT = Path("-")

_Writer = Callable[["Classification"], None]


@click.command(epilog="Example: alexnet-deploy classify photos/ --top5 --csv labels.csv")
@click.option(
    "--top", type=click.IntRange(min=1), help="Classes to name.  [default: 1; 5 with --figure]"
)
@click.option("--top5", "top", flag_value=5, type=int, help="The same as --top 5.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one line per photograph.")
@click.option("--csv", "csv_file", type=FILE, help="Write one row per class; - for stdout.")
@click.option("--figure", type=FILE, help="Draw the first 64 photographs as PNG.")
@shared.photograph_options
@pixel_options
@shared.fast_option
@shared.model_options
def classify(
    photographs: shared.Photographs,
    top: int | None,
    as_json: bool,
    csv_file: Path | None,
    figure: Path | None,
    max_failures: "FailureLimit",
    model_arguments: shared.ModelArguments,
) -> None:
    """Classify photographs.

    PATH is a file, a folder (searched recursively), a pattern such as '*.png', or - for standard
    input.

    Prints a table, unless --json or --csv is given. The columns of --csv: path, rank, index,
    label, probability, error; what a spreadsheet would take for a formula begins with ' or ./.
    """
    from alexnet_deploy.inference import classification
    from alexnet_deploy.inference.failures import at_least_one
    from alexnet_deploy.inference.run import RunSummary
    from alexnet_deploy.photographs.finding import check_not_photograph

    _check(as_json, csv_file, figure)
    find = photographs.find
    for output in (csv_file, figure):
        if output is not None and output != _STDOUT:
            check_not_photograph(output, find())
    summary, report = RunSummary(), Reporter(find)
    found = at_least_one(find(summary.left_out), summary.left_out)
    num_classes = top or (1 if figure is None else 5)
    with ExitStack() as stack:
        model = stack.enter_context(model_arguments.open(photographs))
        writers = [_stdout_writer(report, model.spec, num_classes, as_json, csv_file)]
        if csv_file is not None and csv_file != _STDOUT:
            writers.append(stack.enter_context(classification.open_csv(csv_file)))
        if figure is not None:
            from alexnet_deploy.figures.classes import open_figure

            add = open_figure(figure, model.spec, say, in_memory=photographs.stdin)
            writers.append(stack.enter_context(add))
        results = model.classify(found, top=num_classes, summary=summary)
        stack.enter_context(closing(results))
        stack.enter_context(report)
        for result in results:
            report.advance(result.path, result.error)
            for write in writers:
                write(result)
    report.finish(summary, max_failures)


def _check(as_json: bool, csv_file: Path | None, figure: Path | None) -> None:
    """Refuse options that exclude each other, and names that are a slip, before any work."""
    from alexnet_deploy.photographs.suffixes import PHOTO_SUFFIXES

    if as_json and csv_file == _STDOUT:
        raise UsageError("--json and --csv -: both would go to stdout; give --csv a file")
    files = [os.path.realpath(file) for file in (csv_file, figure) if file is not None]
    if len(set(files)) < len(files):
        raise UsageError(f"--csv and --figure: both would be {figure}; give them two names")
    if csv_file is not None and csv_file.suffix.lower() in PHOTO_SUFFIXES:
        # As from `--csv *.jpg`, where the shell puts the first photograph.
        raise UsageError(f"--csv {csv_file}: is a photograph's name; choose one ending in .csv")
    if figure is not None and figure.suffix.lower() != ".png":
        raise UsageError(f"--figure {figure}: figures are PNG; choose a name ending in .png")


def _stdout_writer(
    report: Reporter, spec: "ModelSpec", num_classes: int, as_json: bool, csv_file: Path | None
) -> _Writer:
    """Return what prints a photograph: as JSON, as CSV, as a part of the table, or not."""
    from alexnet_deploy.inference.classification import CSV_HEADER, text_table, to_csv, to_json

    if as_json:
        return lambda result: report.result(to_json(result))
    if csv_file == _STDOUT:
        report.result(CSV_HEADER)
        return lambda result: report.result(to_csv(result))
    if csv_file is not None:
        return lambda _: None
    render = text_table(spec, num_classes)
    return lambda result: report.result(render(result)) if result.error is None else None
