"""The functions of the CUDA runtime that we call, on memory of the host, late as on a GPU.

What is given to a stream happens when something waits for it, so a result that is read too early
is wrong here too; what is captured happens when its graph was launched. Every address is checked:
alive, on the side that was named, large enough.
"""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from cuda.bindings import runtime as real

Side = Literal["device", "host"]


@dataclass
class FakeCuda:
    """Stands for the module `cuda.bindings.runtime`; enums and constants are the real ones.

    Attributes:
        memory: what is allocated: the side, and the bytes, by address.
        streams: handles of the open streams.
        pending: what the stream has still to do.
        capturing: what was given to the stream since its capture began; None without one.
        graphs: what each graph does, by handle.
        failures: statuses to return instead of doing anything, by function.
    """

    memory: dict[int, tuple[Side, Any]] = field(default_factory=dict)
    streams: set[int] = field(default_factory=set)
    pending: list[Callable[[], object]] = field(default_factory=list)
    capturing: list[Callable[[], object]] | None = None
    graphs: dict[int, list[Callable[[], object]]] = field(default_factory=dict)
    failures: dict[str, Any] = field(default_factory=dict)
    _handles: int = 0

    def __getattr__(self, name: str) -> Any:
        value = getattr(real, name)
        if callable(value) and not isinstance(value, type) and "GetError" not in name:
            raise NotImplementedError(f"the fake has no {name}")
        return value

    def bytes_at(self, address: int, count: int, side: Side) -> Any:
        """Return the memory at an address that was handed out, as an array of bytes."""
        kind, block = self.memory[address]
        assert kind == side, f"{address} is {kind} memory"
        assert count <= len(block), f"{count} of {len(block)} bytes"
        return (ctypes.c_ubyte * count).from_address(address)

    def submit(self, work: Callable[[], object]) -> None:
        """Give work to the stream."""
        (self.pending if self.capturing is None else self.capturing).append(work)

    def finish(self) -> None:
        """Do what the stream has to do."""
        while self.pending:
            self.pending.pop(0)()

    def cudaMalloc(self, size: int) -> tuple[Any, ...]:
        return self._allocated("cudaMalloc", "device", size)

    def cudaHostAlloc(self, size: int, flags: int) -> tuple[Any, ...]:
        assert flags == real.cudaHostAllocDefault
        return self._allocated("cudaHostAlloc", "host", size)

    def cudaFree(self, devPtr: int) -> tuple[Any, ...]:
        return self._freed("cudaFree", "device", devPtr)

    def cudaFreeHost(self, ptr: int) -> tuple[Any, ...]:
        return self._freed("cudaFreeHost", "host", ptr)

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        assert flags == real.cudaStreamNonBlocking
        status = self._status("cudaStreamCreateWithFlags", real.cudaStream_t(77))
        if status[-1] is not None:
            self.streams.add(77)
        return status

    def cudaStreamDestroy(self, stream: Any) -> tuple[Any, ...]:
        self.streams.remove(int(stream))
        return self._status("cudaStreamDestroy")

    def cudaStreamSynchronize(self, stream: Any) -> tuple[Any, ...]:
        assert int(stream) in self.streams
        assert self.capturing is None
        self.finish()
        return self._status("cudaStreamSynchronize")

    def cudaStreamBeginCapture(self, stream: Any, mode: Any) -> tuple[Any, ...]:
        assert int(stream) in self.streams
        assert mode == real.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        status = self._status("cudaStreamBeginCapture")
        self.capturing = None if "cudaStreamBeginCapture" in self.failures else []
        return status

    def cudaStreamEndCapture(self, stream: Any) -> tuple[Any, ...]:
        assert int(stream) in self.streams
        assert self.capturing is not None
        work, self.capturing = self.capturing, None
        return self._new_graph("cudaStreamEndCapture", work, real.cudaGraph_t)

    def cudaGraphInstantiate(self, graph: Any, flags: int) -> tuple[Any, ...]:
        assert flags == 0
        return self._new_graph(
            "cudaGraphInstantiate", self.graphs[int(graph)], real.cudaGraphExec_t
        )

    def cudaGraphLaunch(self, graphExec: Any, stream: Any) -> tuple[Any, ...]:
        assert int(stream) in self.streams
        assert isinstance(graphExec, real.cudaGraphExec_t)
        for work in self.graphs[int(graphExec)]:
            self.submit(work)
        return self._status("cudaGraphLaunch")

    def cudaGraphDestroy(self, graph: Any) -> tuple[Any, ...]:
        assert isinstance(graph, real.cudaGraph_t)
        del self.graphs[int(graph)]
        return self._status("cudaGraphDestroy")

    def cudaGraphExecDestroy(self, graphExec: Any) -> tuple[Any, ...]:
        assert isinstance(graphExec, real.cudaGraphExec_t)
        assert not self.pending, "it may still run"
        del self.graphs[int(graphExec)]
        return self._status("cudaGraphExecDestroy")

    def cudaMemcpyAsync(
        self, dst: int, src: int, count: int, kind: Any, stream: Any
    ) -> tuple[Any, ...]:
        assert int(stream) in self.streams
        is_up = kind == real.cudaMemcpyKind.cudaMemcpyHostToDevice
        assert is_up or kind == real.cudaMemcpyKind.cudaMemcpyDeviceToHost
        target = self.bytes_at(dst, count, "device" if is_up else "host")
        source = self.bytes_at(src, count, "host" if is_up else "device")
        self.submit(lambda: ctypes.memmove(target, source, count))
        return self._status("cudaMemcpyAsync")

    def _status(self, name: str, *values: Any) -> tuple[Any, ...]:
        """Return the status that the test set for a function, or success and its values."""
        if name in self.failures:
            return (self.failures[name], *(None for _ in values))
        return (real.cudaError_t.cudaSuccess, *values)

    def _new_graph(self, name: str, work: list[Callable[[], object]], kind: Any) -> tuple[Any, ...]:
        handle = self._handles = self._handles + 1
        status = self._status(name, kind(handle))
        if status[-1] is not None:
            self.graphs[handle] = work
        return status

    def _allocated(self, name: str, side: Side, size: int) -> tuple[Any, ...]:
        block = (ctypes.c_ubyte * size)()
        ctypes.memset(block, 0xAB, size)  # what was there before is not zero
        status = self._status(name, ctypes.addressof(block))
        if status[-1] is not None:
            self.memory[status[-1]] = (side, block)
        return status

    def _freed(self, name: str, side: Side, address: int) -> tuple[Any, ...]:
        self.finish()  # the real ones wait for the device
        assert self.memory[address][0] == side
        del self.memory[address]
        return self._status(name)
