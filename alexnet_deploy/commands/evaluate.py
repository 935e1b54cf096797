"""`alexnet-deploy evaluate`."""

import dataclasses
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from alexnet_deploy.commands import options as shared
from alexnet_deploy.console.paths import FILE
from alexnet_deploy.console.reporting import Reporter, print_result

if TYPE_CHECKING:
    from alexnet_deploy.inference.failures import FailureLimit


@click.command(epilog="Example: alexnet-deploy evaluate photos/test --ten-crop")
@click.argument("directory", metavar="DIR", type=FILE)
@click.option(
    "--model",
    "models",
    type=FILE,
    multiple=True,
    help="Checkpoint, .onnx or .engine file; repeat to average several.  "
    "[default: $ALEXNET_MODEL, else the bundled checkpoint]",
)
@click.option(
    "--weight",
    "weights",
    type=float,
    multiple=True,
    help="Weight of a --model in the average, in the same order.  [default: equal]",
)
@click.option("--ten-crop", is_flag=True, help="Average the paper's ten crops, not the centre one.")
@click.option("--per-class", is_flag=True, help="Also print a line for each class.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@shared.max_failures_option
@shared.runtime_options
def evaluate(
    directory: Path,
    models: tuple[Path, ...],
    weights: tuple[float, ...],
    ten_crop: bool,
    per_class: bool,
    as_json: bool,
    max_failures: "FailureLimit",
    model_arguments: shared.ModelArguments,
) -> None:
    """Measure top-1 and top-5 on a folder of classes.

    DIR has one sub-folder of photographs for each class, named like the model's labels; labels
    without a folder are allowed. Ties count fractionally, as in the 2012 code. Several models are
    an ensemble: their probabilities are averaged. With --json: {"top1", "top5", "mean_class_top1",
    "photographs", "failures": [{"path", "error"}], "crops", "matched_by", "models": [{"path",
    "identity", "runtime", "precision", "weight"}], "classes": [{"label", "index",
    "photographs", "top1", "top5"}], "seconds"}; a path that is not UTF-8 comes with
    "path_base64".
    """
    from alexnet_deploy.inference import evaluation
    from alexnet_deploy.inference.run import RunSummary
    from alexnet_deploy.model.default import default_model
    from alexnet_deploy.photographs.class_folders import find_class_folders

    summary, report = RunSummary(), Reporter()
    paths = models or (default_model(),)
    evaluation.ensemble_weights(weights or None, len(paths))
    folders = find_class_folders(directory)
    with ExitStack() as stack:
        arguments = [dataclasses.replace(model_arguments, model=path) for path in paths]
        runners = [stack.enter_context(one.open_runner(("probabilities",))) for one in arguments]
        stack.enter_context(report)
        report.expect(len(folders) * len(runners))
        found = evaluation.evaluate(
            runners,
            folders,
            ten_crop=ten_crop,
            weights=weights or None,
            paths=paths,
            threads=model_arguments.threads,
            on_result=report.advance,
            summary=summary,
        )
    print_result(found.to_json() if as_json else found.table(per_class=per_class))
    report.finish(summary, max_failures)
