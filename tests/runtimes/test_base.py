"""What all runners have from their base: parts of large batches on a CPU, and calls in turns."""

import threading
from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from alexnet_deploy.choices import Device
from alexnet_deploy.errors import ClosedError
from alexnet_deploy.runtimes.base import BaseRunner, RunnerOptions
from tests.support.fake_runner import SPEC
from tests.support.waiting import PATIENCE_S, wait_until


class RedRunner(BaseRunner):
    """The red of each image; a signal arrives during the native call number `interrupted`."""

    def __init__(self, device: Device, interrupted: int | None = None) -> None:
        options = RunnerOptions(device=device, batch_size=100, outputs=("red",))
        super().__init__(SPEC, "0123456789abcdef", options, "red")
        self.calls: list[int] = []
        self.interrupted = interrupted

    def _compute(self, images: NDArray[np.uint8], slot: int) -> Mapping[str, NDArray[np.float32]]:
        self.calls.append(len(images))
        if len(self.calls) == self.interrupted:
            raise KeyboardInterrupt
        return {"red": images[:, 0, 0, :1].astype(np.float32)}

    def _free(self) -> None: ...


def numbered(count: int) -> NDArray[np.uint8]:
    images = np.zeros((count, SPEC.input_size, SPEC.input_size, 3), np.uint8)
    images[:, 0, 0, 0] = range(count)
    return images


@pytest.mark.parametrize(
    ("device", "count", "calls"),
    [
        ("cpu", 32, [32]),
        ("cpu", 33, [32, 1]),
        ("cpu", 100, [32, 32, 32, 4]),
        ("cuda", 100, [100]),
    ],
)
def test_a_large_batch_on_a_cpu_is_computed_in_parts_and_in_order(
    device: Device, count: int, calls: list[int]
) -> None:
    runner = RedRunner(device)
    assert runner.run(numbered(count))["red"][:, 0].tolist() == list(range(count))
    assert runner.calls == calls


def test_an_interrupted_batch_ends_after_the_part_at_hand_and_leaves_a_runner_that_runs() -> None:
    runner = RedRunner("cpu", interrupted=2)
    with pytest.raises(KeyboardInterrupt):
        runner.run(numbered(100))
    assert runner.calls == [32, 32]
    assert runner.run(numbered(2))["red"].tolist() == [[0], [1]]
    runner.close()


class HeldRunner(BaseRunner):
    """Each call waits for the gate, and keeps what happens."""

    def __init__(self, num_slots: int) -> None:
        options = RunnerOptions(device="cuda", outputs=("red",))
        super().__init__(SPEC, "0123456789abcdef", options, "held", num_slots=num_slots)
        self.gate = threading.Event()
        self.steps: list[str] = []

    def _compute(self, images: NDArray[np.uint8], slot: int) -> Mapping[str, NDArray[np.float32]]:
        self.steps.append(f"slot {slot}")
        assert self.gate.wait(PATIENCE_S)
        self.steps.append("computed")
        return {}

    def _free(self) -> None:
        self.steps.append("freed")


@pytest.mark.parametrize("num_slots", [1, 2])
def test_as_many_calls_are_under_way_as_there_are_slots_and_closing_waits_for_them(
    num_slots: int,
) -> None:
    runner, refused = HeldRunner(num_slots), []

    def call() -> None:
        try:
            runner.run(numbered(1))
        except ClosedError:
            refused.append("closed")

    callers = [threading.Thread(target=call) for _ in range(4)]
    closer = threading.Thread(target=runner.close)
    for thread in callers:
        thread.start()
    wait_until(lambda: len(runner.steps) == num_slots)
    assert sorted(runner.steps) == [f"slot {n}" for n in range(num_slots)]
    closer.start()
    runner.gate.set()
    for thread in (*callers, closer):
        thread.join(PATIENCE_S)
    assert runner.steps.count("freed") == 1
    assert runner.steps[-1] == "freed"
    assert runner.steps.count("computed") + len(refused) == 4
    with pytest.raises(ClosedError):
        runner.run(numbered(1))
