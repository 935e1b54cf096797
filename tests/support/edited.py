"""Copies of photographs, edited as people do."""

import io
from typing import Any

from PIL import Image, ImageOps

from alexnet_deploy.photographs.likeness import Orientation

_TURNS = {
    0: None,
    90: Image.Transpose.ROTATE_270,  # Pillow's are counter-clockwise
    180: Image.Transpose.ROTATE_180,
    270: Image.Transpose.ROTATE_90,
}


def turned_picture(picture: Image.Image, orientation: Orientation) -> Image.Image:
    """Return a picture mirrored left to right, if it is to be, then turned clockwise."""
    if orientation.mirrored:
        picture = ImageOps.mirror(picture)
    turn = _TURNS[orientation.turned]
    return picture if turn is None else picture.transpose(turn)


def encoded(picture: Image.Image, form: str = "JPEG", **options: Any) -> bytes:
    """Return a picture as the bytes of a file."""
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()
