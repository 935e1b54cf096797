"""The JPEG that a camera has put into its raw file: what it showed of the photograph.

A sensor's numbers become a picture only by a long development. Every camera has done that once, and
nearly every raw format keeps the result as a JPEG, each elsewhere. So it is looked for by its own
marks, and no raw format is parsed but for what tells a preview from a sensor's data in JPEG.
"""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from alexnet_deploy.errors import PhotographError
from alexnet_deploy.photographs.jpeg_headers import find_jpegs
from alexnet_deploy.photographs.tiff_tags import ORIENTATION, Directory, directories

_MARKS = (
    *((0, b"FUJIFILMCCD-RAW"), (4, b"ftypcrx "), (0, b"\0MRM"), (0, b"FOVb"), (6, b"HEAPCCDR")),
    *((8, b"IIII"), (0, b"IIU\0"), (0, b"IIRO"), (0, b"IIRS"), (0, b"MMOR"), (8, b"CR\2\0")),
)
_PHOTOMETRIC, _DNG_VERSION = 262, 50706
_STRIPS = ((273, 279), (324, 325))  # offsets and sizes of strips and tiles
_SENSOR = {32803, 34892}  # photometric interpretations: a colour filter array, linear raw
_MIN_SIDE = 200
_MAX_HEADER_BYTES = 2**22
_CR3_TAGS, _CR3_HEAD_BYTES = b"CMT1", 2**16


@dataclass(frozen=True, slots=True)
class Preview:
    """A preview in a raw file.

    Attributes:
        jpeg: from its first byte, and whatever follows it.
        orientation: EXIF's, 1 to 8, by the raw file; the JPEG's own comes first.
    """

    jpeg: bytes
    orientation: int


def preview_of(file: BinaryIO) -> Preview | None:
    """Return the largest preview of a raw file, None if the file is none.

    Raises:
        PhotographError: it has no preview that shows more than a stamp.
    """
    file.seek(0)
    head = file.read(32)
    is_marked = any(head.startswith(mark, offset) for offset, mark in _MARKS)
    found = tuple(directories(file))
    sensors = [one for one in found if one.number(_PHOTOMETRIC, 0) in _SENSOR]
    if not is_marked and not sensors and not any(_DNG_VERSION in one for one in found):
        return None
    file.seek(0)
    data = file.read()
    sizes = {
        jpeg.position: (jpeg.width * jpeg.height, min(jpeg.width, jpeg.height))
        for jpeg in find_jpegs(data)
        if jpeg.is_read
    }
    for sensor in sensors:
        _remove_within(sizes, _spans(sensor))
    position = max(sizes, key=sizes.__getitem__, default=0)
    if not sizes or sizes[position][1] < _MIN_SIDE:
        raise PhotographError(
            "is a camera raw file without a preview of "
            f"{_MIN_SIDE} px or more; convert it to JPEG or TIFF"
        )
    # A photograph in JPEG takes less than 4 bytes a pixel; what follows it is not kept.
    end = position + 4 * sizes[position][0] + _MAX_HEADER_BYTES
    return Preview(data[position:end], _orientation(file, found))


def _spans(sensor: Directory) -> Iterator[tuple[int, int]]:
    """Yield where a directory's data begin and end."""
    for offsets, sizes in _STRIPS:
        for offset, size in zip(sensor.numbers(offsets), sensor.numbers(sizes), strict=False):
            yield offset, offset + size


def _remove_within(found: dict[int, tuple[int, int]], spans: Iterator[tuple[int, int]]) -> None:
    """Remove the positions that lie in a span; a hostile file has thousands of both."""
    positions = sorted(found)
    for start, end in spans:
        first = bisect_left(positions, start)
        last = bisect_left(positions, end, first)
        for position in positions[first:last]:
            del found[position]
        del positions[first:last]


def _orientation(file: BinaryIO, found: tuple[Directory, ...]) -> int:
    """Return how the camera was held, by the first directory or, in a CR3, by a box with one."""
    if not found:
        file.seek(0)
        start = file.read(_CR3_HEAD_BYTES).find(_CR3_TAGS)
        found = tuple(directories(file, start + len(_CR3_TAGS))) if start >= 0 else ()
    return found[0].number(ORIENTATION, 1) if found else 1
