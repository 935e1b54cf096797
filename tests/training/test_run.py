"""An epoch after the other: what is logged, what is kept, and what ends a run."""

import dataclasses
import json
import math
import shutil
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alexnet_deploy.errors import DatasetError, OutputError
from alexnet_deploy.model.checkpoints import load_checkpoint
from alexnet_deploy.model.reference import Reference
from alexnet_deploy.photographs.decoding import load_photograph
from alexnet_deploy.photographs.preprocessing import preprocess
from tests.support.training_sets import (
    COLOURS,
    SMALL_MODERN,
    SMALL_PAPER,
    STEPS_PER_EPOCH,
    VALIDATION_BATCHES,
    Recorder,
    numbers,
    options,
    signalling,
    small_network,
    spoil,
)
from training.curves import draw_curves
from training.data import find_data
from training.epoch_log import read_log
from training.optimizers import AdamW
from training.options import TrainOptions
from training.photographs import PhotographBatch
from training.recipes import Recipe
from training.train import train
from training.trainer import DivergedError, Trainer, Validation

pytestmark = pytest.mark.usefixtures("small")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_log_has_a_line_for_each_epoch_and_one_for_the_beginning(
    photographs: Path, tmp_path: Path
) -> None:
    begun = options(photographs, tmp_path / "run")
    report = train(begun, Recorder())
    records = read_log(begun.output / "log.jsonl")
    assert records == report.records
    assert [record.epoch for record in records] == [0, 1, 2, 3]
    assert [record.step for record in records] == [0, 5, 10, 15]
    assert records[0].train_loss is records[0].images_per_second is None
    for record in records[1:]:
        assert record.train_loss is not None
        assert record.images_per_second is not None
        assert 0 < record.images_per_second < 1e6
        # The epoch's own share cannot have taken longer than all of it.
        assert record.wall_s >= STEPS_PER_EPOCH * 4 / record.images_per_second
    assert report.step == 15
    assert report.signal_number is None


def test_curves_are_drawn_in_each_epoch(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.run.draw_curves", draw_curves)
    begun = options(photographs, tmp_path / "run", SMALL_MODERN.with_options({"num_epochs": 1}))
    train(begun, Recorder())
    assert (begun.output / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("recipe", [SMALL_PAPER, SMALL_MODERN], ids=["paper", "modern"])
def test_a_network_without_a_step_guesses(
    photographs: Path, tmp_path: Path, recipe: Recipe
) -> None:
    """Small first outputs, as the real network has them, and ln K is what they come to."""
    small = {"fc8": 1e-4}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.initialization._FC_STD", small)
        reporter = signalling(signal.SIGINT, VALIDATION_BATCHES)
        report = train(options(photographs, tmp_path / "run", recipe), reporter)
    assert report.records[0].val_loss == pytest.approx(math.log(3), abs=0.01)
    assert "guessing has ln 3 = 1.099" in reporter.lines[-1]


def test_best_is_the_network_of_the_first_best_epoch(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter([0.9, 0.2, 0.5, 0.5, 0.4])

    def validate(trainer: Trainer, batches: Iterable[PhotographBatch], step: int) -> Validation:
        return Validation(loss=1.0, top1=next(found), top5=1.0, mean_class_top1=0.5)

    monkeypatch.setattr(Trainer, "validate", validate)
    recipe = SMALL_MODERN.with_options({"num_epochs": 4})
    begun = options(photographs, tmp_path / "run", recipe, keep=10)
    report = train(begun, Recorder())
    assert [record.epoch for record in report.records if record.best] == [1, 2]
    assert report.best is not None
    saved = load_checkpoint(report.best)
    expected = load_checkpoint(begun.output / f"step-{2 * STEPS_PER_EPOCH:08d}.pt")
    assert saved.identity == expected.identity
    assert saved.spec == expected.spec


@pytest.mark.parametrize("recipe", [SMALL_PAPER, SMALL_MODERN], ids=["paper", "modern"])
def test_the_package_finds_in_the_best_network_what_the_log_says(
    photographs: Path, tmp_path: Path, recipe: Recipe
) -> None:
    begun = options(photographs, tmp_path / "run", recipe)
    report = train(begun, Recorder())
    assert report.best is not None
    checkpoint = load_checkpoint(report.best)
    held_out = find_data(begun).validation
    assert held_out is not None
    paths = [held_out.path(index) for index in range(len(held_out))]
    crops = np.stack([preprocess(load_photograph(path), checkpoint.spec) for path in paths])
    logits = Reference(checkpoint, np.float64).run(crops, "logits")["logits"]
    log_sum = np.log(np.exp(logits).sum(axis=1))
    losses = log_sum - logits[np.arange(len(logits)), held_out.labels]
    record = next(record for record in reversed(report.records) if record.best)
    # float32 on the trainer's side: some 1e-7 a layer.
    assert record.val_loss == pytest.approx(losses.mean(), rel=1e-5)
    assert record.val_top1 == (logits.argmax(axis=1) == held_out.labels).mean()
    assert checkpoint.spec.labels == tuple(COLOURS)
    found = checkpoint.spec.provenance["validation"]
    assert (found["loss"], found["top1"]) == (record.val_loss, record.val_top1)
    assert checkpoint.spec.provenance["recipe"] == dataclasses.asdict(recipe)


def test_without_validation_there_is_no_best(photographs: Path, tmp_path: Path) -> None:
    begun = options(photographs, tmp_path / "run", hold_out=0)
    reporter = Recorder()
    report = train(begun, reporter)
    assert report.best is None
    assert names(begun.output) == {
        *("lock", "log.jsonl", "run.json", "step-00000014.pt", "step-00000021.pt")
    }
    assert {record.val_loss for record in report.records} == {None}
    assert "validation" not in " ".join(reporter.lines + reporter.titles)


def test_every_count_that_begins_ends(photographs: Path, tmp_path: Path) -> None:
    reporter = Recorder()
    train(options(photographs, tmp_path / "run"), reporter)
    assert reporter.num_open == 0
    stopped = signalling(signal.SIGINT, VALIDATION_BATCHES + 1)
    train(options(photographs, tmp_path / "stopped"), stopped)
    assert stopped.num_open == 0
    diverging = Recorder()
    with pytest.raises(DivergedError):
        train(options(photographs, tmp_path / "diverged", too_fast()), diverging)
    assert diverging.num_open == 0


# What cannot be read.


@pytest.mark.parametrize("memory_bytes", [10**9, 0], ids=["memory", "files"])
def test_unreadable_photographs_are_skipped_counted_and_listed(
    own: Path, tmp_path: Path, memory_bytes: int
) -> None:
    begun = options(own, tmp_path / "run", memory_bytes=memory_bytes)
    found = find_data(begun)
    assert found.validation is not None
    bad = {spoil(found.training.path(3)), spoil(found.validation.path(2))}
    bad.add(spoil(found.training.path(11)))
    reporter = Recorder()
    report = train(begun, reporter)
    assert set(reporter.failures) == bad
    # In files, one of the two may be among those that an epoch leaves out.
    for record in report.records[1:]:
        assert record.num_skipped in ({3} if memory_bytes else {2, 3})
    assert report.records[0].num_skipped == (3 if memory_bytes else 1)
    assert f"; {report.records[-1].num_skipped} skipped" in reporter.lines[-1]
    listed = [
        json.loads(line) for line in (begun.output / "skipped.jsonl").read_text().splitlines()
    ]
    assert {Path(one["path"]) for one in listed} == bad
    assert len(listed) == 3
    assert all(one["reason"] for one in listed)


def test_a_batch_without_a_readable_photograph_is_no_step_of_the_weights(
    own: Path, tmp_path: Path
) -> None:
    recipe = SMALL_MODERN.with_options({"batch_size": 1, "num_epochs": 1, "learning_rate": 1e-5})
    begun = options(own, tmp_path / "run", recipe, memory_bytes=0)
    spoil(find_data(begun).training.path(0))
    report = train(begun, Recorder())
    assert report.step == 21
    assert report.records[1].num_skipped == 1


def test_an_epoch_without_a_readable_photograph_is_an_error(own: Path, tmp_path: Path) -> None:
    begun = options(own, tmp_path / "run", SMALL_MODERN, memory_bytes=0, hold_out=0)

    def spoil_all(place: str) -> None:
        for path in own.glob("*/*.jpg"):
            spoil(path)

    with pytest.raises(DatasetError, match="none of its photographs could be read in epoch 2"):
        train(begun, Recorder(spoil_all))
    assert [record.epoch for record in read_log(begun.output / "log.jsonl")] == [0, 1]


def test_a_picture_that_cannot_be_drawn_costs_no_checkpoint(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **named: object) -> None:
        raise OutputError("curves.png: cannot be written")

    begun = options(photographs, tmp_path / "run")
    monkeypatch.setattr("training.run.draw_curves", fail)
    with pytest.raises(OutputError, match=r"curves\.png"):
        train(begun, Recorder())
    monkeypatch.undo()
    assert (begun.output / "step-00000000.pt").exists()


def test_a_checkpoint_is_written_now_and_then_in_the_middle_of_an_epoch(
    photographs: Path, tmp_path: Path
) -> None:
    whole = options(photographs, tmp_path / "whole", save_minutes=1e-9, keep=99)
    train(whole, Recorder())
    assert len(list(whole.output.glob("step-*.pt"))) == 1 + 15  # one before the first step
    killed = shutil.copytree(whole.output, tmp_path / "killed")
    for step in range(8, 16):
        (killed / f"step-{step:08d}.pt").unlink()
    train(dataclasses.replace(whole, output=killed, resume=True), Recorder())
    assert numbers(killed) == numbers(whole.output)
    assert [record.epoch for record in read_log(killed / "log.jsonl")] == [0, 1, 2, 3]


# What diverges.


def too_fast() -> Recipe:
    return SMALL_MODERN.with_options({"learning_rate": 1e9, "warm_up_epochs": 0})


def test_a_loss_that_explodes_ends_the_run_and_leaves_the_last_checkpoint(
    photographs: Path, tmp_path: Path
) -> None:
    begun = options(photographs, tmp_path / "run", too_fast())
    message = r"step 1: the loss is \S+ at learning rate \S+, expected .*\.learning_rate=1\d+\.0,"
    with pytest.raises(DivergedError, match=message):
        train(begun, Recorder())
    load_checkpoint(begun.output / "step-00000000.pt")
    assert [record.epoch for record in read_log(begun.output / "log.jsonl")] == [0]


def poisoning(
    at_step: int, poison: Callable[[AdamW], torch.Tensor], value: float
) -> Callable[[AdamW], None]:
    """Return a step of the optimizer after which one number is no longer finite."""
    take_step = AdamW.step
    count = 0

    def step(optimizer: AdamW) -> None:
        nonlocal count
        take_step(optimizer)
        count += 1
        if count == at_step:
            with torch.no_grad():
                poison(optimizer)[0, 0, 0, 0] = value

    return step


def a_weight(optimizer: AdamW) -> torch.Tensor:
    weight: torch.Tensor = optimizer.param_groups[0]["params"][0]
    return weight


def a_mean_gradient(optimizer: AdamW) -> torch.Tensor:
    velocity: torch.Tensor = optimizer.state[a_weight(optimizer)]["exp_avg"]
    return velocity


@pytest.mark.parametrize(
    ("fields", "poison", "message"),
    [
        ({}, a_weight, "^validation after 10 steps: the loss is nan"),
        ({"hold_out": 0}, a_weight, r"^step 13: conv1\.weight is no longer finite"),
        ({}, a_mean_gradient, r"^step 9: the optimizer's exp_avg\.conv1\.weight is"),
    ],
    ids=["before validation", "without validation", "memory"],
)
def test_what_is_not_finite_at_the_end_of_an_epoch_is_never_saved(
    photographs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fields: dict[str, Any],
    poison: Callable[[AdamW], torch.Tensor],
    message: str,
) -> None:
    """In the last step of the second epoch: of 5 steps, or of 7 where none are held out."""
    begun = options(photographs, tmp_path / "run", **fields)
    last = 14 if fields else 10
    monkeypatch.setattr(AdamW, "step", poisoning(last, poison, math.nan))
    with pytest.raises(DivergedError, match=message):
        train(begun, Recorder())
    assert sorted(path.name for path in begun.output.glob("step-*")) == [
        *("step-00000000.pt", f"step-{last // 2:08d}.pt")
    ]
    assert [record.epoch for record in read_log(begun.output / "log.jsonl")] == [0, 1]
    monkeypatch.undo()
    with small_network(monkeypatch):
        report = train(dataclasses.replace(begun, resume=True), Recorder())
    assert report.signal_number is None


def test_what_is_not_finite_is_not_saved_at_a_signal_either(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = options(photographs, tmp_path / "run", keep=1)
    monkeypatch.setattr(AdamW, "step", poisoning(2, a_weight, math.inf))
    with pytest.raises(DivergedError, match=r"step 1: conv1\.weight is no longer finite"):
        train(begun, signalling(signal.SIGTERM, VALIDATION_BATCHES + 2))
    assert [path.name for path in begun.output.glob("step-*")] == ["step-00000000.pt"]


def test_a_wish_to_stop_in_the_last_epochs_end_changes_nothing(
    photographs: Path, tmp_path: Path
) -> None:
    begun: TrainOptions = options(photographs, tmp_path / "run")
    places = 3 * (STEPS_PER_EPOCH + VALIDATION_BATCHES) + VALIDATION_BATCHES
    report = train(begun, signalling(signal.SIGINT, places))
    assert report.signal_number is None
    assert report.records[-1].epoch == 3
