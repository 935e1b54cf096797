"""Checkpoint to a verified model file; the one way by which `.onnx` files are made."""

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path

from alexnet_deploy.choices import FilePrecision
from alexnet_deploy.errors import UsageError
from alexnet_deploy.files.output_files import atomic_write
from alexnet_deploy.graph.build import OPSET, build_model
from alexnet_deploy.graph.casting import cast_model
from alexnet_deploy.graph.model_file import ModelFile
from alexnet_deploy.graph.report import Report
from alexnet_deploy.model.checkpoints import Checkpoint
from alexnet_deploy.model.layers import layer_names
from alexnet_deploy.runtimes.base import RunnerOptions, usual_outputs


def export_onnx(
    checkpoint: Checkpoint,
    path: Path,
    *,
    outputs: tuple[str, ...] = (),
    precision: FilePrecision = "fp32",
    photographs: Iterable[Path] | None,
    calibrate_on: Iterable[Path] | None = None,
    opset: int = OPSET,
    options: RunnerOptions | None = None,
    on_report: Callable[[Report], None] = lambda report: None,
    notify: Callable[[str], None] = lambda line: None,
) -> ModelFile:
    """Write `checkpoint` as `.onnx`, after comparing it with the reference.

    Args:
        checkpoint: what to export.
        path: the file to write; it appears only when verification passed.
        outputs: layers that the file offers, as for `layers.layer_names`; none for
            `usual_outputs`.
        precision: of the graph; every one has float32 outputs.
        photographs: what to verify on; None writes the file unverified, without a report.
        calibrate_on: as for `build_file`.
        opset: as for `build_file`.
        options: how to run the artefact while verifying.
        on_report: called with the report, passed or failed, before anything is written.
        notify: as for `build_file`.

    Raises:
        VerificationError: the artefact differs; nothing was written.
        NoPhotographsError: none to verify on, or to calibrate on, could be read.
        OutputError: the file cannot be written.
        UsageError: a layer that the network does not have, or a name not ending in .onnx, by
            which no command would know the file.
    """
    outputs = layer_names(outputs or usual_outputs(checkpoint.spec), checkpoint.spec)
    if path.suffix != ".onnx":
        raise UsageError(f"{path}: a model file's name ends in .onnx; choose such a name")
    # Opened first: a place that cannot be written must show before minutes of verification.
    with atomic_write(path) as target:
        options = options or RunnerOptions()
        file = build_file(
            checkpoint,
            outputs,
            precision,
            calibrate_on,
            opset=opset,
            options=options,
            notify=notify,
        )
        if photographs is not None:
            file = verified_model(file, checkpoint, photographs, options, on_report)
        target.writelines(file.chunks())
    return file


def build_file(
    checkpoint: Checkpoint,
    outputs: tuple[str, ...],
    precision: FilePrecision,
    calibrate_on: Iterable[Path] | None = None,
    *,
    opset: int = OPSET,
    options: RunnerOptions | None = None,
    notify: Callable[[str], None] = lambda line: None,
) -> ModelFile:
    """Return the checkpoint as a model file in memory, in any precision, unverified.

    Args:
        checkpoint: what to build.
        outputs: layers that the file offers, by our names; none for `usual_outputs`.
        precision: of the graph.
        calibrate_on: with int8, photographs for the ranges, as for `calibrated_ranges`.
        opset: version of ONNX's operators, one of `OPSETS`; bf16 has 22 in any case.
        options: with int8, how to run the network on them, unless ranges are among them.
        notify: called with lines for people: where the ranges come from, what could not be read.

    Raises:
        IncompatibleFileError: a weight is beyond what the precision holds, or the ranges are.
        NoPhotographsError: none to calibrate on could be read.
    """
    file = build_model(checkpoint, outputs or usual_outputs(checkpoint.spec), opset)
    if precision in ("fp16", "bf16"):
        return cast_model(file, precision)
    if precision != "int8":
        return file
    # Here, because the other precisions need no runner.
    from alexnet_deploy.export.calibration import calibrated_ranges, quantized

    options = options or RunnerOptions()
    return quantized(file, options.ranges or calibrated_ranges(file, calibrate_on, options, notify))


def verified_model(
    file: ModelFile,
    checkpoint: Checkpoint,
    photographs: Iterable[Path],
    options: RunnerOptions,
    on_report: Callable[[Report], None] = lambda report: None,
) -> ModelFile:
    """Return the file with its report in it.

    Raises:
        VerificationError: it differs from the reference.
    """
    # Here, because an export without verification needs none of what it brings along.
    from alexnet_deploy.verification.onnx import advice, verify

    report = verify(file, checkpoint, photographs, options)
    on_report(report)
    report.raise_if_failed(file.source, advice(report, file.precision))
    return dataclasses.replace(file, report=report.to_dict())
