"""How much memory an image takes while it becomes a picture, by its header alone.

Measured with Pillow 13 as the peak of a process, in bytes per px of 24 megapixels: JPEG 4.2 (turned
8, progressive 7, grey 5), PNG 4.2 (grey and palettes 5, with transparency 9 to 12), WebP 16 (alpha
20), AVIF 9 (alpha 16), HEIC 7 (10 bits 13), JPEG 2000 19 (alpha 24). What is estimated here is that
or more.
"""

import struct
from dataclasses import dataclass
from typing import IO

from PIL import Image

from alexnet_deploy.photographs.scaled_jpegs import stored_size

_PIXEL_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}
"""Of pictures in Pillow's memory; of every other mode 4, RGB and LA included."""

_ROW_POINTER_BYTES = 8

_DECODER_BYTES = {"JPEG2000": 6, "HEIF": 2, "QOI": 1, "SGI": 3, "PPM": 4, "BMP": 1, "DIB": 1}
"""What decoders take beside the picture, per px and channel, until it is complete."""

_SCAN = b"\xff\xda"  # where a scan of a JPEG begins
_CODESTREAM = b"\xff\x4f\xff\x51"
_MAX_BOXES = 1024  # before the one with the codestream; files have a handful
_JPEG2000_TILE_BYTES = 14_000  # measured with four channels
_MAX_JPEG2000_TILES = 65_535  # OpenJPEG refuses more

_ROWS_PER_STRIP, _TILE_WIDTH, _TILE_LENGTH = 278, 322, 323  # tags of TIFF
_TIFF_PIXEL_BYTES = 8  # of RGBA with 16 bits

_RESIZED = 256
_MAX_RESIZED_PIXELS = 50_000_000  # as in `preprocessing`: above this only a part is resized


def bytes_needed(image: Image.Image, *, may_turn: bool) -> int:
    """Return about how many bytes an opened image takes until it is resized, at the peak.

    Args:
        image: opened, not loaded.
        may_turn: whether its orientation may be another than upright.
    """
    own = _picture_bytes(image.size, _PIXEL_BYTES.get(image.mode, 4))
    rgb = _picture_bytes(image.size, 4)
    if may_turn:
        rgb = max(rgb, _picture_bytes((image.height, image.width), 4))
    decoding, kept = _decoder_bytes(image)
    copies = _num_copies(image, may_turn)
    return kept + max(own + decoding, own + copies * rgb, rgb + _resize_bytes(image.size))


def _picture_bytes(size: tuple[int, int], pixel_bytes: int) -> int:
    """Rows begin at multiples of 4 bytes, and each has a pointer."""
    width, height = size
    return height * (_ROW_POINTER_BYTES + (width * pixel_bytes + 3) // 4 * 4)


def _num_copies(image: Image.Image, may_turn: bool) -> int:
    """Return how many pictures in RGB or RGBA exist at once beside the one that was decoded."""
    palette_mode = getattr(image.palette, "mode", "")
    if image.mode[-1] in "Aa" or "transparency" in image.info or palette_mode.endswith("A"):
        return 2
    if image.mode.startswith("I"):
        return 2 if image.mode in _PIXEL_BYTES else 3
    return (image.mode != "RGB") + may_turn


def _decoder_bytes(image: Image.Image) -> tuple[int, int]:
    """Return what a decoder takes beside the picture: until that is complete, and to the end."""
    pixels, channels = image.width * image.height, len(image.getbands())
    if image.format in ("JPEG", "MPO"):  # all its coefficients, where they come scan by scan
        width, height = stored_size(image)
        return 2 * channels * width * height if _has_several_scans(image, channels) else 0, 0
    if image.format == "WEBP":
        return 4 * pixels, 8 * pixels
    if image.format == "JPEG2000":
        return _DECODER_BYTES["JPEG2000"] * channels * pixels + _jpeg2000_tiles_bytes(image), 0
    if image.format == "AVIF":
        return channels * pixels, 2 * channels * pixels
    if image.format == "HEIF" and image.info.get("bit_depth", 8) > 8:
        return 2 * _DECODER_BYTES["HEIF"] * channels * pixels, 0
    if getattr(image, "use_load_libtiff", False):
        return _tiff_piece_bytes(image), 0
    return _DECODER_BYTES.get(image.format or "", 0) * channels * pixels, 0


def _has_several_scans(image: Image.Image, channels: int) -> bool:
    """Return whether the first scan of a JPEG, of which Pillow has read the header, is not all."""
    file = getattr(image, "fp", None)
    if file is None:  # it is loaded
        return False
    position = file.tell()
    header = 8 + 2 * channels  # of a scan of all channels
    if "progressive" in image.info or position < header:
        return True
    file.seek(position - header)
    mark = file.read(2)
    file.seek(position)
    return bool(mark != _SCAN)


def num_scans(image: Image.Image) -> int:
    """Return how many scans a JPEG has, each of which may take time for every pixel.

    It is 1 where the first one is all that is decoded, for other formats, and for what is loaded.
    """
    if image.format not in ("JPEG", "MPO") or not _has_several_scans(image, len(image.getbands())):
        return 1
    file = image.fp  # type: ignore[attr-defined]  # Pillow has read the mark of the first one
    position, num_found, last = file.tell(), 1, b""
    while chunk := file.read(2**20):
        num_found += (last + chunk).count(_SCAN)  # no pixel is written with these two bytes
        last = chunk[-1:]
    file.seek(position)
    return num_found


def _jpeg2000_tiles_bytes(image: Image.Image) -> int:
    """Return what OpenJPEG keeps of the tiles of a JPEG 2000, of which each pixel may be one."""
    file = getattr(image, "fp", None)
    if file is None:  # it is loaded
        return 0
    position = file.tell()
    header = jpeg2000_header(file)
    file.seek(position)
    return (
        0 if header is None else _JPEG2000_TILE_BYTES * min(header.num_tiles, _MAX_JPEG2000_TILES)
    )


@dataclass(frozen=True, slots=True)
class Jpeg2000Header:
    """What the header of a JPEG 2000 says.

    Attributes:
        num_tiles: of the picture.
        num_channels: alpha included.
        bits: of the channel that has the most.
    """

    num_tiles: int
    num_channels: int
    bits: int


def jpeg2000_header(file: IO[bytes]) -> Jpeg2000Header | None:
    """Read the header of a JPEG 2000; None where there is none."""
    file.seek(_codestream_start(file))
    header = file.read(42)
    if len(header) < 42 or not header.startswith(_CODESTREAM):
        return None
    num_channels = int.from_bytes(header[40:], "big")
    depths = file.read(3 * num_channels)[::3] or b"\0"
    width, height, _, _, tile_width, tile_height, left, top = struct.unpack_from(">8I", header, 8)
    tiles = -(-(width - left) // max(1, tile_width)) * -(-(height - top) // max(1, tile_height))
    bits = 1 + max(depth & 0x7F for depth in depths)  # the eighth is a sign
    return Jpeg2000Header(max(0, tiles), num_channels, bits)


def _codestream_start(file: IO[bytes]) -> int:
    """Return where the codestream of a JPEG 2000 begins: at once, or in the first such box."""
    start = 0
    for _ in range(_MAX_BOXES):
        file.seek(start)
        box = file.read(16)
        if box.startswith(_CODESTREAM) or len(box) < 16:
            return start
        size = int.from_bytes(box[:4], "big")
        header = 16 if size == 1 else 8
        if box[4:8] == b"jp2c":
            return start + header
        if not size:  # it reaches to the end of the file
            break
        start += max(header, size if size != 1 else int.from_bytes(box[8:], "big"))
    return start


def _tiff_piece_bytes(image: Image.Image) -> int:
    """Return the size of a strip or a tile of a TIFF, which may be larger than the image."""
    tags = image.getexif()
    rows = min(int(tags.get(_ROWS_PER_STRIP, image.height)), max(image.size))
    strip = max(image.size) * rows
    tile = int(tags.get(_TILE_WIDTH, 0)) * int(tags.get(_TILE_LENGTH, 0))
    return max(strip, tile) * _TIFF_PIXEL_BYTES


def _resize_bytes(size: tuple[int, int]) -> int:
    """Return what the two passes of a resize to 256 px give, and what lies between them."""
    short, long = sorted(size)
    resized = _RESIZED * _RESIZED * long // short
    if resized > _MAX_RESIZED_PIXELS:
        return 0
    return 4 * resized * (1 + max(_RESIZED, short) // _RESIZED)
