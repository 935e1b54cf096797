"""Small class folders, a small network and a reporter that remembers, for the trainer's tests."""

import dataclasses
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from alexnet_deploy.model.checkpoints import Checkpoint, save_checkpoint
from alexnet_deploy.model.spec import PRESETS, ModelSpec, preset_spec
from training.epoch_log import LOG_NAME, EpochRecord, read_log
from training.initialization import initial_weights
from training.options import TrainOptions
from training.pictures import PictureForm
from training.recipes import MODERN, PAPER, Recipe

PICTURE, INPUT, HIDDEN = 75, 67, 32
"""Sides of a picture and of the network's input in px; outputs of fc6 and fc7."""
FORM = PictureForm(size=PICTURE)
COLOURS = {"ash": (150, 150, 150), "rose": (200, 40, 60), "sky": (40, 90, 200)}
"""Classes, and the colour around which their photographs are."""
# The small network takes He's weights: with Gaussian ones it would stay at ln K for the few steps
# that it is trained for, and what it does wrong would not show.
SMALL_PAPER = PAPER.with_options(
    {
        "num_epochs": 3,
        "batch_size": 4,
        "initialization": "he",
        "learning_rate": 1e-5,
        "patience": 1,
    }
)
SMALL_MODERN = MODERN.with_options(
    {"num_epochs": 3, "batch_size": 4, "learning_rate": 0.005, "warm_up_epochs": 1}
)
STEPS_PER_EPOCH, VALIDATION_BATCHES = 5, 2
"""Of 21 photographs in batches of 4, one being left over, and of 9 in batches of 8."""


def save_classes(
    root: Path, num_each: int = 10, classes: Mapping[str, tuple[int, int, int]] = COLOURS
) -> Path:
    """Save JPEGs of random spots in the colour of their class: 10 of each, 30 in all."""
    rng = np.random.default_rng(7)
    for name, colour in classes.items():
        (root / name).mkdir(parents=True)
        for number in range(num_each):
            spots = np.clip(rng.normal(colour, 60, (5, 6, 3)), 0, 255).astype(np.uint8)
            image = Image.fromarray(spots).resize((90 + number, 82), Image.Resampling.BICUBIC)
            image.save(root / name / f"{number}.jpg")
    return root


def spoil(path: Path) -> Path:
    """Make a photograph that cannot be read of one that can."""
    path.write_bytes(b"\xff\xd8 no JPEG")
    return path


@contextmanager
def small_network(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the trainer make networks of some kilobytes, on one thread, and draw no curves."""

    def small_spec(
        name: str, *, num_classes: int = 1000, labels: tuple[str, ...] = ()
    ) -> ModelSpec:
        spec = preset_spec(name, num_classes=num_classes, labels=labels)
        preprocessing = dataclasses.replace(spec.preprocessing, resize_to=PICTURE)
        return dataclasses.replace(
            spec, widths=(8, 8, 12, 12, 8), input_size=INPUT, preprocessing=preprocessing
        )

    patch.setattr("training.beginning.preset_spec", small_spec)
    patch.setattr("alexnet_deploy.model.spec.FC_WIDTH", HIDDEN)
    patch.setattr("training.towers.FC_WIDTH", HIDDEN)
    patch.setattr("training.initialization._FC_STD", {})
    patch.setattr("training.train.preset_spec", small_spec)
    patch.setattr("training.train.keep_freed_memory", lambda: None)
    patch.setattr("training.run.draw_curves", lambda *records, **texts: None)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


KNOWN = ("rose", "fern")
"""Classes of `small_checkpoint`: one of those that photographs are of, and another."""


def small_checkpoint(preset: str) -> Checkpoint:
    """Return a preset with few kernels, for the sides above."""
    spec = PRESETS[preset]
    spec = dataclasses.replace(
        spec,
        widths=(8, 8, 12, 12, 8),
        input_size=INPUT,
        preprocessing=dataclasses.replace(spec.preprocessing, resize_to=PICTURE),
        num_classes=len(KNOWN),
        labels=KNOWN,
    )
    recipe = MODERN.with_options({"input_std": spec.preprocessing.std[0]})
    weights = initial_weights(spec, recipe, seed=3)
    return Checkpoint(spec=spec, arrays={name: one.numpy() for name, one in weights.items()})


def saved_checkpoint(preset: str, folder: Path) -> Path:
    path = folder / f"{preset}.safetensors"
    save_checkpoint(small_checkpoint(preset), path)
    return path


def options(
    data: Path, output: Path, recipe: Recipe = SMALL_MODERN, **others: object
) -> TrainOptions:
    """Return options to train on seven tenths of `data`, in memory."""
    fields: dict[str, Any] = {
        "validation": None,
        "hold_out": 0.3,
        "devices": "cpu,cpu",
        "precision": "fp32",
        "seed": 5,
        "init": None,
        "old_rate_factor": 0.1,
        "train": "all",
        "keep": 2,
        "save_minutes": 60.0,
        "num_workers": 0,
        "memory_bytes": 10**9,
        "resume": False,
    }
    return TrainOptions(data=data, output=output, recipe=recipe, **fields | others)


@dataclass
class Recorder:
    """A `Reporter` that remembers, and calls `on_advance` after each step.

    A batch of validation counts as a step; a photograph that is read does not. The call gets the
    place where the run is, which is another one after each step.
    """

    on_advance: Callable[[str], None] = lambda place: None
    lines: list[str] = field(default_factory=list)
    failures: list[Path] = field(default_factory=list)
    titles: list[str] = field(default_factory=list)
    num_open: int = 0
    num_done: int = 0

    def say(self, line: str) -> None:
        self.lines.append(line)

    def failed(self, path: Path, reason: str) -> None:
        self.failures.append(path)

    def begin(self, title: str, num_photographs: int, *, done: int) -> None:
        self.titles.append(title)
        self.num_open += 1
        self.num_done = done

    def advance(self, num_photographs: int) -> None:
        self.num_done += num_photographs
        epochs = [title for title in self.titles if title.startswith("epoch")]
        if self.titles[-1] in ("validation", *epochs):
            self.on_advance(f"{epochs[-1:]}, {self.titles[-1]}, {self.num_done}")

    def end(self) -> None:
        self.num_open -= 1


def signalling(number: signal.Signals, after: int = 1) -> Recorder:
    """Return a reporter that sends this process a signal after some steps."""
    places: list[str] = []

    def send(place: str) -> None:
        places.append(place)
        if len(places) == after:
            os.kill(os.getpid(), number)

    return Recorder(send)


def numbers(run: Path) -> dict[str, Any]:
    """Return all that the last checkpoint and best.pt hold but for times, arrays as bytes."""
    found: dict[str, Any] = {}
    for path in filter(Path.exists, (max(run.glob("step-*.pt")), run / "best.pt")):
        content = torch.load(path, weights_only=True)
        for part in ("arrays", "memory", "colour"):
            for name, tensor in content.pop(part, {}).items():
                found[f"{path.name} {part} {name}"] = tensor.numpy().tobytes()
        found |= {f"{path.name} {name}": value for name, value in content.items()}
    return found


def log_without_times(run: Path) -> list[EpochRecord]:
    return [
        dataclasses.replace(
            record, wall_s=0.0, images_per_second=None if record.images_per_second is None else 1.0
        )
        for record in read_log(run / LOG_NAME)
    ]


def same_but_for_times(one: Path, other: Path) -> bool:
    """Tell whether two runs came to the same checkpoints, bit by bit, and the same log."""
    return numbers(one) == numbers(other) and log_without_times(one) == log_without_times(other)
