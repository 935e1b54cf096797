"""ICC profiles by their bytes: what may be handed to lcms, and the one that EXIF only names.

The format is ICC.1:2022: a header, a table of tags, and their data.
"""

import math
import struct
from collections.abc import Iterator
from functools import lru_cache

MAX_PROFILE_BYTES = 2**22
"""A larger profile is not parsed; those of printers have up to 3 MB."""

_HEADER_BYTES = 128
_TAGS_START = _HEADER_BYTES + 4
_TAG_BYTES = 12
_MAX_TAGS = 100  # lcms refuses more
_DEVICES = {b"scnr", b"mntr", b"prtr", b"spac"}
_VALUE_BYTES = {b"mft1": 1, b"mft2": 2, b"mAB ": 1, b"mBA ": 1}
"""Kinds of tables, and bytes of a value, at least."""

_ADOBE_RGB_COLUMNS = {
    b"rXYZ": (0x9C18, 0x4FA5, 0x04FC),
    b"gXYZ": (0x348D, 0xA02C, 0x0F95),
    b"bXYZ": (0x2631, 0x102F, 0xBE9C),
}
"""Adobe RGB (1998): XYZ of its primaries, adapted to D50, in 1/65536."""
_ADOBE_RGB_GAMMA = 0x0233  # in 1/256


def space_of(profile: bytes) -> bytes:
    """Return the signature of the colours that a profile is for: b"RGB ", b"GRAY", b"CMYK", others.

    It is empty if the profile is none of a device, or if lcms would need minutes or gigabytes for
    it: where stages are of floating-point numbers, which photographs never need, and where a table
    claims to have more values than the profile has bytes.
    """
    is_profile = _TAGS_START < len(profile) <= MAX_PROFILE_BYTES and profile[36:40] == b"acsp"
    if not is_profile or profile[12:16] not in _DEVICES:
        return b""
    for name, start in _tags(profile):
        if name.startswith((b"D2B", b"B2D")) or _table_bytes(profile, start) > len(profile):
            return b""
    return profile[16:20]


def _tags(profile: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield names, and where the data are."""
    number = int.from_bytes(profile[_HEADER_BYTES:_TAGS_START], "big")
    for at in range(_TAGS_START, _TAGS_START + _TAG_BYTES * min(number, _MAX_TAGS), _TAG_BYTES):
        entry = profile[at : at + _TAG_BYTES]
        yield entry[:4], int.from_bytes(entry[4:8], "big")


def _table_bytes(profile: bytes, start: int) -> int:
    """Return how many bytes the grid of a tag has by its own account, 0 if it has none."""
    head = profile[start : start + 32]
    value_bytes = _VALUE_BYTES.get(head[:4], 0)
    if not value_bytes or len(head) < 32:
        return 0
    num_inputs, num_outputs, points = head[8:11]
    if head.startswith(b"mft"):
        return value_bytes * num_outputs * math.prod(num_inputs * [points])
    at = int.from_bytes(head[24:28], "big")
    grid = profile[start + at : start + at + num_inputs] if at else b""
    return value_bytes * num_outputs * math.prod(grid) if grid else 0


@lru_cache(maxsize=1)
def adobe_rgb() -> bytes:
    """Return a profile of Adobe RGB (1998), of version 2."""
    curve = b"curv" + struct.pack(">4xIH2x", 1, _ADOBE_RGB_GAMMA)
    tags = {
        name: b"XYZ " + struct.pack(">4x3I", *column) for name, column in _ADOBE_RGB_COLUMNS.items()
    } | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    entries, data = struct.pack(">I", len(tags)), b""
    for name, value in tags.items():
        start = _TAGS_START + _TAG_BYTES * len(tags) + len(data)
        entries += name + struct.pack(">II", start, len(value))
        data += value
    size = _HEADER_BYTES + len(entries + data)
    head = struct.pack(">I4xI", size, 0x02400000) + b"mntrRGB XYZ " + bytes(12) + b"acsp"
    head += bytes(28) + struct.pack(">3I", 0xF6D6, 0x10000, 0xD32D)  # the white D50
    return head.ljust(_HEADER_BYTES, b"\0") + entries + data
