"""Choose a runtime and open a model with it: the one place that knows which there are."""

import importlib.util

from alexnet_deploy.engines.base import Engine, EngineOptions
from alexnet_deploy.errors import DeviceError, MissingPackageError
from alexnet_deploy.onnx_graph import ModelFile


def open_engine(file: ModelFile, options: EngineOptions) -> Engine:
    """Open `file` with the runtime that `options` names; "auto" takes the fastest installed.

    Raises:
        MissingPackageError: the runtime, or with "auto" every runtime, is not installed.
        DeviceError: the device or precision cannot be had with it.
        UsageError: an output layer that the network does not have.
    """
    runtime = options.runtime
    if options.device == "cuda":
        raise DeviceError(
            "--device cuda: no runtime of this version runs on a GPU yet; use --device cpu"
        )
    if runtime == "auto":
        installed = [name for name in ("openvino", "onnxruntime") if is_installed(name)]
        if not installed:
            raise MissingPackageError("openvino", "cpu", "running a model")
        runtime = "openvino" if "openvino" in installed else "onnxruntime"
    if runtime == "openvino":
        from alexnet_deploy.engines.openvino_engine import OpenVinoEngine

        return OpenVinoEngine(file, options)
    from alexnet_deploy.engines.onnxruntime_engine import OnnxRuntimeEngine

    return OnnxRuntimeEngine(file, options)


def is_installed(package: str) -> bool:
    """Tell whether `package` can be imported, without importing it."""
    return importlib.util.find_spec(package) is not None
