"""`alexnet-deploy evaluate`."""

import dataclasses
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alexnet_deploy.commands import options as shared
from alexnet_deploy.console.paths import FILE, LAYER, MODEL
from alexnet_deploy.console.reporting import Reporter, print_result, say
from alexnet_deploy.errors import UsageError

if TYPE_CHECKING:
    from alexnet_deploy.inference.evaluation_report import Evaluation
    from alexnet_deploy.inference.failures import FailureLimit
    from alexnet_deploy.inference.retrieval_report import Retrieval
    from alexnet_deploy.inference.run import RunSummary
    from alexnet_deploy.photographs.truth_files import Labelled

_Writer = Callable[["Evaluation"], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Arguments:
    """What was said on the command line, under the names of its parameters."""

    directory: Path
    retrieval: bool
    layers: tuple[str, ...]
    models: tuple[str, ...]
    weights: tuple[float, ...]
    compare: str | None
    truth: Path | None
    ten_crop: bool
    predictions: tuple[Path, ...]
    matrices: tuple[Path, ...]
    sheets: tuple[Path, ...]
    model_arguments: shared.ModelArguments

    def __post_init__(self) -> None:
        """Refuse options that mean nothing beside the others.

        Raises:
            UsageError: naming the option.
        """
        if not self.retrieval:
            if self.layers:
                raise UsageError("--layer: is for --retrieval; add it, or leave it out")
            return
        for_classes = {
            "--weight": self.weights,
            "--compare": self.compare,
            "--ten-crop": self.ten_crop,
            "--predictions": self.predictions,
            "--confusion": self.matrices,
            "--sheet": self.sheets,
        }
        for option, value in for_classes.items():
            if value:
                raise UsageError(f"{option}: --retrieval judges vectors, not classes; leave it out")
        if len(self.models) > 1:
            raise UsageError(f"--model: --retrieval judges one, got {len(self.models)}")


@contextmanager
def _outputs(arguments: _Arguments, photographs: "Labelled") -> Iterator[list[_Writer]]:
    """Open the files; each appears once its writer was called, whatever becomes of the next."""
    from alexnet_deploy.figures.confusions import open_confusions
    from alexnet_deploy.figures.matrices import open_matrix
    from alexnet_deploy.inference.prediction_files import open_predictions
    from alexnet_deploy.photographs.finding import check_not_photograph

    truth = arguments.truth
    taken = {} if truth is None else {os.path.realpath(truth): "the file of --truth"}
    for file in (*arguments.predictions, *arguments.matrices, *arguments.sheets):
        check_not_photograph(file, map(photographs.path, range(len(photographs))))
        if use := taken.get(os.path.realpath(file)):
            raise UsageError(f"{file}: is {use}; name another file")
        taken[os.path.realpath(file)] = "named for another output"
    opened = (
        *map(open_predictions, arguments.predictions),
        *map(open_matrix, arguments.matrices),
        *(open_confusions(sheet, notify=say) for sheet in arguments.sheets),
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


def _accuracy(
    arguments: _Arguments, photographs: "Labelled", report: Reporter, summary: "RunSummary"
) -> "Evaluation":
    """Open the models and run them on the photographs."""
    from alexnet_deploy.inference import evaluation
    from alexnet_deploy.weights.names import chosen_model

    averaged, weights = arguments.models or (None,), arguments.weights or None
    compare, given = arguments.compare, arguments.model_arguments
    evaluation.ensemble_weights(weights, len(averaged))
    names = [*averaged, *([] if compare is None else [compare])]
    paths = [Path(str(chosen_model(name))) for name in names]
    with ExitStack() as stack:
        each = [dataclasses.replace(given, model=name) for name in names]
        runners = [stack.enter_context(one.open_runner(("probabilities",))) for one in each]
        stack.enter_context(report)
        report.expect(len(photographs) * len(runners))
        return evaluation.evaluate(
            runners[: len(averaged)],
            photographs,
            ten_crop=arguments.ten_crop,
            weights=weights,
            paths=paths[: len(averaged)],
            compare=None if compare is None else runners[-1],
            compare_path=None if compare is None else paths[-1],
            threads=given.threads,
            on_result=report.advance,
            summary=summary,
        )


def _retrieval(
    arguments: _Arguments, photographs: "Labelled", report: Reporter, summary: "RunSummary"
) -> "Retrieval":
    """Open the model and judge what it makes of the photographs."""
    from alexnet_deploy.index.compressed_forms import COMPRESSED_FORMS
    from alexnet_deploy.inference.retrieval import evaluate_retrieval
    from alexnet_deploy.inference.retrieval_forms import EXACT_FORMS
    from alexnet_deploy.weights.names import chosen_model

    name = arguments.models[0] if arguments.models else None
    given, layers = arguments.model_arguments, arguments.layers or ("fc7",)
    with dataclasses.replace(given, model=name).open_runner(layers) as runner, report:
        report.expect(len(photographs))
        return evaluate_retrieval(
            runner,
            photographs,
            (*EXACT_FORMS, *COMPRESSED_FORMS),
            layers=layers,
            path=Path(str(chosen_model(name))),
            threads=given.threads,
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
@click.option(
    "--retrieval",
    is_flag=True,
    help="Measure instead how well nearest neighbours share a photograph's class.",
)
@click.option(
    "--layer",
    "layers",
    type=LAYER,
    multiple=True,
    help="With --retrieval: layer to search by, named as for embed; repeat for more.  "
    "[default: fc7]",
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
def evaluate(per_class: bool, as_json: bool, max_failures: "FailureLimit", **options: Any) -> None:
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

    --retrieval makes each photograph the query against all the others, those of its class being
    what it should find, by its pixels (256 x 256, as in section 6.1 of the paper) and by a layer of
    the network, whose classes need not be these. mAP is the mean of the queries' average precision,
    "by class" the mean of the classes' own; p@10 is the share of the ten nearest that are of the
    query's class, r@10 the share of its class among them. Results that tie have every order.
    Compressed forms are fitted on all the photographs, or on every second class and judged on the
    others by themselves: "unseen".

    The columns of --predictions: path, true_index, true_label, true_rank, true_probability, top1,
    top5, index_1, label_1, probability_1 to _5, compared_index, compared_label,
    compared_probability (of --compare), error.
    """
    from alexnet_deploy.inference.run import RunSummary
    from alexnet_deploy.photographs.truth_files import find_labelled

    arguments = _Arguments(**options)
    summary, report = RunSummary(), Reporter()
    photographs = find_labelled(arguments.directory, arguments.truth, left_out=summary.left_out)
    if arguments.retrieval:
        ranked = _retrieval(arguments, photographs, report, summary)
        print_result(ranked.to_json() if as_json else ranked.table(per_class=per_class))
    else:
        with _outputs(arguments, photographs) as writers:
            found = _accuracy(arguments, photographs, report, summary)
            print_result(found.to_json() if as_json else found.table(per_class=per_class))
            for write in writers:
                write(found)
    report.finish(summary, max_failures)
