"""Checkpoint to a verified engine: of TensorRT where it is installed, else of TensorRT-RTX."""

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from alexnet_deploy import installed
from alexnet_deploy.choices import FilePrecision
from alexnet_deploy.errors import (
    Argument,
    DeviceError,
    Message,
    MissingPackageError,
    UsageError,
)
from alexnet_deploy.export.onnx import build_file
from alexnet_deploy.graph.model_file import ModelFile
from alexnet_deploy.graph.plugin_nodes import with_plugins
from alexnet_deploy.graph.report import Report
from alexnet_deploy.model.checkpoints import Checkpoint
from alexnet_deploy.model.layers import layer_names
from alexnet_deploy.runtimes.base import RunnerOptions, usual_outputs
from alexnet_deploy.runtimes.batch_profile import BatchProfile
from alexnet_deploy.runtimes.engine_file import (
    ENGINE_PRECISIONS,
    ENGINE_SUFFIX,
    RUNTIME_NAMES,
    EngineFile,
    EngineRuntime,
    engine_target,
)
from alexnet_deploy.runtimes.gpu_driver import current_gpu


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRequest:
    """Which engine to build.

    Attributes:
        runtime: the library that builds it and runs it; see `choose_runtime`.
        precision: of the graph, from which both libraries take it.
        profile: batch sizes.
        lrn: what normalizes, our plugin or the library's own layer; None for the plugin where the
            library has plugins.
        compute_capabilities: GPUs to build for, with TensorRT-RTX; none for its own choice.
        outputs: layers that the engine computes, as for `layers.layer_names`; none for
            `usual_outputs`.
    """

    runtime: EngineRuntime
    precision: FilePrecision = "fp32"
    profile: BatchProfile = field(default_factory=BatchProfile)
    lrn: Literal["plugin", "native"] | None = None
    compute_capabilities: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what one of the libraries does not have.

        Raises:
            UsageError: compute capabilities for TensorRT, which builds for the GPU at hand; our
                plugin, bf16 or int8 for TensorRT-RTX.
        """
        precisions = ENGINE_PRECISIONS[self.runtime]
        if self.precision not in precisions:
            raise UsageError(
                Argument("precision", self.precision),
                f": {RUNTIME_NAMES[self.runtime]} engines are built in "
                f"{' and '.join(precisions)}; take one of these, or build with TensorRT, on "
                "the GPU that it is for",
            )
        if self.lrn == "plugin" and self.runtime == "tensorrt-rtx":
            raise UsageError(
                Argument("lrn", "plugin"),
                ": TensorRT-RTX has no plugins; leave it out, or build with TensorRT",
            )
        if self.compute_capabilities and self.runtime == "tensorrt":
            raise UsageError(
                Argument("compute_capabilities"),
                ": TensorRT builds for the GPU of the machine that it runs on; leave it out, or "
                "build with ",
                Argument("rtx", True),
            )


def choose_runtime(*, rtx: bool) -> EngineRuntime:
    """Return the library to build with: TensorRT, or what is there in its place.

    Args:
        rtx: take TensorRT-RTX even where TensorRT is installed.

    Raises:
        MissingPackageError: with `rtx`, TensorRT-RTX is not installed.
        DeviceError: neither is.
    """
    if installed.has_module("tensorrt") and not rtx:
        return "tensorrt"
    if installed.has_module("tensorrt_rtx"):
        return "tensorrt-rtx"
    if rtx:
        raise MissingPackageError("tensorrt-rtx", "rtx", "building a TensorRT-RTX engine")
    raise DeviceError(
        "neither TensorRT nor TensorRT-RTX is installed here; for an NVIDIA GPU in this "
        "machine: pip install 'alexnet-deploy[tensorrt]'; to build without one, for GeForce and "
        "RTX GPUs: pip install 'alexnet-deploy[rtx]'"
    )


def export_engine(
    checkpoint: Checkpoint,
    path: Path,
    request: EngineRequest,
    *,
    photographs: Iterable[Path] | None,
    calibrate_on: Iterable[Path] | None = None,
    on_report: Callable[[Report], None] = lambda report: None,
    notify: Callable[[str], None] = lambda line: None,
) -> EngineFile:
    """Write `checkpoint` as an engine with its sidecar, verified where it can run.

    An engine of TensorRT-RTX is built without a GPU; on a machine that cannot run it, it is
    written without a report, and `EngineRecord.status` says so.

    Args:
        checkpoint: what to export.
        path: the `.engine` file to write; it appears only when verification did not fail.
        request: which engine.
        photographs: what to verify on; None writes the engine unverified.
        calibrate_on: as for `build_file`.
        on_report: called with the report, passed or failed, before anything is written.
        notify: as for `build_file`, and with the reason why an engine cannot be verified here.

    Raises:
        VerificationError: the engine differs from the reference; nothing was written.
        DeviceError: no GPU, for TensorRT, or a version of it that is too old.
        IncompatibleFileError: the library does not take the graph.
        OutputError: the files cannot be written.
        UsageError: a layer that the network does not have, or a name not ending in .engine.
    """
    outputs = layer_names(request.outputs or usual_outputs(checkpoint.spec), checkpoint.spec)
    request = dataclasses.replace(request, outputs=outputs)
    if path.suffix != ENGINE_SUFFIX:
        raise UsageError(f"{path}: an engine's name ends in {ENGINE_SUFFIX}; choose such a name")
    # Before the work: a GPU that is missing, and a place that cannot be written.
    if request.runtime == "tensorrt":
        from alexnet_deploy.trt.builder import builder_gpu

        builder_gpu(request.precision)
    with engine_target(path) as write:
        model = build_file(
            checkpoint, request.outputs, request.precision, calibrate_on, notify=notify
        )
        engine = _built(model, request, request.profile)
        obstacle = None if photographs is None else _obstacle(engine)
        if obstacle is not None:
            notify(Message("not verified here: ", obstacle))
        elif photographs is not None:
            report = _verified(engine, model, checkpoint, request, photographs)
            on_report(report)
            report.raise_if_failed(str(path))
            record = dataclasses.replace(engine.record, report=report.to_dict())
            engine = dataclasses.replace(engine, record=record)
        write(engine)
    return engine


def _built(model: ModelFile, request: EngineRequest, profile: BatchProfile) -> EngineFile:
    """Build an engine of a model in the way that `request` says, of whatever batches."""
    if request.runtime == "tensorrt-rtx":
        from alexnet_deploy.trt.rtx_builder import build_rtx_engine

        return build_rtx_engine(model, profile, request.compute_capabilities)
    from alexnet_deploy.trt.builder import build_engine

    return build_engine(model if request.lrn == "native" else with_plugins(model), profile)


def _verified(
    engine: EngineFile,
    model: ModelFile,
    checkpoint: Checkpoint,
    request: EngineRequest,
    photographs: Iterable[Path],
) -> Report:
    """Compare the engine on photographs, and what normalizes in it on an amplified copy."""
    from alexnet_deploy.verification.engine import amplified_checks, verify_engine

    options = RunnerOptions(batch_size=request.profile.opt)
    report = verify_engine(engine, checkpoint, photographs, options)
    if not report.passed:
        return report
    if request.precision == "int8":  # its ranges are those of photographs as they are
        model = build_file(checkpoint, request.outputs, "fp32")
    more = amplified_checks(model, lambda copy, profile: _built(copy, request, profile))
    return dataclasses.replace(report, checks=(*report.checks, *more))


def _obstacle(engine: EngineFile) -> str | None:
    """Say why the engine cannot run on this machine; None where it can."""
    try:
        gpu = current_gpu("verify it where it is to run")
        built_for = engine.record.compute_capabilities
        if built_for and gpu.compute_capability not in built_for:
            return (
                f"it is for compute capability {' or '.join(built_for)}, and {gpu.name} has "
                f"{gpu.compute_capability}"
            )
        if engine.record.runtime == "tensorrt-rtx":
            from alexnet_deploy.runtimes.rtx_plan import check_plan

            check_plan(engine.plan, engine.source)
    except DeviceError as error:  # no GPU, or one that the library does not support, as an H100
        return error.message
    return None
