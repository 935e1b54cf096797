"""Open ONNX Runtime sessions and bind them to memory; the only importer of onnxruntime.

N images (the fixed batch size), H/W the input size of the spec in px.
"""

import contextlib
import io
import os
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.errors import IncompatibleFileError, MissingPackageError
from alexnet_deploy.graph.interface import INPUT
from alexnet_deploy.runtimes.onnxruntime_distributions import check_distributions, not_importable

# Official builds send telemetry to Microsoft unless this is set before the import (PR 27379).
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
check_distributions()
try:
    import onnxruntime

    # An uninstalled build may leave an empty folder, which can still be imported.
    _VERSION = str(onnxruntime.__version__)
except (ImportError, AttributeError) as error:
    if isinstance(error, ModuleNotFoundError) and error.name == "onnxruntime":
        raise MissingPackageError("onnxruntime", "cpu", "running a model") from error
    raise not_importable(error) from error

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"

_WARNINGS, _ERRORS = 2, 3


def onnxruntime_version() -> str:
    """Return the version of the library."""
    return _VERSION


def has_provider(provider: str) -> bool:
    """Return whether the installed build includes `provider`; its libraries may be missing."""
    return provider in onnxruntime.get_available_providers()


def load_cuda_libraries() -> str:
    """Load CUDA and cuDNN from pip's packages; return the messages about those not found.

    Call it before opening the first session on a GPU.
    """
    # It prints to stdout, which is for results.
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        onnxruntime.preload_dlls()
    lines = printed.getvalue().splitlines()
    return "; ".join(line.split(": ", 1)[-1] for line in lines if line.startswith("Failed to load"))


def let_warn(wanted: bool) -> None:
    """Let ONNX Runtime print warnings to stderr in this process, or only errors."""
    onnxruntime.set_default_logger_severity(_WARNINGS if wanted else _ERRORS)


def open_session(
    content: bytes,
    source: str,
    *,
    remedy: str = "export the checkpoint again",
    provider: str = CPU,
    provider_options: Mapping[str, str] | None = None,
    settings: Mapping[str, str] | None = None,
    batch_size: int | None = None,
    threads: int | None = None,
) -> Any:
    """Open a session with one provider, without fallback to another.

    Args:
        content: the graph to run, an ONNX model.
        source: where it comes from, for messages.
        remedy: what to do if it cannot be loaded, for messages.
        provider: `CPU` or `CUDA`.
        provider_options: the provider's own, under its names.
        settings: session config entries, under ONNX Runtime's names.
        batch_size: the fixed N of the session; None leaves N dynamic.
        threads: CPU threads; None for all cores.

    Raises:
        IncompatibleFileError: ONNX Runtime cannot load the graph with that provider.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS
    if threads is not None:
        options.intra_op_num_threads = threads
    if batch_size is not None:
        options.add_free_dimension_override_by_name("N", batch_size)
    for name, value in (settings or {}).items():
        options.add_session_config_entry(name, value)
    try:
        return onnxruntime.InferenceSession(
            content,
            options,
            providers=[(provider, dict(provider_options or {}))],
            enable_fallback=0,
        )
    except Exception as error:  # its exceptions have no public base
        raise IncompatibleFileError(
            f"{source}: ONNX Runtime cannot load it ({str(error).splitlines()[0]}); {remedy}"
        ) from error


def node_placement(session: Any) -> Mapping[str, tuple[str, ...]]:
    """Return the names of the nodes by the provider that runs them.

    The session must have been opened with "session.record_ep_graph_assignment_info" = "1".
    """
    placement: dict[str, tuple[str, ...]] = {}
    for part in session.get_provider_graph_assignment_info():
        names = tuple(node.name for node in part.get_nodes())
        placement[part.ep_name] = placement.get(part.ep_name, ()) + names
    return placement


def is_runtime_error(error: Exception) -> bool:
    """Return whether ONNX Runtime raised it; its exceptions have no public base."""
    return isinstance(error, RuntimeError) or type(error).__module__.startswith("onnxruntime.")


class BoundSession:
    """A session whose input and outputs stay at fixed addresses in device memory.

    Nothing is allocated per batch, and CUDA graphs, which replay with the captured addresses, can
    be used. ONNX Runtime keeps one graph per thread: always run it on the same one.
    """

    def __init__(self, session: Any, device: Literal["cpu", "cuda"]) -> None:
        """Allocate memory for one batch on the device.

        Args:
            session: opened with a batch size.
            device: where its provider computes.
        """
        self._session = session
        self._binding = session.io_binding()
        (images,) = session.get_inputs()
        self._images = _memory(images.shape, np.uint8, device)
        self._binding.bind_ortvalue_input(INPUT, self._images)
        self._outputs: dict[str, Any] = {}
        for output in session.get_outputs():
            self._outputs[output.name] = _memory(output.shape, np.float32, device)
            self._binding.bind_ortvalue_output(output.name, self._outputs[output.name])

    def run(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Compute one batch, (N, H, W, 3); the caller owns the returned arrays."""
        self._images.update_inplace(np.ascontiguousarray(images))
        self._session.run_with_iobinding(self._binding)
        return {name: _own(value.numpy()) for name, value in self._outputs.items()}


def _own(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Copy a view of the output, as on the CPU: the next batch would overwrite it."""
    return array if array.flags.owndata else array.copy()


def _memory(shape: list[int], dtype: type[np.generic], device: str) -> Any:
    return onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, dtype, device, 0)
