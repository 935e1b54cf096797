"""Buffers and streams over a CUDA runtime of ours, which keeps count of what is freed."""

import importlib
import inspect
import sys
from typing import Any

import numpy as np
import pytest

from alexnet_deploy.errors import DeviceError, MissingPackageError

real = pytest.importorskip(
    "cuda.bindings.runtime", reason="CUDA's API comes with: pip install cuda-bindings"
)
from alexnet_deploy.runtimes.cuda_memory import DeviceBuffer, Graph, HostBuffer, Stream  # noqa: E402
from tests.support.trt_stub.fake_cuda import FakeCuda  # noqa: E402

pytest_plugins = ["tests.support.trt_stub.fixtures"]

FAKED = [name for name in vars(FakeCuda) if name.startswith("cuda")]
OUT_OF_MEMORY = real.cudaError_t.cudaErrorMemoryAllocation
ILLEGAL_ADDRESS = real.cudaError_t.cudaErrorIllegalAddress


@pytest.mark.parametrize("name", FAKED)
def test_the_fake_takes_what_the_real_function_takes(name: str) -> None:
    text = getattr(real, name).__doc__.splitlines()[0]  # cudaMalloc(size_t size)
    inner = text[text.index("(") + 1 : text.rindex(")")]
    parameters = [part.split(":")[0].split()[-1] for part in inner.split(",") if part.strip()]
    assert list(inspect.signature(getattr(FakeCuda, name)).parameters)[1:] == parameters


def test_what_goes_up_comes_down_once_the_stream_has_been_waited_for(cuda: FakeCuda) -> None:
    data = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    stream, device = Stream(), DeviceBuffer(data.nbytes)
    up, down = HostBuffer((2, 3, 4), np.float32), HostBuffer((2, 3, 4), np.float32)
    up.array[:] = data
    stream.upload(up, device)
    stream.download(device, down)
    assert not (down.array == data).any(), "the fake would hide a synchronize that is missing"
    stream.synchronize()
    np.testing.assert_array_equal(down.array, data)
    assert down.array.dtype == np.float32
    assert down.num_bytes == data.nbytes


def test_what_was_captured_happens_as_often_as_its_graph_is_launched(cuda: FakeCuda) -> None:
    stream, device = Stream(), DeviceBuffer(8)
    up, down = HostBuffer((8,), np.uint8), HostBuffer((8,), np.uint8)

    def work() -> None:
        stream.upload(up, device)
        stream.download(device, down)

    down.array[:] = 0
    graph = stream.captured(work)
    stream.synchronize()
    assert not down.array.any(), "a capture does nothing yet"
    for number in (1, 2):
        up.array[:] = number
        stream.launch(graph)
        stream.synchronize()
        assert (down.array == number).all()
    graph.close()
    graph.close()
    assert cuda.graphs == {}


def test_a_capture_that_fails_leaves_the_stream_and_nothing_else(cuda: FakeCuda) -> None:
    stream = Stream()

    def fail() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stream.captured(fail)
    cuda.failures["cudaStreamEndCapture"] = real.cudaError_t.cudaErrorStreamCaptureInvalidated
    with pytest.raises(KeyboardInterrupt):
        stream.captured(fail)
    with pytest.raises(
        DeviceError, match=r"^capturing a CUDA graph failed: cudaErrorStreamCaptureI"
    ):
        stream.captured(lambda: None)
    stream.synchronize()
    assert cuda.graphs == {}


def test_a_closed_buffer_is_free_and_out_of_reach(cuda: FakeCuda) -> None:
    device, host, stream = DeviceBuffer(100), HostBuffer((5, 7), np.uint8), Stream()
    assert len(cuda.memory) == 2
    for resource in (device, host, stream):
        resource.close()
        resource.close()
    assert cuda.memory == {}
    assert cuda.streams == set()
    assert host.array.size == 0
    assert (host.address, device.address) == (0, 0)


@pytest.mark.parametrize(("up", "device"), [(11, 10), (10, 11), (0, 0)])
def test_a_copy_between_different_sizes_is_refused(cuda: FakeCuda, up: int, device: int) -> None:
    stream, host, there = Stream(), HostBuffer((up,), np.uint8), DeviceBuffer(device)
    with pytest.raises(ValueError, match=f"{up} to {device} bytes"):
        stream.upload(host, there)
    with pytest.raises(ValueError, match=f"{device} to {up} bytes"):
        stream.download(there, host)


def test_a_full_gpu_is_an_error_that_says_how_much_was_wanted(cuda: FakeCuda) -> None:
    cuda.failures["cudaMalloc"] = OUT_OF_MEMORY
    with pytest.raises(
        DeviceError,
        match=r"^allocating 3\.0 MiB of GPU memory failed: cudaErrorMemoryAllocation "
        r"\(out of memory\); free some, or use a smaller batch_size$",
    ):
        DeviceBuffer(3 * 2**20)


def steps(cuda: FakeCuda) -> dict[str, Any]:
    """Return one thing to do for each function that can fail after the beginning."""
    stream, device, host = Stream(), DeviceBuffer(8), HostBuffer((8,), np.uint8)

    def capture() -> Graph:
        return stream.captured(lambda: stream.upload(host, device))

    graph = capture()
    return {
        **dict.fromkeys(("cudaStreamBeginCapture", "cudaStreamEndCapture"), capture),
        **dict.fromkeys(("cudaGraphInstantiate", "cudaGraphDestroy"), capture),
        "cudaGraphLaunch": lambda: stream.launch(graph),
        "cudaGraphExecDestroy": graph.close,
        "cudaHostAlloc": lambda: HostBuffer((8,), np.uint8),
        "cudaStreamCreateWithFlags": Stream,
        "cudaMemcpyAsync": lambda: stream.upload(host, device),
        "cudaStreamSynchronize": stream.synchronize,
        "cudaFree": device.close,
        "cudaFreeHost": host.close,
        "cudaStreamDestroy": stream.close,
    }


@pytest.mark.parametrize("name", sorted({*FAKED} - {"cudaMalloc"}))
def test_no_status_is_overlooked(cuda: FakeCuda, name: str) -> None:
    step = steps(cuda)[name]
    cuda.failures[name] = ILLEGAL_ADDRESS
    with pytest.raises(DeviceError, match=r"failed: cudaErrorIllegalAddress .*nvidia-smi"):
        step()


def test_a_download_can_fail_too(cuda: FakeCuda) -> None:
    stream, device, host = Stream(), DeviceBuffer(8), HostBuffer((8,), np.uint8)
    cuda.failures["cudaMemcpyAsync"] = ILLEGAL_ADDRESS
    with pytest.raises(DeviceError, match=r"^copying from the GPU failed"):
        stream.download(device, host)


@pytest.mark.parametrize(
    "name", ["cudaFree", "cudaFreeHost", "cudaStreamDestroy", "cudaGraphExecDestroy"]
)
def test_an_error_on_its_way_is_not_replaced_by_one_of_freeing(cuda: FakeCuda, name: str) -> None:
    step = steps(cuda)[name]
    cuda.failures[name] = ILLEGAL_ADDRESS

    def fail() -> None:
        try:
            raise ZeroDivisionError
        finally:
            step()

    with pytest.raises(ZeroDivisionError):
        fail()


@pytest.mark.parametrize(
    ("installed", "extra"),
    [
        ({"tensorrt"}, "tensorrt"),
        ({"tensorrt_rtx"}, "rtx"),
        ({"tensorrt", "tensorrt_rtx"}, "tensorrt"),
    ],
)
def test_missing_bindings_are_installed_with_the_library_that_is_here(
    monkeypatch: pytest.MonkeyPatch, installed: set[str], extra: str
) -> None:
    monkeypatch.setattr("alexnet_deploy.installed.has_module", lambda name: name in installed)
    monkeypatch.delitem(sys.modules, "alexnet_deploy.runtimes.cuda_memory")
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(MissingPackageError, match=rf"cuda-bindings,.*alexnet-deploy\[{extra}\]'"):
        importlib.import_module("alexnet_deploy.runtimes.cuda_memory")


@pytest.mark.gpu("cuda")
def test_a_real_gpu_gives_back_what_it_was_given() -> None:
    data = np.random.default_rng(0).integers(0, 256, (3, 2**20), np.uint8)
    stream, device = Stream(), DeviceBuffer(data.nbytes)
    up, down = HostBuffer(data.shape, np.uint8), HostBuffer(data.shape, np.uint8)
    up.array[:], down.array[:] = data, 0
    stream.upload(up, device)
    stream.download(device, down)
    stream.synchronize()
    np.testing.assert_array_equal(down.array, data)
    graph = stream.captured(lambda: stream.upload(up, device))
    up.array[:] = 7
    stream.launch(graph)
    stream.download(device, down)
    stream.synchronize()
    assert (down.array == 7).all()
    for resource in (graph, device, up, down, stream):
        resource.close()
    with pytest.raises(DeviceError, match="out of memory"):
        DeviceBuffer(2**50)
