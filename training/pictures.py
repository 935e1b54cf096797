"""One photograph as a square picture: the resize and crop of section 2, or another network's.

S = 256, the side of a picture in px. Windows of it become inputs: see augmentation.py.
"""

import dataclasses
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from alexnet_deploy.errors import ArgumentError
from alexnet_deploy.model.spec import Filter, ModelSpec, Preprocessing, Resize, preset_spec
from alexnet_deploy.photographs.decoding import load_photograph
from alexnet_deploy.photographs.preprocessing import preprocess

PICTURE_SIZES = range(63, 4097)
"""Possible values of S, px; below them no preset has a pool5 left, torchvision's last of all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A photograph that could not be read, and why."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureForm:
    """How photographs become square pictures; by default as in the paper.

    Attributes:
        size: S, one of `PICTURE_SIZES`.
        resize, filter: as in `Preprocessing`; "shorter_side" cuts out the central square.
    """

    size: int = 256
    resize: Resize = "shorter_side"
    filter: Filter = "bicubic"

    def __post_init__(self) -> None:
        """Refuse pictures of which no network has inputs.

        Raises:
            UsageError: the size is out of range.
        """
        if self.size not in PICTURE_SIZES:
            expected = f"{PICTURE_SIZES[0]} to {PICTURE_SIZES[-1]}"
            raise ArgumentError("size", self.size, expected)

    def __str__(self) -> str:
        """Return `256 px, shorter_side, bicubic`."""
        return f"{self.size} px, {self.resize}, {self.filter}"


PAPER_FORM = PictureForm()


def form_of(preprocessing: Preprocessing) -> PictureForm:
    """Return the pictures of which a network's inputs are windows."""
    return PictureForm(
        size=preprocessing.resize_to, resize=preprocessing.resize, filter=preprocessing.filter
    )


def read_picture(path: Path, form: PictureForm) -> NDArray[np.uint8]:
    """Decode a photograph and make a square picture of it.

    Raises:
        PhotographError: it cannot be read; the message is the reason, without the path.
    """
    return square_picture(load_photograph(path), form)


def square_picture(photograph: Image.Image, form: PictureForm) -> NDArray[np.uint8]:
    """Resize a photograph, and cut out the central square of what is not square then.

    Args:
        photograph: as for `preprocess`.
        form: of the picture.

    Returns:
        [S, S, 3] uint8, RGB; may be read-only. A picture of S x S px is returned unchanged.
    """
    return preprocess(photograph, _spec(form))


@lru_cache(maxsize=1)
def _spec(form: PictureForm) -> ModelSpec:
    """Return a spec whose inputs are whole pictures; only its preprocessing is used."""
    spec = preset_spec("torchvision", num_classes=2)
    preprocessing = dataclasses.replace(
        spec.preprocessing, resize=form.resize, resize_to=form.size, filter=form.filter
    )
    return dataclasses.replace(spec, input_size=form.size, preprocessing=preprocessing)
