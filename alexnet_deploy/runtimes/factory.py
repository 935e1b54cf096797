"""Choose a runtime and a device, and open a model with them."""

import dataclasses
import sys
from typing import TYPE_CHECKING

from alexnet_deploy import installed
from alexnet_deploy.choices import Device, FilePrecision, Precision, Runtime
from alexnet_deploy.runtimes.base import Runner, RunnerOptions, usual_outputs
from alexnet_deploy.runtimes.capabilities import computes, resolve_runtime
from alexnet_deploy.runtimes.engine_file import EngineFile
from alexnet_deploy.runtimes.gpu_driver import gpus
from alexnet_deploy.runtimes.onnxruntime_distributions import ONNX_RUNTIMES, is_installed_for_gpu
from alexnet_deploy.runtimes.prepared import PreparedNetwork, prepare
from alexnet_deploy.runtimes.tensorrt_library import engine_gpu, load_library

if TYPE_CHECKING:
    from alexnet_deploy.graph.model_file import ModelFile


def open_runner(file: "ModelFile", options: RunnerOptions) -> Runner:
    """Open `file` with the runtime, on the device and in the precision that `options` name.

    Raises:
        MissingPackageError: the runtime, or with "auto" every runtime, is not installed.
        DeviceError: it does not support the device or precision.
        IncompatibleFileError: the runtime cannot load the graph.
        UsageError: an output layer that the network does not have, or a precision that does not
            match the file's.
    """
    options = resolve(options, file.precision)
    return open_prepared(prepare(file, options.runtime, options.device), options)


def open_prepared(network: PreparedNetwork, options: RunnerOptions) -> Runner:
    """Open a network as `open_runner` does, with the options that it was prepared for, resolved."""
    outputs = options.outputs or usual_outputs(network.spec)
    options = dataclasses.replace(options, outputs=outputs)
    if options.runtime == "openvino":
        from alexnet_deploy.runtimes.openvino_runner import OpenVinoRunner

        return OpenVinoRunner(network, options)
    if options.device == "cuda":
        from alexnet_deploy.runtimes.onnxruntime_cuda_runner import OnnxRuntimeCudaRunner

        return OnnxRuntimeCudaRunner(network, options)
    from alexnet_deploy.runtimes.onnxruntime_runner import OnnxRuntimeRunner

    return OnnxRuntimeRunner(network, options)


def open_engine_file(file: EngineFile, options: RunnerOptions) -> Runner:
    """Open an engine with the library that built it.

    Raises:
        MissingPackageError: the library is not installed.
        DeviceError: no GPU, one with too old a driver, or options that the engine does not support.
        IncompatibleFileError: it was built for another GPU or library version.
        UsageError: a layer or a batch that it was not built for.
    """
    # In this order: without a GPU nothing needs to be installed, and the library's extra includes
    # the rest.
    engine_gpu()
    load_library(file.record.runtime)
    from alexnet_deploy.runtimes.tensorrt_runner import TensorRtRunner

    return TensorRtRunner(file, options)


def resolve(options: RunnerOptions, own: FilePrecision = "fp32") -> RunnerOptions:
    """Return `options` with "auto" resolved for runtime and device.

    The precision is not resolved.

    Args:
        options: as given.
        own: the file's precision, used for "auto"; fp32 for a checkpoint.

    Raises:
        MissingPackageError, DeviceError: as `open_runner`.
    """
    precision = own if options.precision == "auto" else options.precision
    device = _resolve_device(options, precision)
    runtime = resolve_runtime(options, device)
    return dataclasses.replace(options, runtime=runtime, device=device)


def _resolve_device(options: RunnerOptions, precision: Precision) -> Device:
    """Take the GPU if there is one and the installed ONNX Runtime can run this precision on it."""
    if options.device != "auto":
        return options.device
    can_do_it = options.runtime in ("auto", "onnxruntime") and computes(
        "onnxruntime", "cuda", precision
    )
    return "cuda" if can_do_it and is_installed_for_gpu() and gpus() else "cpu"


def runtime_version(runtime: Runtime) -> str:
    """Return the installed version of a runtime, without importing it; "" if it has none."""
    if runtime == "openvino" and sys.modules.get(runtime) is not None:
        # What pip recorded is the same, and takes as long to read as anything else at the start.
        from alexnet_deploy.runtimes.openvino_runner import openvino_version

        return openvino_version()
    names = ONNX_RUNTIMES if runtime == "onnxruntime" else (runtime,)
    return next(filter(None, map(installed.version_of, names)), "")
