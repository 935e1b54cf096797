"""GPU memory, pinned host memory, a stream and graphs, for engines; owns `cuda.bindings.runtime`.

Everything happens on the process's first GPU, `gpu_driver.current_gpu`. Pointers do not leave the
runners; whoever creates a buffer closes it.
"""

import ctypes
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from alexnet_deploy import installed
from alexnet_deploy.errors import Argument, DeviceError, MissingPackageError

try:
    from cuda.bindings import runtime as cudart
except ImportError as error:
    # Both extras include it; TensorRT-RTX engines run without TensorRT.
    if installed.has_module("tensorrt"):
        raise MissingPackageError("cuda-bindings", "tensorrt", "running an engine") from error
    raise MissingPackageError("cuda-bindings", "rtx", "running an engine") from error


class DeviceBuffer:
    """Memory on the GPU, uninitialized.

    Attributes:
        num_bytes: its size.
        address: its address on the GPU; 0 once closed.
    """

    def __init__(self, num_bytes: int) -> None:
        """Allocate `num_bytes` of GPU memory.

        Raises:
            DeviceError: not enough free memory.
        """
        what = f"allocating {num_bytes / 2**20:.1f} MiB of GPU memory"
        self.num_bytes = num_bytes
        self.address = int(_checked(what, cudart.cudaMalloc, num_bytes))

    def close(self) -> None:
        """Free the memory; the GPU must no longer be using it."""
        address, self.address = self.address, 0
        if address:
            _released("freeing GPU memory", cudart.cudaFree, address)


class HostBuffer:
    """Pinned host memory, which the GPU reads and writes by DMA, as an array.

    Attributes:
        array: the memory, C order; empty once closed. Views are invalid after that.
    """

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        """Pin memory for an array of that shape, uninitialized.

        Raises:
            DeviceError: no more memory can be pinned.
        """
        count = int(np.prod(shape))
        num_bytes = count * np.dtype(dtype).itemsize
        what = f"pinning {num_bytes / 2**20:.1f} MiB of host memory"
        # cudaMallocHost may leave pages unpinned on some systems.
        flags = cudart.cudaHostAllocDefault
        self._address = int(_checked(what, cudart.cudaHostAlloc, num_bytes, flags))
        memory = memoryview((ctypes.c_ubyte * num_bytes).from_address(self._address))
        self.array: NDArray[Any] = np.frombuffer(memory, dtype, count).reshape(shape)

    @property
    def num_bytes(self) -> int:
        """Return the size of the array."""
        return self.array.nbytes

    @property
    def address(self) -> int:
        """Return the memory's address; 0 once closed."""
        return self._address

    def close(self) -> None:
        """Free the memory; no copy may be in progress."""
        address, self._address = self._address, 0
        self.array = np.empty(0, self.array.dtype)
        if address:
            _released("freeing pinned memory", cudart.cudaFreeHost, address)


class Graph:
    """Work that was captured from a stream, which the GPU starts with one call; see `Stream`.

    Attributes:
        handle: the executable graph; None once closed.
    """

    def __init__(self, handle: Any) -> None:
        self.handle = handle

    def close(self) -> None:
        """Free the graph; the GPU must no longer be running it."""
        handle, self.handle = self.handle, None
        if handle is not None:
            _released("freeing a CUDA graph", cudart.cudaGraphExecDestroy, handle)


class Stream:
    """A CUDA stream: work that the GPU does in order, asynchronously to the caller.

    Attributes:
        handle: the stream's handle for other CUDA libraries.
    """

    def __init__(self) -> None:
        """Create a stream that does not wait for the legacy default stream.

        Raises:
            DeviceError: there is no GPU, or it does not respond.
        """
        flags = cudart.cudaStreamNonBlocking
        self._stream = _checked("creating a stream", cudart.cudaStreamCreateWithFlags, flags)
        self.handle = int(self._stream)

    def upload(self, source: HostBuffer, target: DeviceBuffer) -> None:
        """Copy to the GPU; `source` must not change until `synchronize`."""
        kind = cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._copy("copying to the GPU", target, source, kind)

    def download(self, source: DeviceBuffer, target: HostBuffer) -> None:
        """Copy to the host; `target` holds the data after `synchronize`."""
        kind = cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._copy("copying from the GPU", target, source, kind)

    def captured(self, work: Callable[[], None]) -> Graph:
        """Return what `work` submits to this stream as a graph, which does not run yet.

        Its addresses are fixed: the memory must not be freed before the graph.

        Raises:
            DeviceError: part of it cannot be captured. The stream is usable after any error.
        """
        what = "capturing a CUDA graph"
        # Other threads, such as those that decode on the GPU, may do what would end a capture.
        mode = cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        _checked(what, cudart.cudaStreamBeginCapture, self._stream, mode)
        try:
            work()
        except BaseException:
            _, graph = cudart.cudaStreamEndCapture(self._stream)
            if graph:  # none if the capture was invalid
                _released(what, cudart.cudaGraphDestroy, graph)
            raise
        graph = _checked(what, cudart.cudaStreamEndCapture, self._stream)
        try:
            return Graph(_checked(what, cudart.cudaGraphInstantiate, graph, 0))
        finally:
            _released(what, cudart.cudaGraphDestroy, graph)

    def launch(self, graph: Graph) -> None:
        """Submit the work of a graph.

        Raises:
            DeviceError: it is not accepted, such as after an error of earlier work.
        """
        _checked("launching a CUDA graph", cudart.cudaGraphLaunch, graph.handle, self._stream)

    def synchronize(self) -> None:
        """Wait until all work submitted so far is done.

        Raises:
            DeviceError: part of it failed.
        """
        _checked("computing on the GPU", cudart.cudaStreamSynchronize, self._stream)

    def close(self) -> None:
        """Destroy the stream; pending work still completes."""
        stream, self._stream = self._stream, None
        if stream is not None:
            _released("closing a stream", cudart.cudaStreamDestroy, stream)

    def _copy(
        self,
        what: str,
        target: DeviceBuffer | HostBuffer,
        source: DeviceBuffer | HostBuffer,
        kind: Any,
    ) -> None:
        if not target.num_bytes == source.num_bytes > 0:
            raise ValueError(f"{what}: from {source.num_bytes} to {target.num_bytes} bytes")
        arguments = (target.address, source.address, source.num_bytes, kind, self._stream)
        _checked(what, cudart.cudaMemcpyAsync, *arguments)


def _released(what: str, function: Callable[..., tuple[Any, ...]], resource: object) -> None:
    """Release a resource, without replacing an exception that is already propagating.

    After an error on the GPU every later call fails too; the first one tells the cause.

    Raises:
        DeviceError: as for `_checked`.
    """
    is_failing = sys.exc_info()[0] is not None
    try:
        _checked(what, function, resource)
    except DeviceError:
        if not is_failing:
            raise


def _checked(what: str, function: Callable[..., tuple[Any, ...]], *arguments: Any) -> Any:
    """Call a function of the CUDA runtime and return its value.

    Raises:
        DeviceError: its status is not success; the message names `what` and the status.
    """
    status, *values = function(*arguments)
    if status != cudart.cudaError_t.cudaSuccess:
        texts = [get(status)[1] for get in (cudart.cudaGetErrorName, cudart.cudaGetErrorString)]
        name, meaning = (text.decode("utf-8", "replace") for text in texts)
        is_full = status == cudart.cudaError_t.cudaErrorMemoryAllocation
        remedy = (
            ("free some, or use a smaller ", Argument("batch_size"))
            if is_full
            else ("check the GPU with nvidia-smi, or use ", Argument("device", "cpu"))
        )
        raise DeviceError(f"{what} failed: {name} ({meaning}); ", *remedy)
    return values[0] if values else None
