"""Choose a runtime and a device, and open a model with them."""

import dataclasses

from alexnet_deploy import installed
from alexnet_deploy.choices import Device, FilePrecision, Runtime
from alexnet_deploy.graph.model_file import ModelFile
from alexnet_deploy.runtimes.base import Runner, RunnerOptions
from alexnet_deploy.runtimes.capabilities import computes, resolve_runtime
from alexnet_deploy.runtimes.engine_file import EngineFile
from alexnet_deploy.runtimes.gpu_driver import current_gpu, gpus
from alexnet_deploy.runtimes.onnxruntime_distributions import ONNX_RUNTIMES, is_installed_for_gpu
from alexnet_deploy.runtimes.tensorrt_library import load_library


def open_runner(file: ModelFile, options: RunnerOptions) -> Runner:
    """Open `file` with the runtime, on the device and in the precision that `options` name.

    Raises:
        MissingPackageError: the runtime, or with "auto" every runtime, is not installed.
        DeviceError: the device or precision cannot be had with it.
        IncompatibleFileError: the runtime cannot load the graph.
        UsageError: an output layer that the network does not have, or a precision that the file
            is not of.
    """
    options = resolve(options, file.precision)
    if options.runtime == "openvino":
        from alexnet_deploy.runtimes.openvino_runner import OpenVinoRunner

        return OpenVinoRunner(file, options)
    if options.device == "cuda":
        from alexnet_deploy.runtimes.onnxruntime_cuda_runner import OnnxRuntimeCudaRunner

        return OnnxRuntimeCudaRunner(file, options)
    from alexnet_deploy.runtimes.onnxruntime_runner import OnnxRuntimeRunner

    return OnnxRuntimeRunner(file, options)


def open_engine_file(file: EngineFile, options: RunnerOptions) -> Runner:
    """Open an engine with the library that built it.

    Raises:
        MissingPackageError: the library is not installed.
        DeviceError: no GPU, or options that an engine cannot obey.
        IncompatibleFileError: it was built for another GPU or version.
        UsageError: a layer or a batch that it was not built for.
    """
    # In this order: nothing need be installed where no GPU is, and the library's extra brings the
    # rest.
    current_gpu()
    load_library(file.record.runtime)
    from alexnet_deploy.runtimes.tensorrt_runner import TensorRtRunner

    return TensorRtRunner(file, options)


def resolve(options: RunnerOptions, own: FilePrecision = "fp32") -> RunnerOptions:
    """Return `options` with the runtime and the device that "auto" stands for here.

    Its precision stays as it is.

    Args:
        options: as they were given.
        own: the file's precision, which "auto" means; of a checkpoint fp32.

    Raises:
        MissingPackageError, DeviceError: as `open_runner`.
    """
    device = _resolve_device(options, own)
    runtime = resolve_runtime(options, device)
    return dataclasses.replace(options, runtime=runtime, device=device)


def _resolve_device(options: RunnerOptions, own: FilePrecision) -> Device:
    """Take the GPU where one is, the installed ONNX Runtime is made for it, and it can do it."""
    if options.device != "auto":
        return options.device
    precision = own if options.precision == "auto" else options.precision
    can_do_it = options.runtime in ("auto", "onnxruntime") and computes(
        "onnxruntime", "cuda", precision
    )
    return "cuda" if can_do_it and is_installed_for_gpu() and gpus() else "cpu"


def runtime_version(runtime: Runtime) -> str:
    """Return the installed version of a runtime, without importing it; "" when it has none."""
    names = ONNX_RUNTIMES if runtime == "onnxruntime" else (runtime,)
    return next(filter(None, map(installed.version_of, names)), "")
