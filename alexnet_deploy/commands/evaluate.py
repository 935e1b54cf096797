"""`alexnet-deploy evaluate`."""

import dataclasses
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from alexnet_deploy.commands import options as shared
from alexnet_deploy.console.paths import FILE, MODEL
from alexnet_deploy.console.reporting import Reporter, print_result, say
from alexnet_deploy.errors import UsageError

if TYPE_CHECKING:
    from alexnet_deploy.inference.evaluation_report import Evaluation
    from alexnet_deploy.inference.failures import FailureLimit
    from alexnet_deploy.inference.run import RunSummary
    from alexnet_deploy.photographs.truth_files import Labelled

_Writer = Callable[["Evaluation"], object]


@contextmanager
def _outputs(
    predictions: tuple[Path, ...],
    matrices: tuple[Path, ...],
    sheets: tuple[Path, ...],
    photographs: "Labelled",
    truth: Path | None,
) -> Iterator[list[_Writer]]:
    """Open the files; each appears once its writer was called, whatever becomes of the next."""
    from alexnet_deploy.figures.confusions import open_confusions
    from alexnet_deploy.figures.matrices import open_matrix
    from alexnet_deploy.inference.prediction_files import open_predictions
    from alexnet_deploy.photographs.finding import check_not_photograph

    taken = {} if truth is None else {os.path.realpath(truth): "the file of --truth"}
    for file in (*predictions, *matrices, *sheets):
        check_not_photograph(file, map(photographs.path, range(len(photographs))))
        if use := taken.get(os.path.realpath(file)):
            raise UsageError(f"{file}: is {use}; name another file")
        taken[os.path.realpath(file)] = "named for another output"
    opened = (
        *map(open_predictions, predictions),
        *map(open_matrix, matrices),
        *(open_confusions(sheet, notify=say) for sheet in sheets),
    )
    with ExitStack() as stack:
        yield [_writer(one, stack.enter_context(ExitStack())) for one in opened]


def _writer(opened: AbstractContextManager[_Writer], own: ExitStack) -> _Writer:
    """Return what writes one file and closes it."""
    write = own.enter_context(opened)

    def write_and_close(found: "Evaluation") -> None:
        write(found)
        own.close()

    return write_and_close


def _measured(
    photographs: "Labelled",
    models: tuple[str, ...],
    weights: tuple[float, ...],
    compare: str | None,
    ten_crop: bool,
    model_arguments: shared.ModelArguments,
    report: Reporter,
    summary: "RunSummary",
) -> "Evaluation":
    """Open the models and run them on the photographs."""
    from alexnet_deploy.inference import evaluation
    from alexnet_deploy.weights.names import chosen_model

    averaged = models or (None,)
    evaluation.ensemble_weights(weights or None, len(averaged))
    names = [*averaged, *([] if compare is None else [compare])]
    paths = [Path(str(chosen_model(name))) for name in names]
    with ExitStack() as stack:
        arguments = [dataclasses.replace(model_arguments, model=name) for name in names]
        runners = [stack.enter_context(one.open_runner(("probabilities",))) for one in arguments]
        stack.enter_context(report)
        report.expect(len(photographs) * len(runners))
        return evaluation.evaluate(
            runners[: len(averaged)],
            photographs,
            ten_crop=ten_crop,
            weights=weights or None,
            paths=paths[: len(averaged)],
            compare=None if compare is None else runners[-1],
            compare_path=None if compare is None else paths[-1],
            threads=model_arguments.threads,
            on_result=report.advance,
            summary=summary,
        )


@click.command(epilog="Example: alexnet-deploy evaluate photos/test --ten-crop")
@click.argument("directory", metavar="DIR", type=FILE)
@click.option(
    "--model",
    "models",
    type=MODEL,
    multiple=True,
    help="Checkpoint, .onnx or .engine file, or a public network's name; repeat to average "
    "several.  "
    "[default: $ALEXNET_MODEL, else the bundled checkpoint]",
)
@click.option(
    "--weight",
    "weights",
    type=float,
    multiple=True,
    help="Weight of a --model in the average, in the same order.  [default: equal]",
)
@click.option(
    "--compare",
    type=MODEL,
    help="A second model, compared with the first, or their average, on the same photographs.",
)
@click.option(
    "--truth",
    type=FILE,
    help="File with the classes of the photographs in DIR, where it has no sub-folders for them.",
)
@click.option("--ten-crop", is_flag=True, help="Average the paper's ten crops, not the centre one.")
@click.option("--per-class", is_flag=True, help="Also print a line for each class.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--predictions",
    type=FILE,
    multiple=True,
    help="Write a row for each photograph, as .csv or .parquet; repeat for both.",
)
@click.option(
    "--confusion",
    "matrices",
    type=FILE,
    multiple=True,
    help="Write the confusion matrix as .csv, or draw it as .png; repeat for both.",
)
@click.option(
    "--sheet",
    "sheets",
    type=FILE,
    multiple=True,
    help="Show the classes confused most as .png or .html; repeat for both.",
)
@shared.max_failures_option
@shared.runtime_options
def evaluate(
    directory: Path,
    models: tuple[str, ...],
    weights: tuple[float, ...],
    compare: str | None,
    truth: Path | None,
    ten_crop: bool,
    per_class: bool,
    as_json: bool,
    predictions: tuple[Path, ...],
    matrices: tuple[Path, ...],
    sheets: tuple[Path, ...],
    max_failures: "FailureLimit",
    model_arguments: shared.ModelArguments,
) -> None:
    """Measure top-1 and top-5 on photographs of known classes.

    DIR has one sub-folder of photographs for each class, named like the model's labels or, for
    ImageNet's, by WordNet id: n01440764. With --truth it has the photographs that a file names:
    Caffe's val.txt (lines such as "ILSVRC2012_val_00000001.JPEG 65"), the development kit's
    ILSVRC2012_validation_ground_truth.txt, Kaggle's LOC_val_solution.csv, or a CSV that begins with
    path,label, where labels are the model's, WordNet ids, or numbers of its outputs from 0.

    Not every class needs photographs, which are decoded at exact size. Ties count fractionally, as
    in the 2012 code; intervals are Wilson's, of 95 % confidence. Several models are an ensemble:
    their probabilities are averaged. A public network's figures on all of ImageNet's classes come
    with its publisher's.

    --compare counts the photographs on which only one of two is right, and tests them by McNemar's
    exact test. There, and in --predictions, --confusion (rows are true classes) and --sheet, the
    first of equally likely classes is the prediction.

    The columns of --predictions: path, true_index, true_label, true_rank, true_probability, top1,
    top5, index_1, label_1, probability_1 to _5, compared_index, compared_label,
    compared_probability (of --compare), error.
    """
    from alexnet_deploy.inference.run import RunSummary
    from alexnet_deploy.photographs.truth_files import find_labelled

    summary, report = RunSummary(), Reporter()
    photographs = find_labelled(directory, truth, left_out=summary.left_out)
    with _outputs(predictions, matrices, sheets, photographs, truth) as writers:
        found = _measured(
            photographs, models, weights, compare, ten_crop, model_arguments, report, summary
        )
        print_result(found.to_json() if as_json else found.table(per_class=per_class))
        for write in writers:
            write(found)
    report.finish(summary, max_failures)
