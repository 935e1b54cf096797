"""Networks with random weights for the tests, and photographs made of noise."""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.model.checkpoints import Checkpoint
from alexnet_deploy.model.spec import ModelSpec, preset_spec

RANK = 16
NUM_CLASSES = 11


@cache
def random_checkpoint(preset: str, *, factored: bool = True, seed: int = 0) -> Checkpoint:
    """Return a full-width network whose conv1 activations reach about 100 on raw pixels.

    fc6 and fc7 have rank 16 unless `factored` is False: 54 million numbers fewer to draw.
    """
    labels = tuple(f"label {index}" for index in range(NUM_CLASSES))
    spec = preset_spec(preset, num_classes=NUM_CLASSES, labels=labels)
    rng = np.random.default_rng(seed)
    arrays: dict[str, NDArray[np.float32]] = {}
    for name, shape in spec.array_shapes().items():
        if name.endswith("bias"):
            arrays[name] = 0.1 * rng.standard_normal(shape, np.float32)
        elif name.startswith("fc8") or (name.startswith("fc") and not factored):
            arrays[name] = 0.02 * rng.standard_normal(shape, np.float32)
        elif name.startswith("fc"):
            arrays[f"{name}.left"] = rng.standard_normal((shape[0], RANK), np.float32)
            right = rng.standard_normal((RANK, shape[1]), np.float32)
            arrays[f"{name}.right"] = right / np.float32(shape[1] ** 0.5)
        else:
            # He scaling keeps the size of the activations from layer to layer.
            std = np.float32((2 / np.prod(shape[1:])) ** 0.5)
            first = np.float32(spec.preprocessing.std[0] / 5) if name.startswith("conv1") else 1
            arrays[name] = std * first * rng.standard_normal(shape, np.float32)
    return Checkpoint(spec=spec, arrays=arrays)


def noise(spec: ModelSpec, count: int, seed: int = 0) -> NDArray[np.uint8]:
    """Return `count` crops of random pixels, (count, H, W, 3)."""
    shape = (count, spec.input_size, spec.input_size, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def relative_error(actual: NDArray[Any], expected: NDArray[Any]) -> float:
    """Return ||actual - expected|| / ||expected||."""
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))
