"""Tell a PNG whose pixels end early, with which Pillow is content.

Its decoder takes the end of the compressed data for the end of the picture, and leaves the rest as
it was: zero.
"""

import struct
import zlib
from typing import BinaryIO

from PIL import Image

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
_WHOLE = ((0, 0, 1, 1),)
_ADAM7 = (
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
    *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
)
"""First column and row of each pass of an interlaced PNG, and their distances."""

_PIECE = 2**16


def is_cut_short(file: BinaryIO, image: Image.Image) -> bool:
    """Return whether pixels of a PNG are missing, though its chunks are complete.

    Args:
        file: the PNG.
        image: the same, loaded without an error.
    """
    # Interlaced, the last row that is stored may be the one before the lowest.
    rows = range(max(0, image.height - 2), image.height)
    if all(any(image.crop((0, row, image.width, row + 1)).tobytes()) for row in rows):
        return False
    return _has_less_data(file)


def _has_less_data(file: BinaryIO) -> bool:
    """Return whether there is less data than the header says; no more than that is inflated."""
    file.seek(16)
    width, height, depth, colour, *_, interlace = struct.unpack(">IIBBBBB", file.read(13))
    missing = _num_bytes(width, height, depth * _CHANNELS[colour], _ADAM7 if interlace else _WHOLE)
    inflate = zlib.decompressobj()
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind != b"IDAT":
            file.seek(length + 4, 1)  # with the checksum
            continue
        end = file.tell() + length
        # In pieces: what zlib leaves of its input is copied by every call.
        while missing > 0 and (data := file.read(min(_PIECE, end - file.tell()))):
            while data and missing > 0 and not inflate.eof:
                missing -= len(inflate.decompress(data, _PIECE))
                data = inflate.unconsumed_tail
        file.seek(end + 4)
    return missing > 0


def _num_bytes(
    width: int, height: int, pixel_bits: int, passes: tuple[tuple[int, int, int, int], ...]
) -> int:
    """Return the size of the inflated data: rows of whole bytes, each with that of its filter."""
    total = 0
    for left, top, across, down in passes:
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            total += rows * (1 + (columns * pixel_bits + 7) // 8)
    return total
