"""The folder of a run: what is kept, and what a full disk or a crash cannot take away."""

import dataclasses
import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alexnet_deploy.errors import IncompatibleFileError, OutputError, UsageError
from alexnet_deploy.model.checkpoints import load_checkpoint
from alexnet_deploy.model.spec import preset_spec
from tests.support.full_disk import files_limited_to
from tests.support.training_sets import (
    SMALL_PAPER,
    STEPS_PER_EPOCH,
    VALIDATION_BATCHES,
    Recorder,
    options,
    same_but_for_times,
    signalling,
)
from training.augmentation import ColourComponents
from training.checkpointing import (
    Progress,
    RunState,
    last_checkpoint,
    load_state,
    own_folder,
    save_best,
    save_state,
)
from training.rates import Plateau
from training.train import train

pytestmark = pytest.mark.usefixtures("small")


@pytest.fixture
def state() -> RunState:
    spec = dataclasses.replace(
        preset_spec("paper", num_classes=2, labels=("a", "b")), widths=(2, 2, 2, 2, 2)
    )
    rng = np.random.default_rng(1)
    arrays = {
        name: rng.normal(size=shape).astype(np.float32)
        for name, shape in spec.array_shapes().items()
    }
    return RunState(
        spec=dataclasses.replace(spec, provenance={"seed": 3}),
        arrays=arrays | {"mean_image": rng.normal(size=(3, 224, 224)).astype(np.float32)},
        memory={"conv1.bias": torch.tensor([0.1, -1e-30])},
        components=ColourComponents(vectors=torch.rand(3, 3), stds=torch.rand(3)),
        old_layers=frozenset({"fc6", "conv1"}),
        progress=Progress(
            epoch=2,
            step=17,
            step_in_epoch=5,
            loss_sum=0.1 + 0.2,
            num_right=3,
            best_top1=1 / 3,
            plateau=Plateau(lowest_error=2 / 3, num_stalled_epochs=1, num_divisions=2),
        ),
    )


def at_step(state: RunState, step: int) -> RunState:
    return dataclasses.replace(state, progress=dataclasses.replace(state.progress, step=step))


def test_a_state_comes_back_as_it_was(state: RunState, tmp_path: Path) -> None:
    path = save_state(tmp_path, state, keep=2)
    assert path.name == "step-00000017.pt"
    read = load_state(path)
    assert read.spec == state.spec
    assert read.progress == state.progress
    assert read.old_layers == state.old_layers
    assert {name: array.tobytes() for name, array in read.arrays.items()} == {
        name: array.tobytes() for name, array in state.arrays.items()
    }
    assert read.memory.keys() == state.memory.keys()
    assert torch.equal(read.memory["conv1.bias"], state.memory["conv1.bias"])
    assert torch.equal(read.components.vectors, state.components.vectors)
    assert torch.equal(read.components.stds, state.components.stds)


def test_best_is_a_checkpoint_without_velocity(state: RunState, tmp_path: Path) -> None:
    path = save_best(tmp_path, state)
    assert load_checkpoint(path).spec == state.spec
    assert "memory" not in torch.load(path, weights_only=True)
    with pytest.raises(IncompatibleFileError, match=r"no state of a training run .*, with init$"):
        load_state(path)


@pytest.mark.parametrize("keep", [1, 3])
def test_the_last_checkpoints_are_kept(state: RunState, tmp_path: Path, keep: int) -> None:
    steps = [5, 99_999_998, 99_999_999, 100_000_000, 100_000_001]
    for step in steps:
        path = save_state(tmp_path, at_step(state, step), keep)
        assert last_checkpoint(tmp_path) == path
    assert {path.name for path in tmp_path.glob("*")} == {
        f"step-{step:08d}.pt" for step in steps[-keep:]
    }


def test_other_files_are_no_checkpoints(state: RunState, tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path / "nowhere") is None
    for name in ("step-1.pt", "step-00000002.pt.bak", "best.pt", "step-00000003.onnx"):
        (tmp_path / name).touch()
    assert last_checkpoint(tmp_path) is None
    save_state(tmp_path, state, keep=1)
    assert len(list(tmp_path.iterdir())) == 5


@pytest.mark.parametrize(
    ("part", "content"),
    [
        ("training", {"version": 2}),
        ("training", {"version": 1, "old_layers": [], "progress": '{"epoch": 1}'}),
        ("training", {"version": 1, "old_layers": [], "progress": "{"}),
        ("training", {"version": 1, "old_layers": [], "progress": "[" * 100_000}),
        ("training", {"version": 1, "old_layers": [], "progress": None}),
        ("training", 7),
        ("memory", None),
        ("colour", {"vectors": torch.eye(3)}),
    ],
)
def test_a_state_of_another_version_is_refused(
    state: RunState, tmp_path: Path, part: str, content: Any
) -> None:
    path = save_state(tmp_path, state, keep=1)
    stored = torch.load(path, weights_only=True) | {part: content}
    torch.save({name: value for name, value in stored.items() if value is not None}, path)
    with pytest.raises(IncompatibleFileError, match=r"17\.pt: (holds no state|its prog)"):
        load_state(path)


def test_a_damaged_checkpoint_can_be_moved_away(photographs: Path, tmp_path: Path) -> None:
    whole = options(photographs, tmp_path / "whole", SMALL_PAPER)
    train(whole, Recorder())
    begun = dataclasses.replace(whole, output=tmp_path / "run")
    last = train(begun, signalling(signal.SIGINT, VALIDATION_BATCHES + 2)).checkpoint
    last.write_bytes(last.read_bytes()[:-3000])
    resumed = dataclasses.replace(begun, resume=True)
    with pytest.raises(IncompatibleFileError, match="move it away: resume=True then continues"):
        train(resumed, Recorder())
    last.unlink()
    train(resumed, Recorder())
    assert same_but_for_times(whole.output, begun.output)


def test_a_checkpoint_of_other_classes_is_refused(
    photographs: Path, state: RunState, tmp_path: Path
) -> None:
    begun = options(photographs, tmp_path / "run", SMALL_PAPER)
    train(begun, signalling(signal.SIGINT))
    save_state(begun.output, state, keep=2)
    with pytest.raises(IncompatibleFileError, match=r"17\.pt: is a network with other classes"):
        train(dataclasses.replace(begun, resume=True), Recorder())


@pytest.mark.parametrize("num_steps", [1, STEPS_PER_EPOCH + VALIDATION_BATCHES])
def test_a_full_disk_at_a_checkpoint_loses_no_earlier_one(
    photographs: Path, tmp_path: Path, num_steps: int
) -> None:
    """In mid-epoch, when a signal asks for a checkpoint, and at an epoch's end."""
    whole = options(photographs, tmp_path / "whole", SMALL_PAPER)
    train(whole, Recorder())
    begun = dataclasses.replace(whole, output=tmp_path / "run")
    first = train(begun, signalling(signal.SIGINT, VALIDATION_BATCHES)).checkpoint
    before = first.read_bytes()
    resumed = dataclasses.replace(begun, resume=True)
    # Enough for run.json and the log.
    with files_limited_to(4000), pytest.raises(OutputError, match=r"\.pt: cannot be written"):
        train(resumed, signalling(signal.SIGINT, num_steps))
    assert [path.name for path in begun.output.glob("*.p*")] == [first.name]
    assert first.read_bytes() == before
    train(resumed, Recorder())
    assert same_but_for_times(whole.output, begun.output)


def test_two_processes_do_not_train_in_one_folder(photographs: Path, tmp_path: Path) -> None:
    """A lock of one open file shuts out another, be it of another process or of this one."""
    begun = options(photographs, tmp_path / "run")
    with (
        own_folder(begun.output),
        pytest.raises(OutputError, match="run: another process is training there; wait"),
    ):
        train(begun, Recorder())
    with own_folder(begun.output):
        pass


def test_half_files_of_a_crash_are_removed(tmp_path: Path) -> None:
    half = tmp_path / ".alexnet-deploy-0123456789abcdef.part"
    half.touch()
    (tmp_path / "notes.txt").touch()
    with own_folder(tmp_path):
        assert sorted(os.listdir(tmp_path)) == ["lock", "notes.txt"]


def test_a_folder_that_cannot_be_made_is_an_error(photographs: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    for output in (file, file / "run", Path("/proc/run")):
        with pytest.raises(OutputError, match=f"{output}.* cannot be written"):
            train(options(photographs, output), Recorder())
    assert file.read_text() == "mine"


def test_a_folder_that_holds_a_run_is_gone_on_with_only_when_asked(
    photographs: Path, tmp_path: Path
) -> None:
    begun = options(photographs, tmp_path / "run")
    with pytest.raises(UsageError, match=r"resume=True: .*run holds no checkpoint of a run"):
        train(dataclasses.replace(begun, resume=True), Recorder())
    assert not begun.output.exists()
    train(begun, signalling(signal.SIGINT, VALIDATION_BATCHES + 1))
    with pytest.raises(UsageError, match=r"holds a run already, up to step-00000001\.pt; give res"):
        train(begun, Recorder())


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_anew(
    photographs: Path, tmp_path: Path
) -> None:
    begun = options(photographs, tmp_path / "run", SMALL_PAPER)
    train(begun, signalling(signal.SIGINT, VALIDATION_BATCHES + 1))
    for checkpoint in begun.output.glob("step-*.pt"):
        checkpoint.unlink()  # what is left is what was written before the first
    report = train(begun, Recorder())
    assert [record.epoch for record in report.records] == [0, 1, 2, 3]


def test_a_best_network_without_its_run_is_not_overwritten(
    photographs: Path, tmp_path: Path
) -> None:
    begun = options(photographs, tmp_path / "run")
    begun.output.mkdir()
    best = begun.output / "best.pt"
    best.write_text("precious")
    with pytest.raises(UsageError, match=r"holds the best\.pt of an earlier run"):
        train(begun, Recorder())
    assert best.read_text() == "precious"


def test_a_log_of_something_else_is_not_overwritten(photographs: Path, tmp_path: Path) -> None:
    begun = options(photographs, tmp_path / "run")
    begun.output.mkdir()
    log = begun.output / "log.jsonl"
    log.write_text(json.dumps({"mine": 1}) + "\n")
    with pytest.raises(IncompatibleFileError, match="line 1: damaged"):
        train(begun, Recorder())
    assert log.read_text() == '{"mine": 1}\n'
