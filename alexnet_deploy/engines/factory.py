"""Choose a runtime and open a model with it: the one place that knows which there are."""

import importlib.metadata
import importlib.util

from alexnet_deploy.engines.base import Engine, EngineOptions, Runtime
from alexnet_deploy.errors import DeviceError, MissingPackageError
from alexnet_deploy.model_file import ModelFile

# Distributions by runtime, the fastest first.
_DISTRIBUTIONS: dict[Runtime, str] = {"openvino": "openvino", "onnxruntime": "onnxruntime"}


def open_engine(file: ModelFile, options: EngineOptions) -> Engine:
    """Open `file` with the runtime that `options` names; "auto" takes the fastest installed.

    Raises:
        MissingPackageError: the runtime, or with "auto" every runtime, is not installed.
        DeviceError: the device or precision cannot be had with it.
        IncompatibleFileError: the runtime cannot load the graph.
        UsageError: an output layer that the network does not have.
    """
    if options.device == "cuda":
        raise DeviceError(
            "--device cuda: no runtime of this version runs on a GPU yet; use --device cpu"
        )
    if resolve_runtime(options.runtime) == "openvino":
        from alexnet_deploy.engines.openvino_engine import OpenVinoEngine

        return OpenVinoEngine(file, options)
    from alexnet_deploy.engines.onnxruntime_engine import OnnxRuntimeEngine

    return OnnxRuntimeEngine(file, options)


def resolve_runtime(runtime: Runtime) -> Runtime:
    """Return the runtime that "auto" stands for here, another as it is.

    Raises:
        MissingPackageError: "auto", and none is installed.
    """
    if runtime != "auto":
        return runtime
    for name in _DISTRIBUTIONS:
        if is_installed(name):
            return name
    raise MissingPackageError("openvino", "cpu", "running a model")


def runtime_version(runtime: Runtime) -> str:
    """Return the installed version of a runtime, without importing it; "" when it has none."""
    try:
        return importlib.metadata.version(_DISTRIBUTIONS[runtime])
    except importlib.metadata.PackageNotFoundError:
        return ""


def is_installed(package: str) -> bool:
    """Tell whether `package` can be imported, without importing it."""
    return importlib.util.find_spec(package) is not None
