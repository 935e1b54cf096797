"""JPEGs opened to be decoded at a half, a quarter or an eighth of their size.

libjpeg makes a block of 8 x 8 px one of 4, 2 or 1 px a side from its lowest frequencies alone,
which costs a fraction of the whole. What is then resized is still at least twice the size that the
network's preprocessing asks for, so that its filter averages as it would have.
"""

from typing import BinaryIO

from PIL import Image, JpegImagePlugin, UnidentifiedImageError

from alexnet_deploy.model.spec import Preprocessing
from alexnet_deploy.photographs.jpeg_headers import START
from alexnet_deploy.photographs.preprocessing import Extent, extent_of, resized_size, set_extent

_MARGIN = 2
"""Least size before the resize, in sizes after it."""

_Turn = Image.Transpose
_SWAPPING = {_Turn.TRANSPOSE, _Turn.TRANSVERSE, _Turn.ROTATE_90, _Turn.ROTATE_270}
_MIRRORING_X = {_Turn.FLIP_LEFT_RIGHT, _Turn.ROTATE_180, _Turn.TRANSVERSE, _Turn.ROTATE_270}
_MIRRORING_Y = {_Turn.FLIP_TOP_BOTTOM, _Turn.ROTATE_180, _Turn.TRANSVERSE, _Turn.ROTATE_90}


def is_jpeg(head: bytes) -> bool:
    """Return whether a file is a JPEG, by its first bytes; an MPO is one, too."""
    return head.startswith(START)


def least_size(size: tuple[int, int], preprocessing: Preprocessing) -> tuple[int, int]:
    """Return the width and height in px that decoding must leave of a picture of `size`."""
    width, height = resized_size(size, preprocessing)
    return _MARGIN * width, _MARGIN * height


def open_scaled(file: BinaryIO, preprocessing: Preprocessing) -> Image.Image:
    """Open a JPEG, not loaded, whose `size` is the smallest that may be decoded.

    It has the photograph's extent: where its size is no whole fraction of that, up to 7/8 of a
    pixel is none of it, which would shift all that is resized.

    The first picture of an MPO is meant. How it is to be turned changes nothing: both axes shrink
    by the same divisor, and what preprocessing asks for turns with them.

    Raises:
        UnidentifiedImageError: it is damaged, or of a kind that is not read.
    """
    try:
        # Not `Image.open`, whose limit of pixels is on what is stored.
        image = JpegImagePlugin.JpegImageFile(file)
    except SyntaxError as error:
        raise UnidentifiedImageError(str(error)) from error
    drafted = image.draft(None, least_size(image.size, preprocessing))
    assert drafted is not None, "a JPEG that was just opened has one tile"
    set_extent(image, Extent(*drafted[1]))
    return image


def turned(picture: Image.Image, transposition: Image.Transpose) -> Image.Image:
    """Transpose a picture, and its extent with it."""
    result = picture.transpose(transposition)
    left, top, right, bottom = extent_of(picture)
    if transposition in _SWAPPING:
        left, top, right, bottom = top, left, bottom, right
    if transposition in _MIRRORING_X:
        left, right = result.width - right, result.width - left
    if transposition in _MIRRORING_Y:
        top, bottom = result.height - bottom, result.height - top
    set_extent(result, Extent(left, top, right, bottom))
    return result


def stored_size(image: Image.Image) -> tuple[int, int]:
    """Return the size in px that an opened picture has in its file."""
    config = getattr(image, "decoderconfig", ())
    divisor = config[0] if image.format in ("JPEG", "MPO") and config else 1
    extent = extent_of(image)
    return round(extent.right * divisor), round(extent.bottom * divisor)
