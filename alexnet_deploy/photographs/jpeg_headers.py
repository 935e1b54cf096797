"""What the header of a JPEG says, without decoding it."""

from collections.abc import Iterator
from dataclasses import dataclass

START = b"\xff\xd8\xff"
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD8)}
_SOF = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # frame headers; the three others are tables
_READ = (0xC0, 0xC1, 0xC2)  # Huffman-coded: baseline, extended, progressive
_MAX_SEGMENTS = 128
_MAX_FOUND = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class JpegHeader:
    """The frame header of a JPEG.

    Attributes:
        position: where the JPEG begins.
        process: the last byte of the frame's mark, 0xC0 to 0xCF.
        bits: of a sample.
        width: in px.
        height: in px; 0 where it comes after the data.
        num_channels: of colours or inks.
    """

    position: int
    process: int
    bits: int
    width: int
    height: int
    num_channels: int

    @property
    def is_read(self) -> bool:
        """Return whether it is of a kind that is decoded: Huffman-coded with 8 bits."""
        return self.process in _READ and self.bits == 8 and self.num_channels in (1, 3, 4)


def read_header(data: bytes, position: int = 0) -> JpegHeader | None:
    """Return the frame header of the JPEG that begins at `position`; None where there is none."""
    at = position + 2
    for _ in range(_MAX_SEGMENTS):
        if data[at : at + 2] == b"\xff\xff":  # a fill byte, of which there may be millions
            at += 1
            continue
        if len(data) < at + 10 or data[at] != 0xFF:
            return None
        mark = data[at + 1]
        if mark in _SOF:
            height, width = (int.from_bytes(data[at + i : at + i + 2], "big") for i in (5, 7))
            return JpegHeader(
                position=position,
                process=mark,
                bits=data[at + 4],
                width=width,
                height=height,
                num_channels=data[at + 9],
            )
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        at += 2 if mark in _WITHOUT_LENGTH else 2 + length
    return None


def find_jpegs(data: bytes) -> Iterator[JpegHeader]:
    """Yield every JPEG in `data`, those in others, such as thumbnails, included."""
    position = -1
    for _ in range(_MAX_FOUND):
        position = data.find(START, position + 1)
        if position < 0:
            return
        header = read_header(data, position)
        if header is not None:
            yield header
