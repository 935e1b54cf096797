"""The folder of a run: checkpoints that a run continues from, and the best network so far.

    run.json            what was asked for: data, recipe, seed
    log.jsonl           one line an epoch;  curves.png draws it
    step-00001090.pt    the network as the package reads it, with what a run needs to go on
    best.pt             the network with the lowest validation error, without the latter
    skipped.jsonl       photographs that could not be read
    lock                held by the process that trains there

Each file appears under a temporary name and is renamed when it is whole, and the one before is
deleted after that: whatever happens, the last good checkpoint is there. A `.pt` holds one
network, not two towers, so a run goes on on other devices than it began on.
"""

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray

from alexnet_deploy.errors import Argument, IncompatibleFileError, Message, OutputError
from alexnet_deploy.files.locks import locked
from alexnet_deploy.files.output_files import errors_of, sync_directory
from alexnet_deploy.files.records import Within, read_record
from alexnet_deploy.model.checkpoints import load_checkpoint
from alexnet_deploy.model.spec import ModelSpec
from alexnet_deploy.model.torch_files import write_pt
from training.augmentation import ColourComponents
from training.rates import Plateau

BEST_NAME = "best.pt"
_STATE_VERSION = 1
_ANEW = Message("begin a new run from its weights, with ", Argument("init"))
_Count = Annotated[int, Within(0)]
_STEP_NAME = re.compile(r"step-(\d{8,})\.pt")


@dataclass(slots=True, kw_only=True)
class Progress:
    """Where a run is. Sums are those of the epoch under way.

    Attributes:
        epoch: epochs that are over.
        step: steps taken.
        step_in_epoch: of them, in the epoch under way.
        loss_sum, num_right, num_photographs: of the epoch's steps so far.
        num_skipped: photographs of the epoch that could not be read.
        epoch_s: seconds that the epoch's steps took.
        best_top1: highest validation top-1 so far, or -1.
        plateau: of the rate.
    """

    epoch: _Count = 0
    step: _Count = 0
    step_in_epoch: _Count = 0
    loss_sum: float = 0.0
    num_right: _Count = 0
    num_photographs: _Count = 0
    num_skipped: _Count = 0
    epoch_s: Annotated[float, Within(0)] = 0.0
    best_top1: Annotated[float, Within(-1, 1)] = -1.0
    plateau: Plateau = field(default_factory=Plateau)

    def begin_epoch(self) -> None:
        """Count the epoch that is over, and set the sums to 0."""
        self.epoch += 1
        self.step_in_epoch = self.num_right = self.num_photographs = self.num_skipped = 0
        self.loss_sum = self.epoch_s = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """All that a run needs to go on.

    Attributes:
        spec: of the network, with what it was trained on.
        arrays: the package's: weights in their form for use, `mean_image` if there is one.
        memory: of the optimiser, see `optimizers.memory_of`.
        components: of the training pixels' colours.
        old_layers: those that learn more slowly, see `beginning.Beginning`.
        progress: where it is.
    """

    spec: ModelSpec
    arrays: Mapping[str, NDArray[np.float32]]
    memory: Mapping[str, torch.Tensor]
    components: ColourComponents
    old_layers: frozenset[str]
    progress: Progress


@contextmanager
def own_folder(folder: Path) -> Iterator[None]:
    """Make the folder of a run, be the only one who writes there, and clear up after a crash.

    Raises:
        OutputError: it cannot be made or written to, or another process trains there.
    """
    path = folder / "lock"
    with errors_of(folder):
        folder.mkdir(parents=True, exist_ok=True)
    refusal = OutputError(
        f"{folder}: another process is training there; wait until it has finished, "
        "stop it, or name another folder"
    )
    with locked(path, lambda _: refusal):
        with errors_of(path):
            for part in folder.glob(".alexnet-deploy-*.part"):
                part.unlink()
        yield


def save_state(folder: Path, state: RunState, keep: int) -> Path:
    """Write the checkpoint of a step, then delete all but the last `keep`.

    Raises:
        OutputError: it cannot be written; the earlier ones are as they were.
    """
    path = folder / f"step-{state.progress.step:08d}.pt"
    progress = json.dumps(dataclasses.asdict(state.progress), allow_nan=False)
    write_pt(
        path,
        state.spec.to_json(),
        state.arrays,
        {
            "training": {
                "version": _STATE_VERSION,
                "progress": progress,
                "old_layers": sorted(state.old_layers),
            },
            "memory": dict(state.memory),
            "colour": {"vectors": state.components.vectors, "stds": state.components.stds},
        },
    )
    sync_directory(folder)
    for old in _checkpoints(folder)[: -max(1, keep)]:
        with errors_of(old):
            old.unlink()
    return path


def save_best(folder: Path, state: RunState) -> Path:
    """Write the network alone as `best.pt`.

    Raises:
        OutputError: it cannot be written; the earlier one is as it was.
    """
    path = folder / BEST_NAME
    write_pt(path, state.spec.to_json(), state.arrays)
    return path


def last_checkpoint(folder: Path) -> Path | None:
    """Return the checkpoint of the highest step in the folder of a run, which need not exist."""
    found = _checkpoints(folder)
    return found[-1] if found else None


def load_state(path: Path) -> RunState:
    """Read what `save_state` wrote.

    Raises:
        IncompatibleFileError: damaged, or a network without the state of a run.
        UsageError: it is not there.
    """
    checkpoint = load_checkpoint(path)
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    try:
        version = content["training"]["version"]
        if version != _STATE_VERSION:
            raise ValueError(f"version {version!r}, expected {_STATE_VERSION}")
        progress = content["training"]["progress"]
        return RunState(
            spec=checkpoint.spec,
            arrays=checkpoint.arrays,
            memory=content["memory"],
            components=ColourComponents(**content["colour"]),
            old_layers=frozenset(content["training"]["old_layers"]),
            progress=read_record(Progress, progress, f"{path}: its progress", _ANEW),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise IncompatibleFileError(
            f"{path}: holds no state of a training run that this version reads "
            f"({type(error).__name__}: {error}); ",
            _ANEW,
        ) from error


def _checkpoints(folder: Path) -> list[Path]:
    """Return all checkpoints to resume from, in the order of their steps."""
    with errors_of(folder):
        found = list(folder.iterdir()) if folder.is_dir() else []
    matches = (_STEP_NAME.fullmatch(path.name) for path in found)
    names = {int(match[1]): match[0] for match in matches if match}
    return [folder / names[step] for step in sorted(names)]
