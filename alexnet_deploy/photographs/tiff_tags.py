"""The tags of a TIFF file, and of the camera raw files that are built like one.

Nothing in the file is believed: what lies outside of it, or is longer than any photograph's, counts
as absent.
"""

import struct
from collections.abc import Iterator
from typing import BinaryIO

SUB_DIRECTORIES = 330
ORIENTATION = 274

_VERSIONS = dict.fromkeys((b"II*\0", b"IIU\0", b"IIRO", b"IIRS"), "<") | dict.fromkeys(
    (b"MM\0*", b"MMOR"), ">"
)
"""First bytes, and the order of all others; with those of Panasonic's and Olympus's raw files."""
_BIG_VERSIONS = {b"II+\0\x08\0\0\0": "<", b"MM\0+\0\x08\0\0": ">"}
_NUMBERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
"""What `struct` calls a tag's type, of those that hold whole numbers."""

_MAX_DIRECTORIES = 32
_MAX_ENTRIES = 1024
_MAX_NUMBERS = 65_536


class Directory:
    """One directory of a file: what is known of one picture.

    Args:
        file: open while this is used.
        order: of bytes, as `struct` has it.
        start: from which on the file counts its offsets.
        entries: of each tag its type, how many numbers it has, and where they are.
    """

    def __init__(
        self, file: BinaryIO, order: str, start: int, entries: dict[int, tuple[int, int, int]]
    ) -> None:
        self._file, self._order, self._start, self._entries = file, order, start, entries

    def __contains__(self, tag: int) -> bool:
        return tag in self._entries

    def numbers(self, tag: int) -> tuple[int, ...]:
        """Return a tag's whole numbers; none where it is absent, of another type, or cut short."""
        kind, count, position = self._entries.get(tag, (0, 0, 0))
        if kind not in _NUMBERS or count > _MAX_NUMBERS:
            return ()
        layout = f"{self._order}{count}{_NUMBERS[kind]}"
        data = _read(self._file, position, struct.calcsize(layout))
        return () if data is None else struct.unpack(layout, data)

    def number(self, tag: int, default: int) -> int:
        """Return the first number of a tag."""
        return next(iter(self.numbers(tag)), default)


def directories(file: BinaryIO, start: int = 0) -> Iterator[Directory]:
    """Yield the directories of a file in its order, each before those that it contains.

    Args:
        file: seekable; none are yielded of one that is no TIFF.
        start: where the TIFF begins in it.
    """
    head = _read(file, start, 16) or _read(file, start, 8) or b""
    order = _VERSIONS.get(head[:4]) or _BIG_VERSIONS.get(head[:8])
    if order is None:
        return
    is_big = head[:4] not in _VERSIONS
    offset = struct.Struct(order + ("Q" if is_big else "I"))
    todo, seen = [offset.unpack_from(head, 8 if is_big else 4)[0]], set[int]()
    while todo and len(seen) < _MAX_DIRECTORIES:
        position = todo.pop(0)
        if not position or position in seen:
            continue
        seen.add(position)
        entries, end = _entries(file, order, start, start + position, is_big=is_big)
        directory = Directory(file, order, start, entries)
        yield directory
        following = _read(file, end, offset.size)
        inner = directory.numbers(SUB_DIRECTORIES)[:_MAX_DIRECTORIES]
        todo = [*inner, *todo, *(offset.unpack(following) if following else ())]


def _entries(
    file: BinaryIO, order: str, start: int, position: int, *, is_big: bool
) -> tuple[dict[int, tuple[int, int, int]], int]:
    """Return the entries of a directory, and where they end."""
    number, entry = (struct.Struct(order + ("Q" if is_big else "H")), struct.Struct(order + "HHI"))
    if is_big:
        entry = struct.Struct(order + "HHQ")
    room = 8 if is_big else 4  # for the numbers themselves, or where they are
    found: dict[int, tuple[int, int, int]] = {}
    data = _read(file, position, number.size)
    count = min(number.unpack(data)[0], _MAX_ENTRIES) if data else 0
    size = entry.size + room
    first = position + number.size
    data = _read(file, first, count * size) or b""
    for at in range(0, len(data), size):
        tag, kind, length = entry.unpack_from(data, at)
        where = first + at + entry.size
        if length * struct.calcsize(_NUMBERS.get(kind, "B")) > room:
            (where,) = struct.unpack_from(order + ("Q" if is_big else "I"), data, at + entry.size)
            where += start
        found.setdefault(tag, (kind, length, where))
    return found, first + count * size


def _read(file: BinaryIO, position: int, size: int) -> bytes | None:
    """Return `size` bytes, or None where the file has less."""
    file.seek(0, 2)
    if position + size > file.tell():
        return None
    file.seek(position)
    data = file.read(size)
    return data if len(data) == size else None
