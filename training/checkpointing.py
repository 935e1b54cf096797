"""The folder of a run: checkpoints to resume from, and the best network so far.

    run.json            the run's options: data, recipe, seed
    log.jsonl           one line per epoch, plotted in curves.png
    step-00001090.pt    the network as the package reads it, and the state needed to resume
    best.pt             the network with the lowest validation error, without that state
    skipped.jsonl       photographs that could not be read
    lock                held by the process that trains there

Each file is written under a temporary name and renamed once it is complete, and only then is the
previous one deleted, so the last good checkpoint survives any crash. A `.pt` holds one network,
not two towers, so a run can resume on other devices than it started on.
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
    """How far a run has come. Sums are over the current epoch.

    Attributes:
        epoch: completed epochs.
        step: steps taken in all.
        step_in_epoch: steps taken in the current epoch.
        loss_sum, num_right, num_photographs: sums over the epoch's steps so far.
        num_skipped: photographs of the epoch that could not be read.
        epoch_s: seconds that the epoch's steps took.
        best_top1: highest validation top-1 accuracy so far, 0..1, or -1 before the first.
        plateau: state of the "plateau" schedule.
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
        """Count the completed epoch and reset the sums."""
        self.epoch += 1
        self.step_in_epoch = self.num_right = self.num_photographs = self.num_skipped = 0
        self.loss_sum = self.epoch_s = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """All that a run needs to resume.

    Attributes:
        spec: of the network; its provenance says what it was trained on.
        arrays: the package's: weights scaled for inference, and `mean_image` if there is one.
        memory: the optimizer state, see `optimizers.memory_of`.
        components: of the training pixels' colours.
        old_layers: layers with a lower learning rate, see `beginning.Beginning`.
        progress: how far it has come.
    """

    spec: ModelSpec
    arrays: Mapping[str, NDArray[np.float32]]
    memory: Mapping[str, torch.Tensor]
    components: ColourComponents
    old_layers: frozenset[str]
    progress: Progress


@contextmanager
def own_folder(folder: Path) -> Iterator[None]:
    """Create and lock the folder of a run, and remove the temporary files of a crash.

    Raises:
        OutputError: it cannot be created or written to, or another process is training there.
    """
    with errors_of(folder):
        folder.mkdir(parents=True, exist_ok=True)
    refusal = OutputError(
        f"{folder}: another process is training there; wait until it has finished, stop it, or "
        "name another folder"
    )
    with locked(folder / "lock", lambda _: refusal):
        for part in folder.glob(".alexnet-deploy-*.part"):
            with errors_of(part):
                part.unlink()
        yield


def save_state(folder: Path, state: RunState, keep: int) -> Path:
    """Write the checkpoint of a step, then delete all but the last `keep`.

    Raises:
        OutputError: it cannot be written; earlier ones are left as they were.
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
        OutputError: it cannot be written; an earlier one is left as it was.
    """
    path = folder / BEST_NAME
    write_pt(path, state.spec.to_json(), state.arrays)
    return path


def last_checkpoint(folder: Path) -> Path | None:
    """Return the latest checkpoint in the folder of a run, if there is one."""
    found = _checkpoints(folder)
    return found[-1] if found else None


def load_state(path: Path) -> RunState:
    """Read what `save_state` wrote.

    Raises:
        IncompatibleFileError: it is damaged, or a network without the state of a run.
        UsageError: there is no such file.
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
            f"{path}: holds no state of a training run that this version can read "
            f"({type(error).__name__}: {error}); ",
            _ANEW,
        ) from error


def _checkpoints(folder: Path) -> list[Path]:
    """Return all checkpoints to resume from, in order of their steps."""
    with errors_of(folder):
        found = list(folder.iterdir()) if folder.is_dir() else []
    matches = (_STEP_NAME.fullmatch(path.name) for path in found)
    names = {int(match[1]): match[0] for match in matches if match}
    return [folder / names[step] for step in sorted(names)]
