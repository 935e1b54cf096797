"""Which runtime computes in which precision on which device, from which files."""

from collections.abc import Mapping

from alexnet_deploy import installed
from alexnet_deploy.choices import Device, FilePrecision, Precision, Runtime
from alexnet_deploy.errors import (
    Argument,
    DeviceError,
    Message,
    MissingPackageError,
    UsageError,
)
from alexnet_deploy.runtimes.base import RunnerOptions
from alexnet_deploy.runtimes.engine_file import REBUILD_COMMANDS

_Computes = Mapping[Precision, tuple[FilePrecision, ...]]

# By device, fastest runtime first, which "auto" takes. For each precision of a run, the precisions
# of the files that support it, starting with the one that a checkpoint is exported to.
_COMPUTES: Mapping[Device, Mapping[Runtime, _Computes]] = {
    "cpu": {
        "openvino": {
            "fp32": ("fp32",),
            "bf16": ("fp32", "bf16"),
            "fp16": ("fp16",),
            "int8": ("int8",),
        },
        "onnxruntime": {"fp32": ("fp32",), "fp16": ("fp16",), "int8": ("int8",)},
    },
    "cuda": {"onnxruntime": {"fp32": ("fp32",), "fp16": ("fp16",)}},
}
Combination = tuple[Runtime, Device, Precision]
"""What computes where, and in which arithmetic."""


def resolve_runtime(options: RunnerOptions, device: Device) -> Runtime:
    """Return the runtime that `options` selects on `device`, for a model file or a checkpoint.

    Args:
        options: as given.
        device: that was chosen.

    Raises:
        MissingPackageError: "auto", and no runtime for the device is installed.
        DeviceError: a runtime that does not run there, or one that runs engines only.
    """
    runtimes = _COMPUTES[device]
    if options.runtime == "auto":
        for name in runtimes:
            if installed.has_module(name):
                return name
        if device == "cuda":
            raise MissingPackageError("onnxruntime-gpu", "gpu", "running a model on a GPU")
        raise MissingPackageError("openvino", "cpu", "running a model")
    if options.runtime in runtimes:
        return options.runtime
    others = Message("use ", Argument("runtime", " or ".join(runtimes)))
    if options.runtime == "tensorrt" or options.runtime == "tensorrt-rtx":
        raise DeviceError(
            Argument("runtime", options.runtime),
            ": runs .engine files only, and this is not one; build one with: "
            f"{REBUILD_COMMANDS[options.runtime]}, or ",
            others,
        )
    raise DeviceError(
        Argument("runtime", options.runtime),
        " ",
        Argument("device", device),
        f": does not run there; on {device} ",
        others,
    )


def file_precision(runtime: Runtime, device: Device, precision: Precision) -> FilePrecision:
    """Return the precision to export a checkpoint in so that it runs in `precision`.

    Raises:
        DeviceError: the runtime does not compute in it on that device.
    """
    files = _COMPUTES[device][runtime].get(precision)
    if files is None:
        raise DeviceError(
            Argument("precision", precision),
            ": ",
            _computed_in(runtime, device),
            "; use ",
            _elsewhere(device, precision, None),
        )
    return files[0]


class FilePrecisionError(UsageError):
    """A file whose own precision cannot be run as the requested one."""


def run_precision(
    runtime: Runtime, device: Device, asked: Precision, file: FilePrecision, source: str
) -> Precision:
    """Return the precision that a file runs in: the requested one, else the file's own.

    Raises:
        DeviceError: the runtime does not compute in it on that device.
        FilePrecisionError: this file does not support it.
    """
    able = _COMPUTES[device][runtime]
    precision = file if asked == "auto" else asked
    files = able.get(precision)
    if files is None and precision == file == "bf16" and not installed.has_module("openvino"):
        # Not "use OpenVINO": a machine that exports for TensorRT need not have it.
        raise DeviceError(
            f"{source}: is bf16, and ONNX Runtime has no bf16 on {device}; the file is for "
            "TensorRT: verify or run it where OpenVINO is installed, or write it with: "
            "alexnet-deploy export CKPT --precision bf16 --no-verify"
        )
    if files is None:
        own, other = f"{source}: is {file}, and ", Message(Argument("precision", asked), ": ")
        raise DeviceError(
            own if asked == "auto" else other,
            _computed_in(runtime, device),
            "; ",
            _way_out(runtime, device, precision, file),
        )
    if file not in files:
        raise FilePrecisionError(
            f"{source}: is {file}, ",
            Argument("precision", precision),
            " was requested; ",
            _way_out(runtime, device, precision, file),
            ", or export the checkpoint with ",
            Argument("precision", files[0]),
        )
    return precision


def computes(runtime: Runtime, device: Device, precision: Precision) -> bool:
    """Return whether a runtime computes in a precision on a device."""
    return precision in _COMPUTES[device].get(runtime, ())


def usual_combinations(*, for_gpu: bool) -> tuple[Combination, ...]:
    """Return what may be expected to run here, installed or not.

    Args:
        for_gpu: whether ONNX Runtime is installed for GPUs.
    """
    found: list[Combination] = []
    # OpenVINO is a choice where there is ONNX Runtime, which can do all but bf16.
    if installed.has_module("openvino") or not (for_gpu or installed.has_module("onnxruntime")):
        found += [("openvino", "cpu", "fp32"), ("openvino", "cpu", "bf16")]
    found += [("onnxruntime", "cpu", "fp32")]
    if for_gpu:
        found += [("onnxruntime", "cuda", "fp32"), ("onnxruntime", "cuda", "fp16")]
    return tuple(found)


def _computed_in(runtime: Runtime, device: Device) -> Message:
    able = ", ".join(_COMPUTES[device][runtime])
    return Message(Argument("runtime", runtime), f" computes in {able} on {device}")


def _way_out(
    runtime: Runtime, device: Device, precision: Precision, file: FilePrecision
) -> Message:
    """Say what to change so that the file runs, in this precision if possible, else in its own."""
    same = _elsewhere(device, precision, file)
    if same:
        return Message("use ", same)
    left_out = Message("leave ", Argument("precision"), " out")
    if file in _COMPUTES[device][runtime].get(file, ()):
        return left_out
    return Message(left_out, " and use ", _elsewhere(device, file, file))


def _elsewhere(device: Device, precision: Precision, file: FilePrecision | None) -> Message:
    """Return arguments that give a precision with `file`, or a checkpoint; "" if there are none.

    On the same device if possible.
    """
    for place in (device, *(other for other in _COMPUTES if other != device)):
        for runtime, able in _COMPUTES[place].items():
            files = able.get(precision, ())
            if file in files or (file is None and files):
                there = () if place == device else (Argument("device", place), " ")
                return Message(*there, Argument("runtime", runtime))
    return Message()
