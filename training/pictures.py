"""One photograph as a square picture: the resize and crop of section 2.

S = 256, the side of a picture in px. Windows of it become inputs: see augmentation.py.
"""

import dataclasses
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from alexnet_deploy.model.spec import ModelSpec, preset_spec
from alexnet_deploy.photographs.decoding import load_photograph
from alexnet_deploy.photographs.preprocessing import preprocess

PICTURE_SIZES = range(67, 4097)
"""Possible values of S, px; below them a network has no pool5 left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A photograph that could not be read, and why."""

    path: Path
    reason: str


def read_picture(path: Path, size: int) -> NDArray[np.uint8]:
    """Decode a photograph and make a square picture of it.

    Raises:
        PhotographError: it cannot be read; the message is the reason, without the path.
    """
    return square_picture(load_photograph(path), size)


def square_picture(photograph: Image.Image, size: int) -> NDArray[np.uint8]:
    """Scale the shorter side to `size`, bicubically, and cut out the central square.

    Args:
        photograph: mode RGB, upright.
        size: S, one of `PICTURE_SIZES`.

    Returns:
        [S, S, 3] uint8, RGB; may be read-only. A picture of S x S px is returned unchanged.
    """
    return preprocess(photograph, _spec(size))


@lru_cache(maxsize=1)
def _spec(size: int) -> ModelSpec:
    """Return the paper's spec for inputs of `size` px; only its preprocessing is used."""
    spec = preset_spec("paper", num_classes=2)
    resized = dataclasses.replace(spec.preprocessing, resize_to=size)
    return dataclasses.replace(spec, input_size=size, preprocessing=resized)
