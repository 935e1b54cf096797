"""What a runner of engines frees, in which order, and what it says when the GPU has failed."""

import weakref
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from alexnet_deploy.errors import DeviceError
from tests.support.networks import noise
from tests.support.trt_stub.fake_runtime import OPTIONS, SPEC, FakeRuntime, Open, computed

pytest.importorskip("cuda.bindings", reason="CUDA's API comes with: pip install cuda-bindings")
pytest_plugins = ["tests.support.trt_stub.fixtures", "tests.support.trt_stub.engine_fixtures"]

FREES = ("cudaFree", "cudaFreeHost", "cudaStreamDestroy")


def test_closing_frees_everything_and_twice_is_harmless(open_runner: Open, cuda: Any) -> None:
    runner = open_runner()
    assert cuda.memory
    assert cuda.streams
    runner.close()
    runner.close()
    assert cuda.memory == {}
    assert cuda.streams == set()


@pytest.mark.parametrize("nth", range(6))
def test_a_gpu_that_is_full_half_way_is_an_error_and_gets_everything_back(
    open_runner: Open, cuda: Any, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    allocate, count = cuda._allocated, 0

    def sometimes(name: str, side: str, size: int) -> Any:
        nonlocal count
        count += 1
        if count > nth:
            cuda.failures[name] = cuda.cudaError_t.cudaErrorMemoryAllocation
        return allocate(name, side, size)

    monkeypatch.setattr(cuda, "_allocated", sometimes, raising=False)
    with pytest.raises(DeviceError, match=r"out of memory.*smaller batch_size"):
        open_runner()
    assert count == nth + 1
    assert cuda.memory == {}
    assert cuda.streams == set()


def let_everything_fail(cuda: Any) -> None:
    """An error of the GPU stays: from then on every call fails with it."""
    lost = cuda.cudaError_t.cudaErrorIllegalAddress
    cuda.failures |= dict.fromkeys((*FREES, "cudaMemcpyAsync", "cudaStreamSynchronize"), lost)


def test_a_batch_that_tensorrt_refuses_is_an_error(
    open_runner: Open, fake: FakeRuntime, cuda: Any
) -> None:
    def refuse(stream: int) -> bool:
        error = fake.trt.ILogger.Severity.INTERNAL_ERROR
        fake.library.logger.log(error, "Cask convolution execution")
        return False

    def run() -> None:
        with open_runner() as runner:
            runner.run(noise(SPEC, 2))

    fake.context.answers["execute_async_v3"] = refuse
    with pytest.raises(DeviceError, match=r"cannot compute a batch \(Cask convolution"):
        run()
    assert cuda.memory == {}


def test_a_batch_that_the_gpu_fails_at_is_an_error(open_runner: Open, cuda: Any) -> None:
    with open_runner() as runner:
        cuda.failures["cudaStreamSynchronize"] = cuda.cudaError_t.cudaErrorIllegalAddress
        with pytest.raises(DeviceError, match="computing on the GPU failed"):
            runner.run(noise(SPEC, 2))


def test_what_the_gpu_failed_with_is_said_and_not_that_it_cannot_be_freed(
    open_runner: Open, cuda: Any
) -> None:
    def run_and_fail() -> None:
        with open_runner() as runner:
            let_everything_fail(cuda)
            del cuda.failures["cudaMemcpyAsync"]
            runner.run(noise(SPEC, 2))

    with pytest.raises(DeviceError, match=r"^computing on the GPU failed: cudaErrorIllegalAddress"):
        run_and_fail()
    assert cuda.memory == {}
    assert cuda.streams == set()


def test_ctrl_c_stays_ctrl_c_when_the_gpu_has_failed(open_runner: Open, cuda: Any) -> None:
    def stop() -> None:
        with open_runner():
            let_everything_fail(cuda)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()


def test_an_engine_that_cannot_be_made_says_so_though_nothing_can_be_freed(
    open_runner: Open, fake: FakeRuntime, cuda: Any
) -> None:
    def refuse(name: str, address: int) -> bool:
        let_everything_fail(cuda)
        return False

    fake.context.answers["set_tensor_address"] = refuse
    with pytest.raises(DeviceError, match="no buffer for images"):
        open_runner()
    assert cuda.memory == {}


@pytest.mark.parametrize("name", FREES)
def test_without_another_error_one_in_closing_is_raised(
    open_runner: Open, cuda: Any, name: str
) -> None:
    runner = open_runner()
    cuda.failures[name] = cuda.cudaError_t.cudaErrorIllegalAddress
    with pytest.raises(DeviceError, match="failed: cudaErrorIllegalAddress"):
        runner.close()


@pytest.fixture
def journal(fake: FakeRuntime, cuda: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is waited for, given up and freed, in order; the runner alone holds its context."""
    steps: list[str] = []

    def new_context(*_: Any) -> Any:
        context = fake.doll(fake.trt.IExecutionContext, **fake.context.answers)
        weakref.finalize(context, steps.append, "context")
        return context

    def trace(name: str) -> None:
        real = getattr(cuda, name)

        def traced(*given: Any) -> Any:
            steps.append(name)
            return real(*given)

        monkeypatch.setattr(cuda, name, traced, raising=False)

    fake.engine.answers["create_execution_context"] = new_context
    for name in ("cudaStreamSynchronize", "cudaMemcpyAsync", *FREES):
        trace(name)
    return steps


def test_what_the_gpu_still_does_is_waited_for_before_anything_is_given_up(
    open_runner: Open, fake: FakeRuntime, cuda: Any, journal: list[str]
) -> None:
    """With Ctrl-C a batch may be on its way; the memory under it must not go first."""
    runner = open_runner()
    runner._stream.upload(runner._host[0].images, runner._buffers["images"])
    journal.clear()
    runner.close()
    assert journal[:2] == ["cudaStreamSynchronize", "context"]
    assert set(journal[2:-1]) == {"cudaFree", "cudaFreeHost"}
    assert journal[-1] == "cudaStreamDestroy"
    runner.close()
    assert len(journal) == 3 + len(fake.tensors) + 2 * (1 + len(OPTIONS.outputs))


@pytest.mark.parametrize("step", ["cudaMemcpyAsync", "execute_async_v3", "cudaStreamSynchronize"])
@pytest.mark.parametrize("is_captured", [True, False])
def test_after_a_batch_that_failed_nothing_reads_the_staging_memory_any_more(
    open_runner: Open, fake: FakeRuntime, cuda: Any, step: str, is_captured: bool
) -> None:
    """The next batch is written there at once."""
    if not is_captured:
        cuda.failures["cudaStreamBeginCapture"] = cuda.cudaError_t.cudaErrorUnknown
    images = noise(SPEC, 2, seed=3)
    with open_runner() as runner, pytest.MonkeyPatch.context() as patch:
        owner = fake.context.answers if step == "execute_async_v3" else vars(cuda)
        real = owner.get(step) or getattr(cuda, step)
        calls = iter([KeyboardInterrupt])

        def once(*given: Any) -> Any:
            for error in calls:
                raise error
            return real(*given)

        patch.setitem(owner, step, once)
        with suppress(KeyboardInterrupt):  # what is captured is copied and executed by one launch
            runner.run(images)
        assert cuda.pending == [], "the upload may still read"
        np.testing.assert_array_equal(runner.run(images)["fc7"], computed(images, "fc7"))
