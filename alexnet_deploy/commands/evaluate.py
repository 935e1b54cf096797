"""`alexnet-deploy evaluate`."""

import dataclasses
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from alexnet_deploy.commands import options as shared
from alexnet_deploy.console.paths import FILE, MODEL
from alexnet_deploy.console.reporting import Reporter, print_result

if TYPE_CHECKING:
    from alexnet_deploy.inference.failures import FailureLimit


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
    "--truth",
    type=FILE,
    help="File with the classes of the photographs in DIR, where it has no sub-folders for them.",
)
@click.option("--ten-crop", is_flag=True, help="Average the paper's ten crops, not the centre one.")
@click.option("--per-class", is_flag=True, help="Also print a line for each class.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@shared.max_failures_option
@shared.runtime_options
def evaluate(
    directory: Path,
    models: tuple[str, ...],
    weights: tuple[float, ...],
    truth: Path | None,
    ten_crop: bool,
    per_class: bool,
    as_json: bool,
    max_failures: "FailureLimit",
    model_arguments: shared.ModelArguments,
) -> None:
    """Measure top-1 and top-5 on photographs of known classes.

    DIR has one sub-folder of photographs for each class, named like the model's labels or, for
    ImageNet's, by WordNet id: n01440764. With --truth it has the photographs that a file names:
    Caffe's val.txt (lines such as "ILSVRC2012_val_00000001.JPEG 65"), the development kit's
    ILSVRC2012_validation_ground_truth.txt, Kaggle's LOC_val_solution.csv, or a CSV that begins with
    path,label, where labels are the model's, WordNet ids, or numbers of its outputs from 0.

    Every photograph is decoded at exact size. Not every class needs one. Ties count fractionally,
    as in the 2012 code; intervals are Wilson's, of 95 % confidence. Several models are an ensemble:
    their probabilities are averaged.
    The figures of a public network on all of ImageNet's classes come with its publisher's.

    With --json: {"top1", "top1_interval": [low, high], "top5", "top5_interval", "mean_class_top1",
    "photographs", "failures": [{"path", "error"}], "unlabelled", "left_out": {suffix: number},
    "decode": {"decoder", "scale", "colour"}, "crops", "matched_by", "models": [{"path",
    "identity", "runtime", "precision", "weight", "input_size", "resize", "resize_to", "filter"}],
    "classes": [{"label", "index", "photographs", "top1", "top5"}], "published": {"network", "top1",
    "top1_inside", "top5", "top5_inside", "measured"} or null, "seconds"}; a path that is not UTF-8
    comes with "path_base64".
    """
    from alexnet_deploy.inference import evaluation
    from alexnet_deploy.inference.run import RunSummary
    from alexnet_deploy.photographs.truth_files import find_labelled
    from alexnet_deploy.weights.names import chosen_model

    summary, report = RunSummary(), Reporter()
    names = models or (None,)
    evaluation.ensemble_weights(weights or None, len(names))
    photographs = find_labelled(directory, truth, left_out=summary.left_out)
    with ExitStack() as stack:
        arguments = [dataclasses.replace(model_arguments, model=name) for name in names]
        runners = [stack.enter_context(one.open_runner(("probabilities",))) for one in arguments]
        stack.enter_context(report)
        report.expect(len(photographs) * len(runners))
        found = evaluation.evaluate(
            runners,
            photographs,
            ten_crop=ten_crop,
            weights=weights or None,
            paths=[Path(str(chosen_model(name))) for name in names],
            threads=model_arguments.threads,
            on_result=report.advance,
            summary=summary,
        )
    print_result(found.to_json() if as_json else found.table(per_class=per_class))
    report.finish(summary, max_failures)
