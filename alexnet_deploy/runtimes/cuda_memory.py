"""GPU memory, pinned host memory and a stream, for engines; the owner of `cuda.bindings.runtime`.

Everything happens on the process's first GPU, `gpu_driver.current_gpu`.
Pointers do not leave the engines; whoever makes a buffer closes it.
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
    # Both extras bring it; nobody need install TensorRT to run engines of TensorRT-RTX.
    if installed.has_module("tensorrt"):
        raise MissingPackageError("cuda-bindings", "tensorrt", "running an engine") from error
    raise MissingPackageError("cuda-bindings", "rtx", "running an engine") from error


class DeviceBuffer:
    """Memory on the GPU; its contents are undefined at first.

    Attributes:
        num_bytes: its size.
        address: where it starts on the GPU; 0 once it is closed.
    """

    def __init__(self, num_bytes: int) -> None:
        """Take `num_bytes` of the GPU's memory.

        Raises:
            DeviceError: there is not that much.
        """
        what = f"taking {num_bytes / 2**20:.1f} MiB of GPU memory"
        self.num_bytes = num_bytes
        self.address = int(_checked(what, cudart.cudaMalloc, num_bytes))

    def close(self) -> None:
        """Give the memory back; nothing of the GPU may still be using it."""
        address, self.address = self.address, 0
        if address:
            _released("freeing GPU memory", cudart.cudaFree, address)


class HostBuffer:
    """Pinned memory of the host, which the GPU copies from and to by itself, as an array.

    Attributes:
        array: the memory, C order; empty once it is closed. Views of it die with the buffer.
    """

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        """Pin memory for an array of that shape; its contents are undefined at first.

        Raises:
            DeviceError: the system pins no more.
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
        """Return where the memory starts; 0 once it is closed."""
        return self._address

    def close(self) -> None:
        """Give the memory back; no copy may still be under way."""
        address, self._address = self._address, 0
        self.array = np.empty(0, self.array.dtype)
        if address:
            _released("freeing pinned memory", cudart.cudaFreeHost, address)


class Stream:
    """Work that the GPU does in the order in which it was given, while the caller goes on.

    Attributes:
        handle: what other CUDA libraries take for the stream.
    """

    def __init__(self) -> None:
        """Make a stream that does not wait for the legacy default stream.

        Raises:
            DeviceError: there is no GPU, or it does not answer.
        """
        flags = cudart.cudaStreamNonBlocking
        self._stream = _checked("making a stream", cudart.cudaStreamCreateWithFlags, flags)
        self.handle = int(self._stream)

    def upload(self, source: HostBuffer, target: DeviceBuffer) -> None:
        """Copy to the GPU; `source` must stay as it is until `synchronize`."""
        kind = cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._copy("copying to the GPU", target, source, kind)

    def download(self, source: DeviceBuffer, target: HostBuffer) -> None:
        """Copy to the host; `target` holds the data after `synchronize`."""
        kind = cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._copy("copying from the GPU", target, source, kind)

    def synchronize(self) -> None:
        """Wait until all work given so far is done.

        Raises:
            DeviceError: one of its steps failed.
        """
        _checked("computing on the GPU", cudart.cudaStreamSynchronize, self._stream)

    def close(self) -> None:
        """Give the stream up; work under way is still done."""
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
    """Give something back; with an error under way already, a second one does not replace it.

    After an error on the GPU every later call fails as well: the first says what went wrong.

    Raises:
        DeviceError: as `_checked`.
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
            else ("look at the GPU with nvidia-smi, or use ", Argument("device", "cpu"))
        )
        raise DeviceError(f"{what} failed: {name} ({meaning}); ", *remedy)
    return values[0] if values else None
