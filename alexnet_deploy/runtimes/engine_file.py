"""An engine on disk: the plain plan that any TensorRT program loads, and its sidecar.

A plan cannot carry custom data, so `model.engine.json` beside `model.engine` says which checkpoint
it computes, how its input is prepared, and which TensorRT and GPU it was built for. It holds a hash
of the plan, which ties the two together, and a hash of its own fields, which reveals changes.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from alexnet_deploy.choices import FILE_PRECISIONS, FilePrecision
from alexnet_deploy.errors import IncompatibleFileError
from alexnet_deploy.files.input_files import existing_file
from alexnet_deploy.files.output_files import write_together
from alexnet_deploy.files.records import (
    LATER,
    Matching,
    Within,
    damaged,
    json_object,
    plain_fields,
    read_record,
    require,
)
from alexnet_deploy.files.regular_files import read_file
from alexnet_deploy.graph.report import check_report
from alexnet_deploy.model.spec import ModelSpec
from alexnet_deploy.runtimes.batch_profile import BatchProfile
from alexnet_deploy.runtimes.gpu_driver import Gpu

ENGINE_SUFFIXES = (".engine", ".plan")
"""The second is the name that Triton wants."""
NOT_VERIFIED = "built, not verified here"

EngineRuntime = Literal["tensorrt", "tensorrt-rtx"]
EngineLrn = Literal["plugin", "unknown", "native", "none"]
HardwareCompatibility = Literal["none", "same-compute-capability", "ampere-plus"]
_Text = Annotated[str, Within(1, 1000)]
_Sha256 = Annotated[str, Matching("[0-9a-f]{64}")]

ENGINE_PRECISIONS: Mapping[EngineRuntime, tuple[FilePrecision, ...]] = {
    "tensorrt": FILE_PRECISIONS,
    "tensorrt-rtx": ("fp32", "fp16"),
}
RUNTIME_NAMES: Mapping[EngineRuntime, str] = {
    "tensorrt": "TensorRT",
    "tensorrt-rtx": "TensorRT-RTX",
}
NORMALIZED_BY: Mapping[EngineLrn, str] = {
    "plugin": "our plugin normalizes",
    "unknown": "what normalizes is unknown",
    "native": "its own layer normalizes",
    "none": "nothing normalizes",
}
REBUILD_COMMANDS: Mapping[EngineRuntime, str] = {
    "tensorrt": "alexnet-deploy export CKPT --trt",
    "tensorrt-rtx": "alexnet-deploy export CKPT --rtx",
}
_REBUILD_EITHER = " or, for TensorRT-RTX, ".join(REBUILD_COMMANDS.values())
RTX_OWN_CHOICE = "compute capability 8.0, 8.6, 8.9, 12.0 and later"
"""GPUs that TensorRT-RTX builds for by default; 7.5 only on request."""
LEAN_PACKAGE = "tensorrt-lean-cu13-libs"
_AMPERE = "8.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRecord:
    """What the sidecar records about a plan.

    Attributes:
        runtime: the library that built the plan, the only one that loads it.
        runtime_version: its full version; a plan loads with no other, unless `version_compatible`.
        cuda_version: oldest CUDA version of a driver that runs it, as "13.0"; None with
            TensorRT-RTX, which looks for itself.
        gpu_name: the GPU that the kernels were chosen on; None without a GPU.
        compute_capabilities: those that it was built for, as "9.0"; with TensorRT-RTX, empty means
            `RTX_OWN_CHOICE`.
        profile: batch sizes that it takes.
        precision: of the convolutions; inputs are always uint8, outputs float32.
        outputs: layers that it computes, in the graph's order.
        lrn: what computes LRN: our plugin, the library's own layer, or "none" without LRN;
            "unknown" where the builder was given our plugin, and its list of the built layers does
            not show it.
        plugin_sha256: hash of the plugin kernel's sources; None without plugin. Only distinguishes
            engines and is never checked: the kernel is in the plan.
        spec: what the network expects and computes.
        identity: of the model file that it was built from; a plan hides its weights, so this is
            what the builder claims.
        checkpoint: identity of the checkpoint that the model file was exported from; in fp32 the
            same.
        report: the verification report as JSON, or None if never verified.
        version_compatible: whether later versions of TensorRT run it, with the lean runtime of
            `runtime_version`. The plan does not bring that along, so it holds no code for the CPU.
        hardware_compatibility: of TensorRT's levels, the one that it was built for: the GPU at
            hand, those of its compute capability, or Ampere's 8.0 and later.
    """

    FORMAT: ClassVar[int] = 2

    runtime: EngineRuntime
    runtime_version: Annotated[str, Matching(r"[0-9]{1,9}(\.[0-9]{1,9})*")]
    cuda_version: Annotated[str, Matching(r"[0-9]{1,9}\.[0-9]{1,9}")] | None
    gpu_name: _Text | None
    compute_capabilities: Annotated[tuple[_Text, ...], Within(most=100)]
    profile: BatchProfile
    precision: FilePrecision
    outputs: Annotated[tuple[_Text, ...], Within(1, 100)]
    lrn: EngineLrn
    plugin_sha256: _Sha256 | None
    spec: ModelSpec
    identity: _Sha256
    checkpoint: _Sha256
    report: Mapping[str, Any] | None = None
    version_compatible: bool = field(default=False, metadata=LATER)
    hardware_compatibility: HardwareCompatibility = field(default="none", metadata=LATER)

    def __post_init__(self) -> None:
        """Reject records that no builder writes.

        Raises:
            IncompatibleFileError: naming the field, the value given and what was expected.
        """
        if self.runtime == "tensorrt":  # it builds on a GPU
            for name in ("cuda_version", "gpu_name", "compute_capabilities"):
                came = getattr(self, name)
                require(bool(came), name, came, "that of the GPU it was built on")
        else:
            for name, only in (("version_compatible", False), ("hardware_compatibility", "none")):
                came = getattr(self, name)
                require(came == only, name, came, f"{only} with TensorRT-RTX")
        layers, outputs = self.spec.layer_shapes(), self.outputs
        are_layers = len(outputs) == len(set(outputs) & layers.keys())
        require(are_layers, "outputs", outputs, f"some of {', '.join(layers)}, each once")
        has_hash, has_plugin = self.plugin_sha256 is not None, self.lrn in ("plugin", "unknown")
        expected = "a hash where lrn is plugin or unknown, and there alone"
        require(has_hash == has_plugin, "plugin_sha256", self.plugin_sha256, expected)

    @property
    def library(self) -> str:
        """Return the display name and version of the library that built the plan."""
        return f"{RUNTIME_NAMES[self.runtime]} {self.runtime_version}"

    @property
    def status(self) -> str:
        """Return the verification status in words."""
        if self.report is None:
            return NOT_VERIFIED
        return "verified" if self.report["passed"] else "verification failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seal:
    """What the sidecar holds besides the record."""

    record_sha256: _Sha256
    plan_sha256: _Sha256
    status: _Text


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFile:
    """An engine in memory.

    Attributes:
        record: the sidecar's record of the plan.
        plan: the plan's bytes.
        source: its path, or a name for messages.
    """

    record: EngineRecord
    plan: bytes
    source: str = "the new engine"


def sidecar_path(path: Path) -> Path:
    """Return the path of the sidecar of the engine at `path`: `model.engine.json`."""
    return path.with_name(f"{path.name}.json")


@contextmanager
def engine_target(path: Path) -> Iterator[Callable[[EngineFile], None]]:
    """Open the files of an engine before it is built, so that an unwritable path fails early.

    Yields a function that takes the engine. The plan appears before its sidecar and, on any error,
    neither does: where there is a sidecar, its plan is complete.

    Raises:
        OutputError: one of the two files cannot be written; the old pair is as it was.
    """
    with write_together([sidecar_path(path), path]) as (sidecar, plan):
        written = False

        def write(file: EngineFile) -> None:
            nonlocal written
            fields = _fields(file.record, hashlib.sha256(file.plan).hexdigest())
            plan.write(file.plan)
            sidecar.write(json.dumps(fields, indent=1, allow_nan=False).encode() + b"\n")
            written = True

        yield write
        assert written, "left without an engine"


def write_engine(file: EngineFile, path: Path) -> None:
    """Write an engine that has already been built; see `engine_target`.

    Raises:
        OutputError: one of the two files cannot be written; the old pair is as it was.
    """
    with engine_target(path) as write:
        write(file)


def read_engine(path: Path) -> EngineFile:
    """Read an engine and its sidecar, and check that they match.

    Raises:
        IncompatibleFileError: the sidecar is missing, damaged, modified or another engine's, or the
            plan is not the one that was written.
        UsageError: the file is missing or not readable.
    """
    existing_file(path, "an .engine file")
    record, seal = _read_sidecar(path)
    try:
        plan = path.read_bytes()
    except OSError as error:
        raise IncompatibleFileError(
            f"{path}: cannot be read ({error.strerror or error}); copy the file again"
        ) from error
    if hashlib.sha256(plan).hexdigest() != seal.plan_sha256:
        raise IncompatibleFileError(
            f"{path}: is not the plan that {sidecar_path(path).name} describes: their hashes "
            "differ, so the plan is damaged or the sidecar is another engine's; copy both files "
            f"again, or build the engine again with: {REBUILD_COMMANDS[record.runtime]} -o {path}"
        )
    return EngineFile(record=record, plan=plan, source=str(path))


def check_machine(
    file: EngineFile,
    *,
    runtime_version: str,
    lean_version: str,
    gpu: Gpu,
    rtx_capabilities: Container[str],
) -> None:
    """Reject an engine that the library, the GPU or its driver does not run.

    Args:
        file: the engine.
        runtime_version: installed version of the library `file.record.runtime`.
        lean_version: installed version of TensorRT's lean runtime; "" if it is not.
        gpu: this machine's GPU.
        rtx_capabilities: what TensorRT-RTX engines can be built for; ignored for TensorRT engines.

    Raises:
        IncompatibleFileError: naming every difference and the command that rebuilds it for this
            machine.
    """
    record, here = file.record, gpu.compute_capability
    differences = [
        *_other_version(record, runtime_version, lean_version),
        *_other_gpu(record, here),
    ]
    if record.cuda_version and _numbers(gpu.cuda_version) < _numbers(record.cuda_version):
        differences.append(
            f"a driver of CUDA {record.cuda_version} or later, here is {gpu.cuda_version}, "
            "which can be updated"
        )
    if differences:
        command = REBUILD_COMMANDS[record.runtime]
        if record.compute_capabilities and record.runtime == "tensorrt-rtx":
            command = f"alexnet-deploy export CKPT --rtx --compute-capability {here}"
            if here not in rtx_capabilities:  # such as an H100's
                command = REBUILD_COMMANDS["tensorrt"]
        raise IncompatibleFileError(
            f"{file.source}: was built for {'; for '.join(differences)}; build it again for this "
            f"machine with: {command} -o FILE"
        )


def _other_version(record: EngineRecord, here: str, lean: str) -> Iterator[str]:
    """Yield how the library's version differs, if it does not run the plan."""
    built = record.runtime_version
    if built == here:
        return
    old, new = _numbers(built), _numbers(here)
    if record.version_compatible and old[0] == new[0] and old < new:
        if lean != built:
            yield (
                f"{record.library}, here is {here}, which runs it with the package "
                f"{LEAN_PACKAGE} of {built}, and of that has {lean or 'none'}"
            )
    else:
        yield f"{record.library}, here is {here}"


def _other_gpu(record: EngineRecord, here: str) -> Iterator[str]:
    """Yield how the compute capability differs, if it does not run the plan."""
    built_for = record.compute_capabilities
    if record.hardware_compatibility == "ampere-plus":
        if _numbers(here) < _numbers(_AMPERE):
            yield f"compute capability {_AMPERE} and later, here is {here}"
    elif built_for and here not in built_for:
        yield f"compute capability {' or '.join(built_for)}, here is {here}"


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


def _fields(record: EngineRecord, plan_sha256: str) -> dict[str, Any]:
    """Return the sidecar's JSON values, long ones last."""
    plain = plain_fields(record)
    long = {"spec": json.loads(record.spec.to_json()), "report": plain.pop("report")}
    del plain["spec"]
    fields = {
        "format": record.FORMAT,
        "status": record.status,
        "plan_sha256": plan_sha256,
        **plain,
        **long,
    }
    return {"record_sha256": _record_sha256(fields), **fields}


def _record_sha256(fields: Mapping[str, Any]) -> str:
    """Hash all fields of a sidecar except this hash, independent of order and whitespace."""
    hashed = {name: value for name, value in fields.items() if name != "record_sha256"}
    return hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()


def _read_sidecar(path: Path) -> tuple[EngineRecord, _Seal]:
    """Read the sidecar of the engine at `path`; no field may be missing, added or changed."""
    sidecar, source = sidecar_path(path), str(sidecar_path(path))
    again = f"build the engine again with: {_REBUILD_EITHER}"
    try:
        fields = json_object(read_file(sidecar, again), source, again)
    except FileNotFoundError as error:
        raise IncompatibleFileError(
            f"{path}: {sidecar.name} is not beside it, and only that says what the engine "
            f"expects; copy both files, or {again}"
        ) from error
    for runtime, command in REBUILD_COMMANDS.items():
        if fields.get("runtime") == runtime:
            again = f"build the engine again with: {command}"
    sealing = {field.name for field in dataclasses.fields(_Seal)} & fields.keys()
    rest = {name: value for name, value in fields.items() if name not in sealing}
    record = read_record(EngineRecord, rest, source, again)
    seal = read_record(_Seal, {name: fields[name] for name in sealing}, source, again)
    if seal.record_sha256 != _record_sha256(fields):
        reason = "its fields do not match record_sha256"
        raise damaged(source, reason, again)
    if record.report is not None:
        check_report(record.report, source, again)
    if seal.status != record.status:
        raise damaged(source, f"status is {seal.status!r}, its report says otherwise", again)
    return record, seal
