"""`alexnet-deploy export`."""

import json
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alexnet_deploy.choices import FILE_PRECISIONS, RUNTIMES
from alexnet_deploy.console.decoding import decoding_options
from alexnet_deploy.console.paths import FILE, LAYER, MODEL
from alexnet_deploy.console.reporting import print_result, say
from alexnet_deploy.errors import UsageError
from alexnet_deploy.files.path_text import printable

if TYPE_CHECKING:
    from alexnet_deploy.commands.export_arguments import ExportArguments
    from alexnet_deploy.model.checkpoints import Checkpoint
    from alexnet_deploy.runtimes.engine_file import EngineRecord

_Written = tuple[Mapping[str, Any] | None, "EngineRecord | None"]
"""The report of what was written, and of an engine the record."""
_Write = Callable[["Checkpoint", Path, "ExportArguments"], _Written]


def _engine_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of engines."""
    batch = click.IntRange(min=1)
    options = (
        click.option("--trt", is_flag=True, help="Build a TensorRT engine instead."),
        click.option(
            "--rtx", is_flag=True, help="Build an engine of TensorRT-RTX, which needs no GPU."
        ),
        click.option(
            "--lrn",
            type=click.Choice(["plugin", "native"]),
            help="What normalizes in a TensorRT engine: our kernel or its own layer.  "
            "[default: plugin]",
        ),
        click.option("--min-batch", type=batch, help="Fewest images per call.  [default: 1]"),
        click.option("--opt-batch", type=batch, help="Usual images per call.  [default: 32]"),
        click.option("--max-batch", type=batch, help="Most images per call.  [default: 32]"),
        click.option(
            "--compute-capability",
            multiple=True,
            help="With --rtx: GPUs to build for, such as 8.9; repeat for more.  "
            "[default: 8.0, 8.6, 8.9, 12.0 and later]",
        ),
        click.option(
            "--version-compatible",
            is_flag=True,
            help="With --trt: for later versions of TensorRT, too; may be slower.",
        ),
        click.option(
            "--hardware-compatible",
            type=click.Choice(["none", "same-compute-capability", "ampere-plus"]),
            default="none",
            show_default=True,
            help="With --trt: for all GPUs of this compute capability, or of 8.0 and later; may be "
            "slower.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command(epilog="Example: alexnet-deploy export ckpt.pt -o alexnet.onnx --verify-on photos/")
@click.argument("checkpoint", type=MODEL, required=False)
@click.option("--model", type=MODEL, help="The same as CHECKPOINT: a file or a public network.")
@click.option(
    "-o",
    "--output",
    type=FILE,
    help="File to write.  [default: CKPT's name .onnx, with --trt .engine]",
)
@click.option(
    "--precision",
    type=click.Choice(FILE_PRECISIONS),
    default="fp32",
    show_default=True,
    help="Of the layers with weights; inputs are bytes and outputs float32 in each. "
    "fp16: for GPUs, half the size. bf16: for TensorRT, ONNX Runtime has none. "
    "int8: the smallest, calibrated on photographs.",
)
@click.option(
    "--calibrate",
    type=FILE,
    help="With int8: photographs to choose the ranges on, a few hundred.  [default: samples]",
)
@click.option(
    "--triton",
    type=FILE,
    help="Write a new folder instead, a model repository for NVIDIA's Triton: the network, named "
    "as CKPT, what decodes photographs for it, and an ensemble of both. --trt: as a TensorRT "
    "engine; --max-batch: for all three.",
)
@_engine_options
@click.option(
    "--layer",
    "layers",
    type=LAYER,
    multiple=True,
    help="Layer to offer as an output, named as for embed, or all; repeat for more.  "
    "[default: probabilities, fc7]",
)
@click.option(
    "--opset",
    type=click.IntRange(17, 22),
    help="Version of ONNX's operators, for older tools.  [default: 20; of bf16 always 22]",
)
@click.option("--verify-on", type=FILE, help="Photographs to verify on.  [default: samples]")
@click.option("--no-verify", is_flag=True, help="Write the file unverified, and say so in it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--runtime",
    type=click.Choice(RUNTIMES),
    default="auto",
    show_default=True,
    help="Library that runs the network to calibrate and to verify an ONNX file.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Its CPU threads.  [default: all]")
@decoding_options
def export(checkpoint: str | None, model: str | None, **options: Any) -> None:
    """Write a checkpoint as a verified ONNX file, or as a verified TensorRT engine.

    The file is compared with a NumPy reference on photographs, and written only if it computes
    the same (exit 4 if not). An engine that cannot run on this machine is written
    unverified, and says so. CHECKPOINT is a file or the name of a public network; without one,
    $ALEXNET_MODEL or the bundled one.
    """
    from alexnet_deploy.commands.export_arguments import ExportArguments, check_export
    from alexnet_deploy.weights.names import chosen_model

    if checkpoint is not None and model is not None:
        raise UsageError(f"--model {model}: means the same as {checkpoint}; give one of them")
    source = chosen_model(checkpoint if model is None else model, notify=say)
    arguments = ExportArguments(source=source, **options)
    check_export(arguments)
    loaded = arguments.load()
    write = _write_engine if arguments.is_engine else _write_onnx
    if arguments.triton is None:
        report, record = write(loaded, arguments.target, arguments)
    else:
        report, record = _write_repository(arguments.triton, write, loaded, arguments)
    _print_written(loaded, report, record, arguments)


def _write_repository(
    path: Path, write: _Write, checkpoint: "Checkpoint", arguments: "ExportArguments"
) -> _Written:
    """Write into a repository for Triton."""
    from alexnet_deploy.export.triton import ServedNetwork, triton_repository
    from alexnet_deploy.runtimes.batch_profile import BatchProfile

    profile = BatchProfile.around(min=None, opt=arguments.opt_batch, max=arguments.max_batch)
    network = ServedNetwork.of(checkpoint.spec, arguments.name, arguments.layers, profile)
    with triton_repository(path, network) as folder:
        written = write(checkpoint, folder / arguments.target.name, arguments)
    say(
        f"{printable(path)}: clients call {network.ensemble}; where the package is installed, "
        f"too: tritonserver --model-repository {shlex.quote(str(path))}"
    )
    return written


def _write_onnx(checkpoint: "Checkpoint", path: Path, arguments: "ExportArguments") -> _Written:
    """Export to ONNX; the report is None where none was asked for."""
    from alexnet_deploy.export.onnx import export_onnx
    from alexnet_deploy.graph.build import OPSET
    from alexnet_deploy.runtimes.base import RunnerOptions

    file = export_onnx(
        checkpoint,
        path,
        outputs=arguments.layers,
        precision=arguments.precision,
        photographs=arguments.verification_photographs(),
        calibrate_on=arguments.calibration_photographs(),
        opset=arguments.opset or OPSET,
        options=RunnerOptions(runtime=arguments.runtime, threads=arguments.threads),
        on_report=arguments.show,
        notify=say,
    )
    if arguments.precision == "bf16":
        say("bf16: the file is for TensorRT; on a CPU only OpenVINO runs it, not ONNX Runtime")
    return file.report, None


def _write_engine(checkpoint: "Checkpoint", path: Path, arguments: "ExportArguments") -> _Written:
    """Export to an engine; the report is None where it cannot run here."""
    from alexnet_deploy.export.engine import EngineRequest, choose_runtime, export_engine
    from alexnet_deploy.runtimes.batch_profile import BatchProfile

    photographs = arguments.verification_photographs()
    calibrate_on = arguments.calibration_photographs()
    profile = BatchProfile.around(
        min=arguments.min_batch, opt=arguments.opt_batch, max=arguments.max_batch
    )
    request = EngineRequest(
        runtime=choose_runtime(rtx=arguments.rtx),
        precision=arguments.precision,
        profile=profile,
        lrn=arguments.lrn,
        compute_capabilities=arguments.compute_capability,
        version_compatible=arguments.version_compatible,
        hardware_compatibility=arguments.hardware_compatible,
        outputs=arguments.layers,
    )
    engine = export_engine(
        checkpoint,
        path,
        request,
        photographs=photographs,
        calibrate_on=calibrate_on,
        on_report=arguments.show,
        notify=say,
    )
    if photographs is not None and engine.record.report is None:
        say(f"{engine.record.status}; where it is to run: {_verify_command(arguments)}")
    return engine.record.report, engine.record


def _verify_command(arguments: "ExportArguments") -> str:
    """Return the command that verifies the engine elsewhere."""
    from alexnet_deploy.model.default import bundled_checkpoint

    command = ["alexnet-deploy", "verify", str(arguments.target)]
    if arguments.source != bundled_checkpoint():  # which is there, and elsewhere than here
        command += ["--against", str(arguments.source)]
    return shlex.join(command)


def _print_written(
    checkpoint: "Checkpoint",
    report: Mapping[str, Any] | None,
    record: "EngineRecord | None",
    arguments: "ExportArguments",
) -> None:
    """Print which file was written, or with --json an object."""
    from alexnet_deploy.runtimes.engine_file import NORMALIZED_BY, NOT_VERIFIED

    target, status = arguments.target, "verified"
    if report is None:
        status = "not verified, as asked" if arguments.no_verify else NOT_VERIFIED
    if arguments.as_json:
        result = {
            "file": str(target),
            "identity": checkpoint.identity,
            "runtime": record and record.runtime,
            "runtime_version": record and record.runtime_version,
            "lrn": record and record.lrn,
            "status": status,
            "report": report,
        }
        print_result(json.dumps(result))
        return
    engine = f", {record.library}, {NORMALIZED_BY[record.lrn]}" if record else ""
    note = "" if report else f", {status}"
    print_result(f"{printable(target)}: {target.stat().st_size / 1e6:.1f} MB{engine}{note}")
