"""The forms a photograph may be given in: a file, its bytes, or a picture in memory.

H/W height and width in px.
"""

import io
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from alexnet_deploy.errors import PhotographError, UsageError
from alexnet_deploy.model.spec import Preprocessing
from alexnet_deploy.photographs.decoding import (
    convert_image,
    decode_photograph,
    load_photograph,
)
from alexnet_deploy.photographs.pixels import EXACT, Decode

ImageInput: TypeAlias = str | os.PathLike[str] | bytes | IO[bytes] | Image.Image | NDArray[np.uint8]
"""A file's path, the bytes of a file, a file open in binary mode, an image of Pillow's in any mode,
or an array (H, W, 3) RGB or (H, W) grey, uint8."""

_EXPECTED = (
    "a path, the bytes of a photograph, a file open in binary mode, a Pillow image, or an array "
    "(H, W, 3) or (H, W) of uint8"
)


@dataclass(frozen=True, slots=True)
class _Unreadable:
    """A file object that could not be read, with the reason."""

    reason: str


ImageSource: TypeAlias = Path | bytes | Image.Image | _Unreadable
"""A photograph as passed to the threads: later changes by the caller do not affect it. A Pillow
image is already upright, as `load_photograph` returns it."""

_converting = threading.Lock()
"""Held while a caller's image is read: two threads may have been given the same one."""


def image_sources(
    images: ImageInput | Iterable[ImageInput], decode: Decode = EXACT
) -> Iterator[ImageSource]:
    """Check the images immediately if they are in a list; then yield each lazily.

    Args:
        images: one, or any iterable of them, read lazily. An array or an image may be overwritten,
            and a file closed, as soon as the next one is requested.
        decode: how an image of Pillow's is converted, which is done at once.

    Raises:
        UsageError: one is not a valid photograph; the message gives its index.
    """
    if is_image(images):
        check_image(images, "images")
        return iter([image_source(images, decode)])
    if not isinstance(images, Iterable) or isinstance(images, Mapping):
        raise UsageError(f"images is of type {type(images).__name__}, expected {_EXPECTED}")
    if isinstance(images, (list, tuple)):
        for number, image in enumerate(images):
            check_image(image, f"images[{number}]")
    return _sources(images, decode)


def is_image(value: object) -> TypeGuard[ImageInput]:
    """Return whether a value is one image, valid or not, rather than several."""
    is_array = isinstance(value, np.ndarray) and value.ndim < 4
    one = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image)
    return is_array or isinstance(value, one) or hasattr(value, "read")


def check_image(value: object, name: str) -> None:
    """Reject what cannot be a photograph, by its type, shape or mode.

    Raises:
        UsageError: naming `name`, what was given and what was expected.
    """
    if isinstance(value, np.ndarray):
        has_shape = value.ndim == 2 or (value.ndim == 3 and value.shape[2] == 3)
        if not has_shape or value.dtype != np.uint8 or not value.size:
            raise UsageError(
                f"{name} is an array {value.shape} of {value.dtype}, expected (H, W, 3) RGB or "
                "(H, W) grey of uint8, 0..255"
            )
    elif isinstance(value, io.TextIOBase):
        raise UsageError(f"{name} is a file open for text, expected one open in binary mode")
    elif isinstance(value, Image.Image):
        if not all(value.size):
            raise UsageError(
                f"{name} is an image of {value.width} x {value.height} px, expected 1 px or more"
            )
    elif not is_image(value):
        raise UsageError(f"{name} is of type {type(value).__name__}, expected {_EXPECTED}")


def image_source(image: ImageInput, decode: Decode = EXACT) -> ImageSource:
    """Return a photograph in a form that is safe to pass to threads.

    Args:
        image: one that passed `check_image`; a file object or a Pillow image is read now.
        decode: how an image of Pillow's is converted.
    """
    if isinstance(image, (str, os.PathLike)):
        return Path(image)
    if isinstance(image, np.ndarray):
        return Image.fromarray(image).convert("RGB").copy()
    if isinstance(image, Image.Image):
        return _converted(image, decode)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return bytes(image)
    try:
        data = image.read()
    except (OSError, ValueError) as error:  # ValueError: it is closed
        return _Unreadable(f"cannot be read ({getattr(error, 'strerror', None) or error})")
    if not isinstance(data, bytes):
        raise UsageError(f"a file gave {type(data).__name__}, expected bytes; open it in mode 'rb'")
    return data


def load_image(
    source: ImageSource, decode: Decode = EXACT, preprocessing: Preprocessing | None = None
) -> Image.Image:
    """Decode one photograph to an upright picture, as `load_photograph` does.

    The same file gives the same pixels in whichever form it is given.

    Args:
        source: as `image_source` returns it.
        decode: as for `load_photograph`; a picture in memory has its size.
        preprocessing: as for `load_photograph`.

    Raises:
        PhotographError: the reason why it cannot be decoded.
    """
    if isinstance(source, Path):
        return load_photograph(source, decode, preprocessing)
    if isinstance(source, Image.Image):
        return source
    if isinstance(source, _Unreadable):
        raise PhotographError(source.reason)
    return decode_photograph(io.BytesIO(source), decode, preprocessing)


def _converted(image: Image.Image, decode: Decode) -> ImageSource:
    """Return an image that is unaffected by the caller's changes."""
    try:
        with _converting:
            return convert_image(image, decode)
    except PhotographError as error:
        return _Unreadable(error.reason)


def path_of(source: object) -> Path | None:
    """Return the path of a photograph given as one, else None."""
    return source if isinstance(source, Path) else None


def _sources(images: Iterable[Any], decode: Decode) -> Iterator[ImageSource]:
    for number, image in enumerate(images):
        check_image(image, f"images[{number}]")
        yield image_source(image, decode)
