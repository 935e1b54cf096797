"""Resize and crop RGB pictures exactly as the spec says.

The result is, pixel for pixel, that of resizing the whole picture and then cropping, as torchvision
does. Most of that work would be thrown away, so each axis is resized separately and, where this
cannot change a pixel, only over the part to be cropped.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from alexnet_deploy.model.spec import ModelSpec, Preprocessing
from alexnet_deploy.photographs.colour import to_srgb

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_FILTER_RADIUS = 2  # px of the coarser image, for bicubic; bilinear's is 1

_MAX_RESIZED_PIXELS = 50_000_000
"""Above this (a side 763 times the other, at 256 px) the whole is never resized."""

_SMALL_PIXELS = 1_000_000
"""Up to this, copying the needed part of the source costs less than resizing the rest."""

_EXTENT = "alexnet_deploy.extent"
"""Where an `Extent` is in `Image.info`; a file may put a text there."""


class Extent(NamedTuple):
    """The part of a picture that is the photograph: a box in px, whose edges may divide pixels."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Axis:
    """One axis: `length` px of source become `resized` px, of which start..stop are kept."""

    length: int
    resized: int
    start: int
    stop: int

    @property
    def scale(self) -> float:
        return self.length / self.resized

    @property
    def is_exact(self) -> bool:
        """Return whether a box start..stop gives the same pixels as the whole axis.

        Pillow keeps the box in single precision (24 bits), so its ends must be short binary
        fractions. They are on the shorter side: its 256 px are a power of two.
        """
        denominator = Fraction(self.length, self.resized).denominator
        return denominator & (denominator - 1) == 0 and self.length * denominator < 2**24

    @property
    def source_span(self) -> tuple[int, int]:
        """First and last + 1 source px that the filter reads for start..stop."""
        margin = math.ceil(_FILTER_RADIUS * max(self.scale, 1.0)) + 1
        first = math.floor(self.start * self.scale) - margin
        last = math.ceil(self.stop * self.scale) + margin
        return max(0, first), min(self.length, last)


def preprocess(photograph: Image.Image, spec: ModelSpec) -> NDArray[np.uint8]:
    """Resize and crop one picture for a network, and convert it to sRGB.

    Sizes and offsets round as torchvision's `Resize` and `CenterCrop` do on a Pillow image. Where
    the whole picture resized would exceed 50 megapixels, the pixels equal its crop to within one
    grey level; otherwise they are identical.

    Args:
        photograph: upright, at least 1x1, mode RGB, or CMYK that carries a colour profile; of one
            with an extent only that is meant.
        spec: its `preprocessing` and `input_size` are used.

    Returns:
        (input_size, input_size, 3) uint8, RGB; may be read-only.
    """
    return np.asarray(to_srgb(_crop(photograph, spec)))


def _crop(photograph: Image.Image, spec: ModelSpec) -> Image.Image:
    resample = _FILTERS[spec.preprocessing.filter]
    extent = extent_of(photograph)
    size = (extent.right - extent.left, extent.bottom - extent.top)
    width, height = resized_size(size, spec.preprocessing)
    x = _axis(photograph.width, width, spec.input_size)
    y = _axis(photograph.height, height, spec.input_size)
    if size != photograph.size:
        resized = photograph.resize((width, height), resample, extent)
        return resized.crop((x.start, y.start, x.stop, y.stop))
    if width * height > _MAX_RESIZED_PIXELS:
        return _resize_part(photograph, x, y, resample)
    if _is_vertical_first(x, y):
        resized = photograph.resize((width, height), resample)
        return resized.crop((x.start, y.start, x.stop, y.stop))
    if y.is_exact and photograph.width * photograph.height <= _SMALL_PIXELS:
        first, last = y.source_span
        rows = photograph.crop((0, first, photograph.width, last))
    else:
        first, rows = 0, photograph
    columns = _resize_x(rows, x, resample, cut=x.is_exact)
    return _resize_y(columns, y, resample, cut=y.is_exact, first=first)


def extent_of(picture: Image.Image) -> Extent:
    """Return the extent of a picture, by default all of it."""
    found = picture.info.get(_EXTENT)
    return found if isinstance(found, Extent) else Extent(0, 0, *picture.size)


def set_extent(picture: Image.Image, extent: Extent) -> None:
    """Mark a part of a picture as the photograph; what is made of it by Pillow keeps the mark."""
    picture.info[_EXTENT] = extent


def resized_size(size: tuple[float, float], preprocessing: Preprocessing) -> tuple[int, int]:
    """Return the size after the resize; the longer side is truncated to whole px, not rounded."""
    target = preprocessing.resize_to
    if preprocessing.resize == "squash":
        return (target, target)
    width, height = size
    if width <= height:
        return (target, int(target * height / width))
    return (int(target * width / height), target)


def _axis(length: int, resized: int, kept: int) -> _Axis:
    # Python rounds halves to even, as torchvision does in Python.
    start = round((resized - kept) / 2.0)
    return _Axis(length=length, resized=resized, start=start, stop=start + kept)


def _is_vertical_first(x: _Axis, y: _Axis) -> bool:
    """Return whether Pillow resizes vertically first; each pass rounds and clips, so order matters.

    The rule of Pillow 13 (Resample.c); earlier versions always begin horizontally.
    """
    lost_x, lost_y = x.length - x.resized, y.length - y.resized
    return lost_y > 0 and lost_y > 2 * lost_x


def _resize_part(
    photograph: Image.Image, x: _Axis, y: _Axis, resample: Image.Resampling
) -> Image.Image:
    """Compute only the cropped part, in Pillow's order.

    The source is first cropped closely, because single precision represents small coordinates more
    exactly.
    """
    (left, right), (top, bottom) = x.source_span, y.source_span
    part = photograph.crop((left, top, right, bottom))
    if _is_vertical_first(x, y):
        rows = _resize_y(part, y, resample, cut=True, first=top)
        return _resize_x(rows, x, resample, cut=True, first=left)
    columns = _resize_x(part, x, resample, cut=True, first=left)
    return _resize_y(columns, y, resample, cut=True, first=top)


def _resize_x(
    image: Image.Image, axis: _Axis, resample: Image.Resampling, *, cut: bool, first: int = 0
) -> Image.Image:
    """Resize columns and keep start..stop; `first` is the source column that `image` begins at."""
    height = image.height
    if not cut:
        resized = image.resize((axis.resized, height), resample)
        return resized.crop((axis.start, 0, axis.stop, height))
    left, right = _box(axis, first, image.width)
    size = (axis.stop - axis.start, height)
    return image.resize(size, resample, box=(left, 0, right, height))


def _resize_y(
    image: Image.Image, axis: _Axis, resample: Image.Resampling, *, cut: bool, first: int = 0
) -> Image.Image:
    """Resize rows and keep start..stop; `first` is the source row that `image` begins at."""
    width = image.width
    if not cut:
        resized = image.resize((width, axis.resized), resample)
        return resized.crop((0, axis.start, width, axis.stop))
    top, bottom = _box(axis, first, image.height)
    size = (width, axis.stop - axis.start)
    return image.resize(size, resample, box=(0, top, width, bottom))


def _box(axis: _Axis, first: int, length: int) -> tuple[float, float]:
    """Return start..stop in a source that begins at `first` and is `length` px long."""
    end = axis.stop * axis.length / axis.resized - first
    return axis.start * axis.length / axis.resized - first, min(end, float(length))
