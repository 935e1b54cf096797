"""Check whether this machine can run a TensorRT-RTX plan, from its first 64 bytes."""

from alexnet_deploy.errors import Argument, DeviceError, IncompatibleFileError, Message
from alexnet_deploy.runtimes.engine_file import REBUILD_COMMANDS
from alexnet_deploy.runtimes.tensorrt_library import load_library


def check_plan(plan: bytes, source: str) -> None:
    """Reject a plan that cannot run on this machine; without a GPU, none can.

    Only the header is checked: damage further in is for a hash to detect.

    Raises:
        IncompatibleFileError: it is not a TensorRT-RTX engine, or one of another version.
        DeviceError: this machine's GPU or driver is missing or unsuitable.
        MissingPackageError: TensorRT-RTX is not installed.
    """
    library = load_library("tensorrt-rtx")
    trt = library.module
    runtime = library.created("a runtime", trt.Runtime, library.logger)
    validity, bits = runtime.get_engine_validity(plan)
    if validity != trt.EngineValidity.INVALID:
        return
    flags = trt.EngineInvalidityDiagnostics.__members__
    reasons = [name for name, member in flags.items() if bits & int(member)]
    if {"MALFORMED_ENGINE", "VERSION_MISMATCH"} & set(reasons):
        raise IncompatibleFileError(
            f"{source}: not an engine that TensorRT-RTX {library.version()} can load "
            f"({', '.join(reasons)}); build it again with: {REBUILD_COMMANDS['tensorrt-rtx']}"
        )
    remedy = Message(
        "it needs an NVIDIA GPU of a compute capability that it was built for, and its driver"
    )
    if "UNSUPPORTED_CC" in reasons:
        remedy = Message(
            "build one for this GPU with ",
            Argument("compute_capabilities"),
            f": {REBUILD_COMMANDS['tensorrt-rtx']}, or, if TensorRT-RTX does "
            "not have it, as an H100's, with: " + REBUILD_COMMANDS["tensorrt"],
        )
    raise DeviceError(
        f"{source}: cannot run here ({', '.join(reasons) or library.messages.take()}); ",
        remedy,
    )
