"""The trainer saves a step and the best network; see `fault_scenarios`."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from alexnet_deploy.model.checkpoints import load_checkpoint
from alexnet_deploy.model.spec import preset_spec
from tests.support.training_sets import small_network
from training.augmentation import ColourComponents
from training.checkpointing import (
    BEST_NAME,
    Progress,
    RunState,
    last_checkpoint,
    load_state,
    own_folder,
    save_best,
    save_state,
)


class CheckpointScenario:
    """A run at step 1 comes to step 2, and keeps one."""

    def __init__(self) -> None:
        # For the rest of this process.
        small_network(pytest.MonkeyPatch()).__enter__()

    def prepare(self, place: Path) -> None:
        self._save(place, 1)

    def run(self, place: Path) -> None:
        self._save(place, 2)

    def _save(self, place: Path, step: int) -> None:
        state = _state(step)
        with own_folder(place / "run"):
            save_state(place / "run", state, keep=1)
            save_best(place / "run", state)

    def check(self, place: Path) -> None:
        last = last_checkpoint(place / "run")
        assert last is not None, "no step is left"
        _check_same(load_state(last), (1, 2))
        best = load_checkpoint(place / "run" / BEST_NAME)
        assert any(_are_same(best.arrays, _state(step).arrays) for step in (1, 2))

    def check_done(self, place: Path) -> None:
        names = sorted(path.name for path in (place / "run").iterdir())
        assert names == ["best.pt", "lock", "step-00000002.pt"], names
        _check_same(load_state(place / "run" / "step-00000002.pt"), (2,))
        best = load_checkpoint(place / "run" / BEST_NAME)
        assert _are_same(best.arrays, _state(2).arrays)


def _state(step: int) -> RunState:
    spec = dataclasses.replace(preset_spec("paper", num_classes=2), widths=(2, 2, 2, 2, 2))
    rng = np.random.default_rng(step)
    arrays = {
        name: rng.normal(size=shape).astype(np.float32)
        for name, shape in spec.array_shapes().items()
    }
    return RunState(
        spec=spec,
        arrays=arrays,
        memory={"conv1.bias": torch.full((2,), float(step))},
        components=ColourComponents(vectors=torch.eye(3), stds=torch.ones(3)),
        old_layers=frozenset(),
        progress=Progress(step=step),
    )


def _check_same(state: RunState, steps: tuple[int, ...]) -> None:
    assert state.progress.step in steps, state.progress
    expected = _state(state.progress.step)
    assert _are_same(state.arrays, expected.arrays), "other weights"
    assert torch.equal(state.memory["conv1.bias"], expected.memory["conv1.bias"])


def _are_same(arrays: object, others: object) -> bool:
    assert isinstance(arrays, dict)
    assert isinstance(others, dict)
    return arrays.keys() == others.keys() and all(
        np.array_equal(arrays[name], others[name]) for name in arrays
    )
