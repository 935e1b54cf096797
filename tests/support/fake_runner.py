"""A runner without a network: its outputs follow from the colour of the photograph."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from alexnet_deploy.model.layers import layer_names
from alexnet_deploy.model.spec import ModelSpec, preset_spec
from alexnet_deploy.runtimes.base import RunnerOptions, check_images, usual_outputs

UNSPOKEN = os.fsdecode(b"caf\xe9\n.png")
SPEC = preset_spec("paper", num_classes=4, labels=("red", "green", "blue", "great_auk"))


class FakeRunner:
    """Probabilities are the shares of red, green and blue; every other layer is the red, 0..255."""

    def __init__(self, options: RunnerOptions, spec: ModelSpec = SPEC) -> None:
        outputs = layer_names(options.outputs or usual_outputs(spec), spec)
        self.spec = spec
        self.identity = "0123456789abcdef"
        precision = "fp32" if options.precision == "auto" else options.precision
        self.options = dataclasses.replace(
            options,
            runtime="onnxruntime",
            device="cpu",
            precision=precision,
            outputs=outputs,
        )
        self.description = "fake runner"

    def run(self, images: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        check_images(images, self.spec, self.options.batch_size)
        colours = images[:, 0, 0].astype(np.float32)
        shapes = self.spec.layer_shapes()
        outputs = {}
        for name in self.options.outputs:
            shape = (len(images), *shapes[name])
            if name == "probabilities":
                outputs[name] = np.zeros(shape, np.float32)
                sums = colours.sum(axis=1, keepdims=True)
                outputs[name][:, :3] = colours / np.maximum(sums, 1)
            else:
                red = colours[:, 0].reshape(-1, *(1,) * (len(shape) - 1))
                outputs[name] = np.broadcast_to(red, shape).copy()
        return outputs

    def close(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def open_fake_runner(
    model: Path | None, options: RunnerOptions, *, notify: object = None
) -> FakeRunner:
    """Stand in for `opening.open_runner_of`."""
    return FakeRunner(options)


def save_photograph(path: Path, colour: tuple[int, int, int]) -> Path:
    """Save a photograph of one colour, which no resizing changes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30), colour).save(path, format="PNG")
    return path


def save_photographs(folder: Path) -> Path:
    """Save one that is mostly red, one mostly blue, and one all green under a difficult name."""
    save_photograph(folder / "a.png", (128, 64, 64))
    save_photograph(folder / "b.png", (0, 64, 192))
    save_photograph(folder / UNSPOKEN, (0, 128, 0))
    return folder
