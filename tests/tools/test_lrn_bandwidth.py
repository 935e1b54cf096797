"""tools/lrn_bandwidth.py without a GPU: what is timed when, and what becomes of it.

CUDA graphs, events and the kernel's launch are made up; their place takes torch on the CPU.
"""

import functools
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import lrn_bandwidth
import pytest
import torch
from gpu_checks import torch_clock
from gpu_checks.torch_clock import gpu_seconds
from lrn_bandwidth import FORMS, LAYERS, ROUNDS, by_torch, measure

from alexnet_deploy.errors import AlexNetDeployError
from alexnet_deploy.trt.kernel import TowerLrnKernel

BATCH = 1
ERROR = 3e-4
"""Less than float16 may be off, more than float32."""


class Captured:
    """Stands in for a CUDA graph: does the work once, and says how long it takes.

    Attributes:
        calls: names of what was timed; shared by all.
        names: of those that were made, the copy and those of one kernel.
        seconds_of: a call, by name.
    """

    calls: list[str]
    names: list[str]
    seconds_of: dict[str, float]

    def __init__(self, operation: Callable[[Any], Any], inputs: list[Any], calls: int) -> None:
        self.name = ("copy", *FORMS)[len(self.names)]
        self.names.append(self.name)
        for x in inputs:
            if x.dtype == torch.float32:  # torch has not all for float16 on a CPU
                operation(x)

    def seconds(self) -> float:
        self.calls.append(self.name)
        return self.seconds_of[self.name]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let it find a GPU; return what is timed, in that order."""
    taken: list[str] = []
    monkeypatch.setattr(Captured, "calls", taken, raising=False)
    copy_s = 2 * lrn_bandwidth.COPY_BYTES / 4e12
    times = {"copy": copy_s, "kernel": 1e-4, "torch": 1e-3, "banded": 5e-4}
    monkeypatch.setattr(Captured, "seconds_of", times, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA Pretence")
    monkeypatch.setattr(lrn_bandwidth, "_called", lambda *_: 13000)
    monkeypatch.setattr(lrn_bandwidth, "_Captured", Captured)
    monkeypatch.setattr(lrn_bandwidth, "WARM_UP_S", 1e-3)
    monkeypatch.setattr(lrn_bandwidth, "_captured_copy", captured_copy)
    monkeypatch.setattr(lrn_bandwidth, "_activations", activations)
    monkeypatch.setattr(lrn_bandwidth, "_launcher", functools.partial(launcher, 0.0))
    banded = lrn_bandwidth.banded
    monkeypatch.setattr(lrn_bandwidth, "banded", lambda kernel, device: banded(kernel, "cpu"))
    return taken


def captured_copy() -> Captured:
    Captured.names = []
    return Captured(lambda x: x, [], 2)


def activations(kernel: TowerLrnKernel, batch: int) -> torch.Tensor:
    del Captured.names[1:]
    dtype = torch.float16 if kernel.scalar == "half" else torch.float32
    return torch.full((batch, kernel.channels, kernel.height, kernel.width), 3.0, dtype=dtype)


def launcher(error: float, kernel: TowerLrnKernel) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: (by_torch(kernel, x.double()) * (1 + error)).to(x.dtype)


def test_the_copy_takes_turns_with_the_forms_on_a_gpu_that_was_busy(calls: list[str]) -> None:
    result = measure(BATCH)
    cases = list(split_at_warm_up(calls))
    assert len(cases) == 12
    turn = ["copy", *FORMS]
    for case in cases:
        expected = [name for n in range(ROUNDS) for name in (turn[::-1] if n % 2 else turn)]
        assert case == expected
    assert result["copy_gb_per_s"] == {"lowest": 4000, "median": 4000, "highest": 4000}
    rows = result["rows"]
    assert [row["form"] for row in rows] == 12 * list(FORMS)
    assert {(row["layer"], row["scalar"], row["layout"], row["fused"]) for row in rows} == {
        (layer, *kind, fused)
        for layer in LAYERS
        for kind in (("float", "linear"), ("half", "linear"), ("half", "hwc8"))
        for fused in (True, False)
    }
    assert [row["form"] for row in rows if "max_error" in row] == 12 * ["kernel"]
    (first,) = (
        row
        for row in rows
        if (row["layer"], row["scalar"], row["layout"], row["fused"], row["form"])
        == ("conv1", "half", "hwc8", True, "kernel")
    )
    floor_s = 2 * 96 * (55 * 55 + 27 * 27) / 4e12
    assert first["share_of_copy"] == pytest.approx(floor_s / 1e-4, abs=5e-4)
    assert first["microseconds"] == 100


def split_at_warm_up(calls: list[str]) -> Iterator[list[str]]:
    """Leave out the copies before each case, of which there is at least one, and one round's."""
    rest = list(calls)
    while rest:
        copies = next(n for n, name in enumerate(rest) if name != "copy")
        assert copies >= 2, "it was busy before"
        rest = rest[copies - 1 :]
        length = ROUNDS * (1 + len(FORMS))
        yield rest[:length]
        rest = rest[length:]


def test_the_table_shows_each_row(calls: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    lrn_bandwidth._print(measure(BATCH))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "NVIDIA Pretence, batch 1, copy 4000.0 to 4000.0, median 4000.0 GB/s"
    assert len(lines) == 2 + 12 * len(FORMS)


def test_a_kernel_that_computes_something_else_is_not_timed(
    calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lrn_bandwidth, "_launcher", functools.partial(launcher, ERROR))
    with pytest.raises(AlexNetDeployError, match=r"float64 by 3\.00e-04"):
        measure(BATCH)
    assert calls == []


def test_a_launch_is_hidden_behind_the_same_work_before(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    class Mark:
        def __init__(self, name: str) -> None:
            self.name = name

        def record(self) -> None:
            done.append(f"record {self.name}")

        def synchronize(self) -> None:
            done.append(f"wait for {self.name}")

        def elapsed_time(self, other: "Mark") -> float:
            assert (self.name, other.name) == ("start", "end")
            return 2.0

    marks = iter([Mark("start"), Mark("end")])
    monkeypatch.setattr(torch_clock, "_mark", lambda: next(marks))
    assert gpu_seconds(lambda: done.append("work")) == 0.002
    assert done == ["work", "record start", "work", "record end", "wait for end"]


def test_a_kernel_of_hwc8_is_given_channels_last_and_writes_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    launched: list[tuple[Any, ...]] = []
    written: list[torch.Tensor] = []
    empty, randn = torch.empty, torch.randn

    def called(function: Any, *arguments: Any) -> None:
        launched.append((function, *arguments))

    def kept(*size: Any, **options: Any) -> torch.Tensor:
        written.append(empty(*size, **options))
        return written[-1]

    monkeypatch.setattr(torch, "randn", lambda shape, device: randn(shape))
    monkeypatch.setattr(torch, "empty", kept)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    stream = SimpleNamespace(synchronize=lambda: None, cuda_stream=0)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    monkeypatch.setattr(lrn_bandwidth, "_called", called)
    for layout, is_last in (("linear", False), ("hwc8", True)):
        kernel = lrn_bandwidth._kernel("conv2", "half", layout, fused=True)
        x = lrn_bandwidth._activations(kernel, 2)
        y = lrn_bandwidth._launcher(kernel)(x)
        assert y.shape == (2, 256, 13, 13)
        for tensor in (x, y):
            assert tensor.is_contiguous(memory_format=torch.channels_last) is is_last
        (pointers, _) = launched[-1][-2]
        assert pointers == (x.data_ptr(), written[-1].data_ptr())
        assert launched[-1][2:8] == (2 * kernel.blocks_per_image, 1, 1, kernel.threads, 1, 1)
