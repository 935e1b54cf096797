"""An engine on the disk: the plain plan that any TensorRT program loads, and what belongs to it.

A plan can hold no data of ours, so `model.engine.json` beside `model.engine` says which checkpoint
it computes, how its input is prepared, and for which TensorRT and GPU it was built. The hash of
the plan in it ties the two together, and a hash of its own fields shows a change of one.
"""

import dataclasses
import hashlib
import json
import re
import reprlib
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from alexnet_deploy.errors import IncompatibleFileError, UsageError
from alexnet_deploy.files.input_files import existing_file
from alexnet_deploy.files.output_files import write_together
from alexnet_deploy.graph.model_file import FILE_PRECISIONS, FilePrecision
from alexnet_deploy.model.spec import ModelSpec
from alexnet_deploy.runtimes.batch_profile import BatchProfile
from alexnet_deploy.runtimes.gpu_driver import Gpu

ENGINE_SUFFIX = ".engine"
FORMAT_VERSION = 1
"""Version of the sidecar's JSON; a reader refuses any other."""
NOT_VERIFIED = "built, not verified here"

EngineRuntime = Literal["tensorrt", "tensorrt-rtx"]
EngineLrn = Literal["plugin", "native", "none"]

ENGINE_PRECISIONS: Mapping[EngineRuntime, tuple[FilePrecision, ...]] = {
    "tensorrt": FILE_PRECISIONS,
    "tensorrt-rtx": ("fp32", "fp16"),
}
RUNTIME_NAMES: Mapping[EngineRuntime, str] = {
    "tensorrt": "TensorRT",
    "tensorrt-rtx": "TensorRT-RTX",
}
REBUILD_COMMANDS: Mapping[EngineRuntime, str] = {
    "tensorrt": "alexnet-deploy export CKPT --trt",
    "tensorrt-rtx": "alexnet-deploy export CKPT --trt --rtx",
}
_REBUILD_EITHER = " or, for TensorRT-RTX, ".join(REBUILD_COMMANDS.values())
RTX_OWN_CHOICE = "compute capability 8.0, 8.6, 8.9, 12.0 and later"
"""GPUs that TensorRT-RTX builds for unless it is told which; it has 7.5 on request only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRecord:
    """What the sidecar says of a plan.

    Attributes:
        runtime: the library that built the plan, the only one that loads it.
        runtime_version: its whole version; a plan loads with no other.
        cuda_version: newest CUDA of the driver that built it, and oldest that runs it, as "13.0";
            None without a GPU.
        gpu_name: the GPU that the kernels were chosen on; None without a GPU.
        compute_capabilities: those that it runs on, as "9.0"; with TensorRT-RTX none means
            `RTX_OWN_CHOICE`.
        profile: batch sizes that it takes.
        precision: of the convolutions; inputs are uint8 and outputs float32 in every one.
        outputs: layers that it computes, in the graph's order.
        lrn: what normalises: our plugin, the library's own layer, or "none" without normalisation.
        plugin_sha256: hash of what the plugin's kernel was made from; None without plugin. It
            tells engines apart and is compared with nothing: the kernel is in the plan.
        spec: what the network expects and computes.
        fingerprint: of the checkpoint that it was built from.
        report: the verification's result as JSON, or None while it was never verified.
    """

    runtime: EngineRuntime
    runtime_version: str
    cuda_version: str | None
    gpu_name: str | None
    compute_capabilities: tuple[str, ...]
    profile: BatchProfile
    precision: FilePrecision
    outputs: tuple[str, ...]
    lrn: EngineLrn
    plugin_sha256: str | None
    spec: ModelSpec
    fingerprint: str
    report: Mapping[str, Any] | None = None

    @property
    def status(self) -> str:
        """Say in words whether the plan was compared with its checkpoint."""
        if self.report is None:
            return NOT_VERIFIED
        return "verified" if self.report["passed"] else "verification failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFile:
    """An engine in memory.

    Attributes:
        record: what is known of the plan.
        plan: the plan's bytes.
        source: its path, or a name for messages.
    """

    record: EngineRecord
    plan: bytes
    source: str = "the new engine"


def sidecar_path(path: Path) -> Path:
    """Return where the record of the engine at `path` lies: `model.engine.json`."""
    return path.with_name(f"{path.name}.json")


@contextmanager
def engine_target(path: Path) -> Iterator[Callable[[EngineFile], None]]:
    """Open the place of an engine before it is built: one that cannot be written shows at once.

    Yields a function that takes the engine. The plan appears before its sidecar, and with any
    error neither: who finds a sidecar finds the whole of its plan.

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
    """Write an engine that is there already; see `engine_target`.

    Raises:
        OutputError: one of the two files cannot be written; the old pair is as it was.
    """
    with engine_target(path) as write:
        write(file)


def read_engine(path: Path) -> EngineFile:
    """Read an engine with its sidecar, and check that they belong together.

    Raises:
        IncompatibleFileError: no sidecar, one that is damaged, was changed, or is of another
            engine, or a plan that is not the one that was written.
        UsageError: there is no such file, or it cannot be read.
    """
    existing_file(path, "an .engine file")
    fields = _sidecar_fields(path)
    record = _record(fields, sidecar_path(path))
    try:
        plan = path.read_bytes()
    except OSError as error:
        raise IncompatibleFileError(
            f"{path}: cannot be read ({error.strerror or error}); copy the file again"
        ) from error
    if hashlib.sha256(plan).hexdigest() != fields["plan_sha256"]:
        raise IncompatibleFileError(
            f"{path}: is not the plan that {sidecar_path(path).name} describes: their hashes "
            "differ, so the plan is damaged or the sidecar is another engine's; copy both files "
            f"again, or build the engine again with: {REBUILD_COMMANDS[record.runtime]} -o {path}"
        )
    return EngineFile(record=record, plan=plan, source=str(path))


def check_machine(
    file: EngineFile, *, runtime_version: str, gpu: Gpu, rtx_capabilities: Container[str]
) -> None:
    """Refuse an engine that was built for another library, GPU or newer driver than those here.

    Args:
        file: the engine.
        runtime_version: version of the library here that `file.record.runtime` names.
        gpu: the GPU here.
        rtx_capabilities: what an engine of TensorRT-RTX can be built for; not looked at for one
            of TensorRT.

    Raises:
        IncompatibleFileError: naming every difference and the command that builds it for here.
    """
    record = file.record
    name = RUNTIME_NAMES[record.runtime]
    differences = []
    if record.runtime_version != runtime_version:
        differences.append(f"{name} {record.runtime_version}, here is {runtime_version}")
    if record.gpu_name not in (None, gpu.name):
        differences.append(f"the GPU {record.gpu_name}, here is {gpu.name}")
    built_for = record.compute_capabilities
    if built_for and gpu.compute_capability not in built_for:
        here = gpu.compute_capability
        differences.append(f"compute capability {' or '.join(built_for)}, here is {here}")
    if record.cuda_version and _version(gpu.cuda_version) < _version(record.cuda_version):
        differences.append(
            f"a driver of CUDA {record.cuda_version} or later, here is {gpu.cuda_version}, "
            "which can be updated"
        )
    if differences:
        command = REBUILD_COMMANDS[record.runtime]
        if built_for and record.runtime == "tensorrt-rtx":
            command += f" --compute-capability {gpu.compute_capability}"
            if gpu.compute_capability not in rtx_capabilities:  # such as an H100's
                command = REBUILD_COMMANDS["tensorrt"]
        raise IncompatibleFileError(
            f"{file.source}: was built for {'; for '.join(differences)}; build it again for this "
            f"machine with: {command} -o FILE"
        )


def _version(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


def _fields(record: EngineRecord, plan_sha256: str) -> dict[str, Any]:
    """Return the sidecar's JSON values; what is long comes last."""
    plain = {
        field.name: getattr(record, field.name)
        for field in dataclasses.fields(record)
        if field.name not in ("spec", "report")
    }
    fields = {
        "format": FORMAT_VERSION,
        "status": record.status,
        "plan_sha256": plan_sha256,
        **plain,
        "profile": dataclasses.asdict(record.profile),
        "spec": json.loads(record.spec.to_json()),
        "report": record.report,
    }
    return {"record_sha256": _record_sha256(fields), **fields}


def _record_sha256(fields: Mapping[str, Any]) -> str:
    """Hash all fields of a sidecar but this hash, however they are ordered and spaced."""
    hashed = {name: value for name, value in fields.items() if name != "record_sha256"}
    return hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()


def _sidecar_fields(path: Path) -> dict[str, Any]:
    """Read the sidecar of the engine at `path` as JSON of our format."""
    sidecar = sidecar_path(path)
    try:
        fields = json.loads(sidecar.read_text("utf-8"))
    except FileNotFoundError as error:
        raise IncompatibleFileError(
            f"{path}: {sidecar.name} is not beside it, without which nothing says what the engine "
            f"expects; copy both files, or build it again with: {_REBUILD_EITHER}"
        ) from error
    except (OSError, ValueError) as error:  # not readable, not UTF-8, not JSON
        raise _damaged(sidecar, None, str(error)) from error
    if not isinstance(fields, dict) or "format" not in fields:
        raise _damaged(sidecar, None, 'it is no JSON object with a "format"')
    if fields["format"] != FORMAT_VERSION:
        raise IncompatibleFileError(
            f"{sidecar}: its format is {fields['format']!r}, this version reads {FORMAT_VERSION}; "
            "update alexnet-deploy, or build the engine again with this version"
        )
    return fields


def _record(fields: Mapping[str, Any], sidecar: Path) -> EngineRecord:
    """Make the record of the sidecar's fields; each is checked, and none may be missing or new."""
    names = {field.name for field in dataclasses.fields(EngineRecord)}
    damaged = partial(_damaged, sidecar, fields.get("runtime"))
    different = {*names, "format", "status", "plan_sha256", "record_sha256"} ^ fields.keys()
    if different:
        state = {name: "unknown" if name in fields else "missing" for name in sorted(different)}
        raise damaged(f"fields: {state}")
    if fields["record_sha256"] != _record_sha256(fields):
        raise damaged("its fields are not those that record_sha256 is the hash of")
    spec = ModelSpec.from_json(json.dumps(fields["spec"]), str(sidecar))
    for name, is_right in _checks(fields, spec).items():
        if not is_right:
            raise damaged(f"{name} is {reprlib.repr(fields[name])}")
    try:
        profile = BatchProfile(**fields["profile"])
    except UsageError as error:
        raise damaged(str(error)) from error
    lists = {name: tuple(fields[name]) for name in ("compute_capabilities", "outputs")}
    values = {name: fields[name] for name in names} | lists | {"spec": spec, "profile": profile}
    record = EngineRecord(**values)
    if fields["status"] != record.status:
        raise damaged(f"status is {fields['status']!r}, its report says otherwise")
    return record


def _checks(fields: Mapping[str, Any], spec: ModelSpec) -> dict[str, bool]:
    """Tell of each field whether its value can be what `_fields` wrote."""
    built_on_gpu = fields["runtime"] == "tensorrt"
    report, outputs = fields["report"], fields["outputs"]
    return {
        "runtime": fields["runtime"] in get_args(EngineRuntime),
        "runtime_version": _is_text(fields["runtime_version"]),
        "cuda_version": _is_version(fields["cuda_version"])
        or (fields["cuda_version"] is None and not built_on_gpu),
        "gpu_name": _is_text(fields["gpu_name"])
        or (fields["gpu_name"] is None and not built_on_gpu),
        "compute_capabilities": _is_texts(fields["compute_capabilities"])
        and (bool(fields["compute_capabilities"]) or not built_on_gpu),
        "profile": isinstance(fields["profile"], dict)
        and fields["profile"].keys() == {"min", "opt", "max"},
        "precision": fields["precision"] in FILE_PRECISIONS,
        "outputs": _is_texts(outputs)
        and 0 < len(outputs) == len(set(outputs) & spec.layer_shapes().keys()),
        "lrn": fields["lrn"] in get_args(EngineLrn),
        "plugin_sha256": _is_hash(fields["plugin_sha256"])
        if fields["lrn"] == "plugin"
        else fields["plugin_sha256"] is None,
        "fingerprint": _is_text(fields["fingerprint"]),
        "plan_sha256": _is_hash(fields["plan_sha256"]),
        "report": report is None
        or (
            isinstance(report, dict)
            and {"passed", "checks", "runs"} <= report.keys()
            and isinstance(report["passed"], bool)
        ),
    }


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _is_version(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[0-9]+\.[0-9]+", value) is not None


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(_is_text(item) for item in value)


def _is_hash(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def _damaged(sidecar: Path, runtime: object, reason: str) -> IncompatibleFileError:
    """Return the error of a sidecar that says, as far as it can be read, `runtime`."""
    commands = (command for name, command in REBUILD_COMMANDS.items() if name == runtime)
    return IncompatibleFileError(
        f"{sidecar}: damaged ({reason}); copy it again from where the engine was built, or build "
        f"the engine again with: {next(commands, _REBUILD_EITHER)}"
    )
