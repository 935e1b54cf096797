"""Measuring: which ways there are, that each does its work in turns, and where. No real clock."""

import dataclasses
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from alexnet_deploy.benchmark import measuring, settings
from alexnet_deploy.benchmark.results import Benchmark
from alexnet_deploy.benchmark.settings import Choices, Setting, networks
from alexnet_deploy.errors import (
    AlexNetDeployError,
    ArgumentError,
    DeviceError,
    NoPhotographsError,
    TooManyFailuresError,
)
from alexnet_deploy.export import opening
from alexnet_deploy.runtimes.base import RunnerOptions
from tests.support.fake_runner import FakeRunner, save_photograph
from tests.support.waiting import PATIENCE_S

CHECKPOINT = Path("model.safetensors")
USUAL, ONE_ROUND = Choices(), Choices(num_rounds=1)


class Obedient(FakeRunner):
    """A fake runner that says it runs where it was asked to."""

    def __init__(self, options: RunnerOptions) -> None:
        super().__init__(options)
        self.options = dataclasses.replace(
            self.options, runtime=options.runtime, device=options.device
        )


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A machine that can be told what it has."""
    has = SimpleNamespace(bf16=False, gpu=False)
    for module in ("alexnet_deploy.runtimes.factory", "alexnet_deploy.benchmark.settings"):
        monkeypatch.setattr(f"{module}.is_installed_for_gpu", lambda: has.gpu)
        monkeypatch.setattr(f"{module}.gpus", lambda: ["one"] * has.gpu)
    monkeypatch.setattr("alexnet_deploy.runtimes.openvino_runner.native_bf16", lambda: has.bf16)
    monkeypatch.setattr(
        opening, "open_runner_of", lambda source, options, notify=None: Obedient(options)
    )
    return has


def found(choices: Choices = USUAL, source: Path = CHECKPOINT) -> list[str]:
    """Return the combinations, and what is said of those that are not among them."""
    said: list[str] = []
    options = networks(source, choices, said.append)
    return [f"{one.runtime} {one.device} {one.precision}" for one in options] + said


def test_what_this_machine_has_is_measured_first_what_it_takes_by_itself(
    machine: SimpleNamespace,
) -> None:
    *cpu, left_out = found()
    assert cpu == ["openvino cpu fp32", "onnxruntime cpu fp32"]
    assert left_out.startswith('left out: precision="bf16": this processor')
    machine.bf16 = True
    assert found() == ["openvino cpu fp32", "openvino cpu bf16", "onnxruntime cpu fp32"]
    machine.gpu = True
    assert found()[0] == "onnxruntime cuda fp32"
    assert len(found()) == 5
    assert {one.split()[1] for one in found(Choices(device="cpu"))} == {"cpu"}
    assert found(Choices(runtimes=("openvino",), precisions=("int8",))) == ["openvino cpu int8"]


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"runtimes": ("onnxruntime",), "precisions": ("bf16",)}, "bf16"),
        ({"runtimes": ("openvino",), "precisions": ("bf16",)}, "no instructions"),
        ({"runtimes": ("tensorrt",)}, "engine"),
    ],
)
def test_what_was_chosen_and_does_not_exist_is_an_error(
    machine: SimpleNamespace, chosen: dict[str, Any], message: str
) -> None:
    with pytest.raises(DeviceError, match=message):
        found(Choices(**chosen))


def test_a_file_runs_in_its_own_precision(
    machine: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = SimpleNamespace(precision="int8")
    monkeypatch.setattr(settings, "load_model", lambda path: file)
    assert found(source=Path("m.onnx")) == ["openvino cpu int8", "onnxruntime cpu int8"]
    assert found(source=Path("m.engine")) == ["auto auto auto"]
    with pytest.raises(AlexNetDeployError, match="is int8, precision"):
        found(Choices(precisions=("fp32",)), Path("m.onnx"))


def nothing(setting: Setting, listed: Path, output: Path) -> list[str]:
    return [sys.executable, "-c", ""]


@pytest.fixture
def photographs(tmp_path: Path) -> list[Path]:
    return [save_photograph(tmp_path / f"{n}.png", (n, 9, 9)) for n in range(10)]


@pytest.fixture
def measured(machine: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Benchmark]:
    """Measure with a clock by which every piece of work takes a second."""

    def seconds_of(work: Callable[[], object]) -> float:
        work()
        return 1.0

    def measure(photographs: Sequence[Path], **changed: Any) -> Benchmark:
        arguments: dict[str, Any] = {"choices": ONE_ROUND, "new_process": nothing}
        return measuring.bench(CHECKPOINT, photographs, **arguments | changed)

    monkeypatch.setattr(measuring, "seconds_of", seconds_of)
    return measure


def test_every_piece_is_timed_in_every_round(
    measured: Callable[..., Benchmark], photographs: list[Path]
) -> None:
    """Each takes a second, so decoding and the network together should take two."""
    said: list[str] = []
    choices = Choices(batch_sizes=(1, 32), scales=("scaled", "exact"), num_rounds=2)
    result = measured(photographs, choices=choices, notify=said.append)
    assert len({str(row.setting) for row in result.rows}) == len(result.rows) == 2 * 2 * 2
    for row in result.rows:
        assert (row.decoding.median, row.network.median, row.bound.median) == (10, 10, 5)
        assert (row.whole.median, row.process.median, row.share.median) == (10, 10, 2)
    assert str(result.rows[0].setting) == "openvino cpu fp32, batch 32, exact"
    usual = [row.agreement for row in result.rows[:2]]
    assert usual == [None, None]
    assert all(row.agreement and row.agreement.is_admitted for row in result.rows[2:])
    assert said == ["round 1 of 2", "round 2 of 2"]
    assert result.median_size == (40, 30)


def test_of_many_photographs_some_at_equal_distances_are_taken(
    measured: Callable[..., Benchmark], photographs: list[Path]
) -> None:
    seen: list[Path] = []
    result = measured(
        photographs,
        choices=Choices(num_photographs=3, num_rounds=1),
        on_photograph=lambda path, error: seen.append(path),
    )
    assert seen == [photographs[0], photographs[3], photographs[6]]
    assert result.num_photographs == 3


def test_photographs_that_cannot_be_read_are_counted_and_in_no_figure(
    measured: Callable[..., Benchmark], photographs: list[Path]
) -> None:
    photographs[4].write_bytes(b"bad")
    failed: list[tuple[Path, bool]] = []
    result = measured(photographs, on_photograph=lambda path, e: failed.append((path, bool(e))))
    assert failed == [(path, path == photographs[4]) for path in photographs]
    assert (result.num_photographs, result.num_failed) == (9, 1)
    assert result.rows[0].decoding.median == 9
    with pytest.raises(TooManyFailuresError):
        measured(photographs[4:5])
    with pytest.raises(NoPhotographsError):
        measured([])


def test_large_photographs_are_also_decoded_scaled(
    measured: Callable[..., Benchmark], tmp_path: Path
) -> None:
    path = tmp_path / "large.jpg"
    Image.new("RGB", (1200, 1024)).save(path)
    scales = [row.setting.decode.scale for row in measured([path]).rows]
    assert scales == ["exact", "exact", "scaled", "scaled"]


def test_no_figure_of_a_gpu_is_given_for_work_that_ran_on_the_cpu(
    measured: Callable[..., Benchmark],
    machine: SimpleNamespace,
    photographs: list[Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine.gpu = True
    monkeypatch.setattr(
        opening, "open_runner_of", lambda source, options, notify=None: FakeRunner(options)
    )
    with pytest.raises(DeviceError, match="runs on cpu, and was to be measured on cuda"):
        measured(photographs)


def test_on_a_gpu_the_network_alone_has_two_calls_under_way_as_a_run_has(
    measured: Callable[..., Benchmark],
    machine: SimpleNamespace,
    photographs: list[Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    both, places = threading.Barrier(2), list[int]()

    class Paired(Obedient):
        def run(self, images: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
            if threading.current_thread().name.startswith("network"):
                places.append(both.wait(PATIENCE_S))
            return super().run(images)

    machine.gpu = True
    monkeypatch.setattr(
        opening, "open_runner_of", lambda source, options, notify=None: Paired(options)
    )
    measured(photographs, choices=Choices(device="cuda", batch_sizes=(5,), num_rounds=1))
    assert set(places) == {0, 1}


def test_a_new_process_that_fails_is_an_error(
    measured: Callable[..., Benchmark], photographs: list[Path]
) -> None:
    def failing(setting: Setting, listed: Path, output: Path) -> list[str]:
        assert listed.read_bytes().count(b"\0") == len(photographs)
        return [sys.executable, "-c", "import sys; sys.exit('Error: no')"]

    with pytest.raises(AlexNetDeployError, match=r"ended with 1 \(Error: no\)"):
        measured(photographs, new_process=failing)


@pytest.mark.parametrize("name", ["num_photographs", "num_rounds"])
def test_numbers_are_checked(name: str) -> None:
    arguments: dict[str, Any] = {name: 0}
    with pytest.raises(ArgumentError, match=name):
        Choices(**arguments)
