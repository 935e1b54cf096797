"""The calls of a runner on a GPU, two at once: the results are those of one call after another."""

import random
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from alexnet_deploy.choices import Device
from alexnet_deploy.errors import DeviceError, PhotographError
from alexnet_deploy.inference.run import RunSummary, run_batches
from alexnet_deploy.photographs.pipeline import Loaded
from alexnet_deploy.runtimes.base import RunnerOptions
from tests.support.fake_runner import FakeRunner
from tests.support.waiting import PATIENCE_S, threads_have_ended, wait_until

SIZE = 224
BREAKING, OVERFLOWING = 255, 254


class SlowRunner(FakeRunner):
    """The red of each image, sooner or later.

    Attributes:
        begun: the first red of each call.
        most: calls at once, so far.
        gate: what a call waits for whose first red is `held` or more.
    """

    def __init__(self, device: Device, batch_size: int) -> None:
        super().__init__(RunnerOptions(batch_size=batch_size, outputs=("fc7",)))
        self.options = RunnerOptions(device=device, batch_size=batch_size, outputs=("fc7",))
        self.begun: list[int] = []
        self.most = self._at_once = 0
        self.gate, self.held = threading.Event(), 256
        self._lock = threading.Lock()

    def run(self, images: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        with self._lock:
            self._at_once += 1
            self.most = max(self.most, self._at_once)
            self.begun.append(int(images[0, 0, 0, 0]))
        try:
            assert images[0, 0, 0, 0] < self.held or self.gate.wait(PATIENCE_S)
            time.sleep(random.random() * 0.002)
            reds = images[:, 0, 0, :1].astype(np.float32)
            if BREAKING in reds:
                raise DeviceError("the GPU has failed")
            return {"fc7": np.where(reds == OVERFLOWING, np.inf, reds).astype(np.float32)}
        finally:
            with self._lock:
                self._at_once -= 1


def load(red: int) -> Loaded:
    time.sleep(random.random() * 0.001)
    if red == 0:
        raise PhotographError("is damaged")
    return Loaded(crop=np.full((SIZE, SIZE, 3), red, np.uint8))


def listed(reds: list[int], error: BaseException | None = None) -> Iterator[int]:
    yield from reds
    if error is not None:
        raise error


Outcome = tuple[list[tuple[int, float | None, str | None]], str, int, int]
"""What came of each photograph, the error at the end, and the counts of the summary."""


def outcome(
    runner: SlowRunner, reds: list[int], *, error: Exception | None, threads: int, num_taken: int
) -> Outcome:
    """Take so many batches at most, then close."""
    results, failure, summary = [], "", RunSummary()
    batches = run_batches(runner, listed(reds, error), load=load, threads=threads, summary=summary)
    try:
        with closing(batches):
            for _, batch in zip(range(num_taken), batches, strict=False):
                for result in batch:
                    red = None if result.outputs is None else float(result.outputs["fc7"][0])
                    results.append((result.source, red, result.error))
    except (DeviceError, OSError) as raised:
        failure = f"{type(raised).__name__}: {raised}"
    assert runner.most <= (2 if runner.options.device == "cuda" else 1)
    waited_s = summary.waiting_s + summary.infer_waiting_s
    assert waited_s <= summary.wall_s + 1e-6 or failure  # the clock stops with each batch
    if runner.options.device == "cpu":
        assert summary.infer_waiting_s == summary.infer_s
    return results, failure, summary.num_done, summary.num_failed


@settings(max_examples=60)
@given(
    reds=st.lists(
        st.one_of(st.integers(0, 253), st.sampled_from([0, OVERFLOWING, BREAKING])), max_size=40
    ),
    batch_size=st.integers(1, 5),
    threads=st.integers(1, 3),
    num_taken=st.one_of(st.just(100), st.integers(0, 8)),
    error=st.sampled_from([None, None, OSError("the list has ended")]),
)
def test_the_results_the_errors_and_their_order_are_those_of_one_call_at_a_time(
    reds: list[int], batch_size: int, threads: int, num_taken: int, error: Exception | None
) -> None:
    expected, actual = (
        outcome(
            SlowRunner(device, batch_size),
            reds,
            error=error,
            threads=threads,
            num_taken=num_taken,
        )
        for device in ("cpu", "cuda")
    )
    assert actual == expected
    wait_until(threads_have_ended)


@pytest.mark.parametrize(("device", "begun"), [("cpu", [1]), ("cuda", [1, 2, 3])])
def test_on_a_gpu_the_next_batches_are_under_way_while_a_result_is_consumed(
    device: Device, begun: list[int]
) -> None:
    runner = SlowRunner(device, 1)
    with closing(run_batches(runner, [1, 2, 3, 4, 5], load=load, threads=1)) as batches:
        next(batches)
        wait_until(lambda: len(runner.begun) >= len(begun))
        time.sleep(0.05)  # time enough for more, if there were any
        assert runner.begun == begun


def test_closing_waits_for_the_calls_under_way_and_begins_no_other() -> None:
    runner = SlowRunner("cuda", 1)
    runner.held = 2
    batches = run_batches(runner, range(1, 50), load=load, threads=1)
    next(batches)
    wait_until(lambda: len(runner.begun) == 3)
    threading.Timer(0.05, runner.gate.set).start()
    batches.close()
    assert runner.gate.is_set()
    assert runner.begun == [1, 2, 3]
    wait_until(threads_have_ended)


def test_ctrl_c_waits_for_the_calls_under_way_and_no_thread_is_left() -> None:
    runner = SlowRunner("cuda", 1)
    runner.held = 1

    def interrupted() -> Iterator[int]:
        yield from (1, 2, 3, 4, 5)  # of which some are loaded ahead
        wait_until(lambda: len(runner.begun) == 2)
        threading.Timer(0.05, runner.gate.set).start()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(run_batches(runner, interrupted(), load=load, threads=1))
    assert runner.gate.is_set()
    assert sorted(runner.begun) == [1, 2]
    wait_until(threads_have_ended)
