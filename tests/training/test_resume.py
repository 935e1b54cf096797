"""A run that is interrupted or killed anywhere, and resumed, ends as one that was not."""

import dataclasses
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.networks import relative_error
from tests.support.training_sets import (
    SMALL_MODERN,
    SMALL_PAPER,
    STEPS_PER_EPOCH,
    VALIDATION_BATCHES,
    Recorder,
    options,
    same_but_for_times,
    signalling,
)
from training import run
from training.checkpointing import BEST_NAME, last_checkpoint, load_state
from training.curves import CURVES_NAME
from training.data import Data, WorkerError
from training.options import TrainOptions
from training.recipes import Recipe
from training.train import train


@pytest.fixture(autouse=True)
def _divided(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    # Stalls count from the start: the paper's rate is divided before the third epoch.
    monkeypatch.setattr(Data, "guessing_error", 1.0)


def train_with_stops(begun: TrainOptions, number: signal.Signals, every: int) -> int:
    """Interrupt a run at each, or each second, ..., place; return how often it was stopped."""
    seen: set[str] = set()
    num_stops = 0

    def stop(place: str) -> None:
        if place not in seen:
            seen.add(place)
            if len(seen) % every == 0:
                os.kill(os.getpid(), number)

    report = train(begun, Recorder(stop))
    while report.signal_number is not None:
        assert report.signal_number == number
        num_stops += 1
        report = train(dataclasses.replace(begun, resume=True), Recorder(stop))
    return num_stops


@pytest.mark.parametrize(
    ("recipe", "memory_bytes", "number", "every"),
    [
        (SMALL_PAPER, 10**9, signal.SIGINT, 1),
        (SMALL_MODERN, 10**9, signal.SIGTERM, 1),
        (SMALL_PAPER, 0, signal.SIGHUP, 3),
        (SMALL_MODERN, 0, signal.SIGINT, 4),
    ],
    ids=["paper", "modern", "paper, from files", "modern, from files"],
)
def test_a_run_interrupted_after_every_step_ends_with_the_same_numbers(
    photographs: Path,
    tmp_path: Path,
    recipe: Recipe,
    memory_bytes: int,
    number: signal.Signals,
    every: int,
) -> None:
    whole = options(photographs, tmp_path / "whole", recipe, memory_bytes=memory_bytes)
    train(whole, Recorder())
    stopped = dataclasses.replace(whole, output=tmp_path / "stopped")
    num_stops = train_with_stops(stopped, number, every)
    num_places = 3 * (STEPS_PER_EPOCH + VALIDATION_BATCHES) + VALIDATION_BATCHES
    # A signal after the last batch of the last validation comes when the run is complete.
    assert num_stops == (num_places - 1) // every
    assert same_but_for_times(whole.output, stopped.output)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine with one core
def test_worker_processes_and_memory_are_free_on_a_resumption(
    photographs: Path, tmp_path: Path
) -> None:
    whole = options(photographs, tmp_path / "whole")
    train(whole, Recorder())
    begun = options(photographs, tmp_path / "begun", memory_bytes=0, num_workers=2)
    train(begun, signalling(signal.SIGINT, after=VALIDATION_BATCHES + 2))
    train(dataclasses.replace(whole, output=begun.output, resume=True), Recorder())
    assert same_but_for_times(whole.output, begun.output)


def test_a_run_goes_on_on_other_devices(photographs: Path, tmp_path: Path) -> None:
    whole = options(photographs, tmp_path / "run", devices="cpu,cpu")
    train(whole, signalling(signal.SIGINT))
    report = train(dataclasses.replace(whole, resume=True, devices="cpu"), Recorder())
    assert report.signal_number is None


@pytest.mark.gpu("torch")
def test_on_a_gpu_a_resumed_run_is_no_further_off_than_sums_in_another_order(
    photographs: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Of which a GPU has several; without the optimizer's memory weights are 0.8 off."""
    whole, again, stopped = (
        options(photographs, tmp_path / name, SMALL_PAPER, devices="cuda:0,cuda:0")
        for name in ("whole", "again", "stopped")
    )
    train(whole, Recorder())
    train(again, Recorder())
    assert train_with_stops(stopped, signal.SIGINT, 4) > 0
    expected, *others = (
        load_state(last).arrays
        for run in (whole, again, stopped)
        if (last := last_checkpoint(run.output))
    )
    run_again, resumed = (
        max(relative_error(each[name], expected[name]) for name in expected) for each in others
    )
    record_property("off", {"run_again": run_again, "resumed": resumed})
    assert resumed <= (1e-3 if run_again else 0)


def test_a_complete_run_draws_its_curves_again_and_says_that_the_best_is_gone(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete = options(photographs, tmp_path / "run")
    train(complete, Recorder())
    (complete.output / BEST_NAME).unlink()
    monkeypatch.setattr(run, "draw_curves", lambda records, path, **_: path.touch())
    reporter = Recorder()
    report = train(dataclasses.replace(complete, resume=True), reporter)
    assert report.best is None
    assert (complete.output / CURVES_NAME).exists()
    assert any(line.startswith("best.pt is gone") for line in reporter.lines)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("all_get_it", [False, True], ids=["worker", "all"])
def test_a_worker_that_ends_takes_no_step_along(
    photographs: Path, tmp_path: Path, all_get_it: bool
) -> None:
    """For lack of memory it alone; at the end of a batch job all processes get the signal."""
    whole = options(photographs, tmp_path / "whole")
    train(whole, Recorder())
    begun = options(photographs, tmp_path / "begun", memory_bytes=0, num_workers=1)

    def end_worker(place: str) -> None:
        if place == "['epoch 2 of 3'], epoch 2 of 3, 4":
            for worker in multiprocessing.active_children():
                worker.terminate()
                worker.join()
            if all_get_it:
                signal.raise_signal(signal.SIGTERM)

    if all_get_it:
        assert train(begun, Recorder(end_worker)).signal_number == signal.SIGTERM
    else:
        with pytest.raises(WorkerError, match="a worker process was killed"):
            train(begun, Recorder(end_worker))
    assert last_checkpoint(begun.output) == begun.output / "step-00000006.pt"
    train(dataclasses.replace(whole, output=begun.output, resume=True), Recorder())
    assert same_but_for_times(whole.output, begun.output)
