"""Checkpoint to a verified engine, of TensorRT or of TensorRT-RTX."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
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
    OutputError,
    UsageError,
)
from alexnet_deploy.export.cache import read_entry, write_entry
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
    ENGINE_SUFFIXES,
    RUNTIME_NAMES,
    EngineFile,
    EngineRuntime,
    HardwareCompatibility,
    engine_target,
)
from alexnet_deploy.runtimes.gpu_driver import current_gpu

_Build = Callable[[ModelFile, BatchProfile], EngineFile]


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
        version_compatible: with TensorRT, whether its later versions are to run it, too; see
            `EngineRecord`. Such an engine may be slower.
        hardware_compatibility: with TensorRT, the level to build for; see `EngineRecord`. At
            "ampere-plus" the library's own layer normalizes: our kernel is for the GPU at hand.
        outputs: layers that the engine computes, as for `layers.layer_names`; none for
            `usual_outputs`.
    """

    runtime: EngineRuntime
    precision: FilePrecision = "fp32"
    profile: BatchProfile = field(default_factory=BatchProfile)
    lrn: Literal["plugin", "native"] | None = None
    compute_capabilities: tuple[str, ...] = ()
    version_compatible: bool = False
    hardware_compatibility: HardwareCompatibility = "none"
    outputs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what one of the libraries does not have.

        Raises:
            UsageError: compute capabilities for TensorRT, which builds for the GPU at hand; our
                plugin, bf16, int8 or a compatibility for TensorRT-RTX; our plugin for all GPUs.
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
        if self.lrn == "plugin" and self.hardware_compatibility == "ampere-plus":
            raise UsageError(
                Argument("lrn", "plugin"),
                ": our kernel is compiled for the GPU at hand, and ",
                Argument("hardware_compatibility", "ampere-plus"),
                " is for others; leave one of them out",
            )
        for name, none in (("version_compatible", False), ("hardware_compatibility", "none")):
            value = getattr(self, name)
            if value != none and self.runtime == "tensorrt-rtx":
                raise UsageError(
                    Argument(name, value),
                    ": is for TensorRT; an engine of TensorRT-RTX runs on many GPUs as it is, and "
                    "with the version that built it alone; leave it out",
                )
        if self.compute_capabilities and self.runtime == "tensorrt":
            raise UsageError(
                Argument("compute_capabilities"),
                ": TensorRT builds for the GPU of the machine that it runs on; leave it out, or "
                "build with ",
                Argument("rtx", True),
            )

    @property
    def has_plugin(self) -> bool:
        """Whether our plugin is to normalize."""
        can = self.runtime == "tensorrt" and self.hardware_compatibility != "ampere-plus"
        return can and self.lrn != "native"


def choose_runtime(*, rtx: bool) -> EngineRuntime:
    """Return the library to build with, if it is installed: never one in the other's place.

    Args:
        rtx: TensorRT-RTX, not TensorRT.

    Raises:
        MissingPackageError: it is not installed.
        DeviceError: TensorRT is not, and TensorRT-RTX is.
    """
    if rtx:
        if not installed.has_module("tensorrt_rtx"):
            raise MissingPackageError("tensorrt-rtx", "rtx", "building a TensorRT-RTX engine")
        return "tensorrt-rtx"
    if installed.has_module("tensorrt"):
        return "tensorrt"
    if installed.has_module("tensorrt_rtx"):
        raise DeviceError(
            "TensorRT is not installed here, TensorRT-RTX is; its engines are others, for GeForce "
            "and RTX GPUs: build one with ",
            Argument("rtx", True),
            ", or install TensorRT with: pip install 'alexnet-deploy[tensorrt]'",
        )
    raise MissingPackageError("tensorrt", "tensorrt", "building a TensorRT engine")


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
        notify: as for `build_file`, and with the reason why an engine cannot be verified here, or
            that it does not show what normalizes.

    Raises:
        VerificationError: the engine differs from the reference; nothing was written.
        DeviceError: no GPU, for TensorRT, or a version of it that is too old.
        IncompatibleFileError: the library does not take the graph.
        OutputError: the files cannot be written.
        UsageError: a layer that the network does not have, or a name that ends otherwise.
    """
    outputs = layer_names(request.outputs or usual_outputs(checkpoint.spec), checkpoint.spec)
    request = dataclasses.replace(request, outputs=outputs)
    if path.suffix not in ENGINE_SUFFIXES:
        suffixes = " or ".join(ENGINE_SUFFIXES)
        raise UsageError(f"{path}: an engine's name ends in {suffixes}; choose such a name")
    # Before the work: a GPU that is missing, and a place that cannot be written.
    with _build_of(request, notify) as build, engine_target(path) as write:
        model = build_file(
            checkpoint, request.outputs, request.precision, calibrate_on, notify=notify
        )
        engine = build(model, request.profile)
        if engine.record.lrn == "unknown":
            notify(
                f"{engine.record.library} took our plugin, but its list of the built layers does "
                'not show it: the record says lrn "unknown", and verification what it computes'
            )
        obstacle = None if photographs is None else _obstacle(engine)
        if obstacle is not None:
            notify(Message("not verified here: ", obstacle))
        elif photographs is not None:
            report = _verified(engine, model, checkpoint, request, photographs, build)
            on_report(report)
            report.raise_if_failed(str(path))
            record = dataclasses.replace(engine.record, report=report.to_dict())
            engine = dataclasses.replace(engine, record=record)
        write(engine)
    return engine


@contextmanager
def _build_of(request: EngineRequest, notify: Callable[[str], None]) -> Iterator[_Build]:
    """Give what builds in the way that `request` says; each build saves the next one timings.

    Raises:
        DeviceError: no GPU, for TensorRT, or a version of it that is too old.
    """
    if request.runtime == "tensorrt-rtx":
        from alexnet_deploy.trt.rtx_builder import build_rtx_engine

        yield lambda model, profile: build_rtx_engine(model, profile, request.compute_capabilities)
        return
    from alexnet_deploy.trt.builder import build_engine, builder_gpu, timings_key

    key = timings_key(builder_gpu(request.precision))
    entry = read_entry(key, "timings")
    timings = bytearray() if entry is None else bytearray(entry.body)
    before = bytes(timings)
    try:
        yield lambda model, profile: build_engine(
            with_plugins(model) if request.has_plugin else model,
            profile,
            version_compatible=request.version_compatible,
            hardware_compatibility=request.hardware_compatibility,
            timings=timings,
        )
    finally:
        if timings != before:
            try:
                write_entry(key, "timings", {}, bytes(timings))
            except OutputError as error:
                notify(Message("the next build must time its kernels again: ", error.message))


def _verified(
    engine: EngineFile,
    model: ModelFile,
    checkpoint: Checkpoint,
    request: EngineRequest,
    photographs: Iterable[Path],
    build: _Build,
) -> Report:
    """Compare the engine on photographs, and what normalizes in it on an amplified copy."""
    from alexnet_deploy.verification.engine import amplified_checks, verify_engine

    options = RunnerOptions(batch_size=request.profile.opt)
    report = verify_engine(engine, checkpoint, photographs, options)
    if not report.passed:
        return report
    if request.precision == "int8":  # its ranges are those of photographs as they are
        model = build_file(checkpoint, request.outputs, "fp32")
    return dataclasses.replace(report, checks=(*report.checks, *amplified_checks(model, build)))


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
