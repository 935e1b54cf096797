"""Which options of `alexnet-deploy export` mean nothing beside each other."""

from typing import TYPE_CHECKING

from alexnet_deploy.errors import UsageError

if TYPE_CHECKING:
    from alexnet_deploy.commands.export import ExportArguments


def check_export(arguments: "ExportArguments") -> None:
    """Refuse options that mean nothing beside the others.

    Raises:
        UsageError: naming the option.
    """
    for_engines = {
        "--lrn": arguments.lrn,
        "--min-batch": arguments.min_batch,
        "--opt-batch": arguments.opt_batch,
        "--max-batch": arguments.max_batch,
        "--compute-capability": arguments.compute_capability,
        "--version-compatible": arguments.version_compatible,
        "--hardware-compatible": arguments.hardware_compatible != "none",
    }
    if arguments.trt and arguments.rtx:
        raise UsageError("--trt and --rtx: build engines of two libraries; choose one")
    if arguments.triton is not None:
        _check_triton(arguments)
        del for_engines["--max-batch"]
    for option, value in for_engines.items():
        if value and not arguments.is_engine:
            library = "--rtx" if option == "--compute-capability" else "--trt"
            raise UsageError(f"{option}: is for engines; add {library}, or leave it out")
    if arguments.is_engine and (arguments.runtime != "auto" or arguments.threads):
        option = "--threads" if arguments.runtime == "auto" else "--runtime"
        raise UsageError(
            f"{option}: is for ONNX files, an engine runs as it is built; leave it out"
        )
    if arguments.opset and (arguments.is_engine or arguments.precision == "bf16"):
        what = "an engine has no operators of ONNX" if arguments.is_engine else "bf16 needs 22"
        raise UsageError(f"--opset: {what}; leave it out")
    if arguments.verify_on and arguments.no_verify:
        raise UsageError("--verify-on and --no-verify: mean opposite things; choose one")
    if arguments.calibrate and arguments.precision != "int8":
        raise UsageError("--calibrate: only int8 needs it; add --precision int8, or leave it out")


def _check_triton(arguments: "ExportArguments") -> None:
    """Refuse what Triton cannot serve, and a name for the file.

    Raises:
        UsageError: naming the option.
    """
    refused = {
        "--output": (arguments.output, "--triton names the files"),
        "--rtx": (arguments.rtx, "Triton runs TensorRT's engines, of --trt"),
        "--version-compatible": (
            arguments.version_compatible,
            "the container has to have the TensorRT that built the plan",
        ),
        "--min-batch": ((arguments.min_batch or 1) > 1, "Triton passes single photographs on, too"),
    }
    for option, (is_given, why) in refused.items():
        if is_given:
            raise UsageError(f"{option}: {why}; leave it out")
    if arguments.precision == "bf16" and not arguments.trt:
        raise UsageError(
            "--precision bf16: Triton's ONNX Runtime has none; add --trt, or take fp16"
        )
