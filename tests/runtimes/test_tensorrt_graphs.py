"""Batches as CUDA graphs, one for each of the memories that they are staged in."""

from typing import Any

import numpy as np
import pytest

from tests.support.networks import noise
from tests.support.trt_stub.fake_runtime import SPEC, FakeRuntime, Open, computed

pytest.importorskip("cuda.bindings", reason="CUDA's API comes with: pip install cuda-bindings")
pytest_plugins = ["tests.support.trt_stub.fixtures", "tests.support.trt_stub.engine_fixtures"]

ONLY_TENSORRT = pytest.mark.parametrize("library", ["tensorrt"], indirect=True)


@pytest.fixture
def launched(cuda: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Which graphs were launched."""
    graphs: list[int] = []
    launch = cuda.cudaGraphLaunch

    def traced(graph: Any, stream: Any) -> Any:
        graphs.append(int(graph))
        return launch(graph, stream)

    monkeypatch.setattr(cuda, "cudaGraphLaunch", traced, raising=False)
    return graphs


def check_batches(runner: Any, count: int) -> None:
    for seed in range(count):
        images = noise(SPEC, 2, seed=seed)
        np.testing.assert_array_equal(runner.run(images)["fc7"], computed(images, "fc7"))


def test_each_batch_is_one_launch_of_the_graph_of_its_memory(
    open_runner: Open, fake: FakeRuntime, cuda: Any, launched: list[int]
) -> None:
    """TensorRT-RTX captures by itself; TensorRT wants a batch before it, uncaptured."""
    with open_runner() as runner:
        check_batches(runner, 6)
        num_submitted = fake.journal.count("IExecutionContext.execute_async_v3")
        if fake.is_rtx:
            assert (num_submitted, launched) == (6, [])
        else:
            assert num_submitted == 1 + 2
            assert launched == [*launched[:2]] * 3
            assert len(set(launched)) == 2
        assert "CUDA graphs" not in runner.description
    assert cuda.graphs == {}


@ONLY_TENSORRT
def test_before_the_capture_tensorrt_has_computed_a_batch(
    open_runner: Open, cuda: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    for name in ("cudaStreamSynchronize", "cudaStreamBeginCapture"):
        real = getattr(cuda, name)

        def traced(*given: Any, name: str = name, real: Any = real) -> Any:
            steps.append(name)
            return real(*given)

        monkeypatch.setattr(cuda, name, traced, raising=False)
    with open_runner():
        assert steps == ["cudaStreamSynchronize", *["cudaStreamBeginCapture"] * 2]


@ONLY_TENSORRT
@pytest.mark.parametrize("name", ["cudaStreamBeginCapture", "cudaStreamEndCapture"])
def test_without_a_capture_batches_are_computed_and_the_reason_is_said(
    open_runner: Open, cuda: Any, launched: list[int], name: str
) -> None:
    cuda.failures[name] = cuda.cudaError_t.cudaErrorStreamCaptureInvalidated
    with open_runner() as runner:
        assert runner.description.endswith(
            "batch 2, without CUDA graphs (capturing a CUDA graph failed: "
            "cudaErrorStreamCaptureInvalidated (operation failed due to a previous error during "
            "capture))"
        )
        check_batches(runner, 3)
    assert launched == []


@ONLY_TENSORRT
@pytest.mark.parametrize("captured", [0, 1])
def test_what_tensorrt_refuses_to_capture_it_computes_and_says_why(
    open_runner: Open, fake: FakeRuntime, cuda: Any, launched: list[int], captured: int
) -> None:
    execute, calls = fake.context.answers["execute_async_v3"], iter(range(10))

    def refuse_in_capture(stream: int) -> bool:
        if cuda.capturing is None or next(calls) < captured:
            return bool(execute(stream))
        fake.library.logger.log(fake.trt.ILogger.Severity.ERROR, "not capturable")
        return False

    fake.context.answers["execute_async_v3"] = refuse_in_capture
    with open_runner() as runner:
        assert runner.description.endswith(
            "batch 2, without CUDA graphs (TensorRT cannot compute a batch (not capturable))"
        )
        check_batches(runner, 3)
    assert launched == []
    assert cuda.graphs == {}
