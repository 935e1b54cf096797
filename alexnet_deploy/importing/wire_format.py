"""Read protobuf's wire format, by a schema and without copying what is large.

A file may be a stranger's: every length is checked against what is there, a message is nested only
as far as its schema, and the number of fields is bounded, so that neither memory nor time is more
than the file's size explains.
"""

import mmap
import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeAlias

import numpy as np

from alexnet_deploy.importing.messages import Message, MessageError, Run
from alexnet_deploy.importing.source import shortest

Kind: TypeAlias = "str | tuple[str, ...] | Schema"
Schema: TypeAlias = Mapping[int, tuple[str, Kind]]
"""The number of a field to its name and kind: "text", "whole", "number" (float32), the names of an
enumeration's values from 0 on, the schema of a message; "float32", "float64" and "bytes" are left
where they lie, as `Run`. Fields that it lacks are passed over."""

_MAX_FIELDS = 200_000
_MAX_VALUES = 1000  # of one field that does not lie in a run
_MAX_TEXT = 4096  # bytes
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_LONGEST_START = 20  # bytes of a tag and a length, or a number
_WIDTHS = {_FIXED64: 8, _FIXED32: 4}
_RUNS = {"float32": (_FIXED32, 4), "float64": (_FIXED64, 8), "bytes": (None, 1)}


def parse_message(
    data: bytes | mmap.mmap, schema: Schema, start: int = 0, *, is_cut: bool = False
) -> Message:
    """Return the message that `data` holds from byte `start` on.

    Args:
        data: a file, or its beginning.
        schema: of the message.
        start: where it begins.
        is_cut: whether its end may be missing; then what is there counts.

    Raises:
        MessageError: it is no message of that schema.
    """
    return _Parser(data, is_cut).message(start, len(data), schema)


class _Field(NamedTuple):
    """A field's number and wire type, where its value lies, and how many follow it likewise."""

    number: int
    wire: int
    start: int
    end: int
    repeats: int = 1
    step: int = 0


class _Parser:
    def __init__(self, data: bytes | mmap.mmap, is_cut: bool) -> None:
        self._data, self._is_cut, self._fields_read = data, is_cut, 0

    def message(self, start: int, end: int, schema: Schema) -> Message:
        message = Message()
        for field in self._fields(start, end):
            name, kind = schema.get(field.number, ("", ""))
            if name:
                for value in self._values(name, kind, field):
                    message.add(name, value)
        return message

    def _fields(self, start: int, end: int) -> Iterator[_Field]:
        while start < end:
            if self._is_cut and end == len(self._data) and end - start < _LONGEST_START:
                return
            self._fields_read += 1
            if self._fields_read > _MAX_FIELDS:
                raise MessageError(f"it has more than {_MAX_FIELDS:,} fields")
            first = start
            tag, start = self._varint(start, end)
            number, wire = tag >> 3, tag & 7
            if number == 0:
                raise MessageError(f"there is no field at byte {first:,}")
            if wire == _VARINT:
                _, last = self._varint(start, end)
                field = _Field(number, wire, start, last)
            elif wire == _LENGTH:
                length, start = self._varint(start, end)
                if length > end - start and not self._is_cut:
                    raise MessageError(
                        f"at byte {first:,} it announces {length:,} bytes, {end - start:,} are left"
                    )
                field = _Field(number, wire, start, min(start + length, end))
            elif wire in _WIDTHS:
                field = self._fixed(number, wire, first, start, end)
            else:
                raise MessageError(f"there is no field at byte {first:,}")
            yield field
            start = field.end

    def _fixed(self, number: int, wire: int, first: int, start: int, end: int) -> _Field:
        """Return the run of fields that begins with the tag at `first`.

        A writer that does not pack repeats the tag before every number, millions of times.
        """
        step = start - first + _WIDTHS[wire]
        most = (end - first) // step
        if most == 0:
            raise MessageError(f"at byte {first:,} a number is cut off")
        tag = np.frombuffer(self._data, np.uint8, start - first, first)
        count, ahead = 1, 64
        while count < most:
            rows = min(ahead, most - count)
            begin = first + count * step
            next_ = np.frombuffer(self._data, np.uint8, rows * step, begin).reshape(rows, step)
            is_same = (next_[:, : len(tag)] == tag).all(axis=1)
            if not is_same.all():
                count += int(is_same.argmin())
                break
            count, ahead = count + rows, min(2 * ahead, 2**20)
        return _Field(number, wire, start, first + count * step, count, step)

    def _varint(self, start: int, end: int) -> tuple[int, int]:
        value = 0
        for index in range(min(end - start, 10)):
            byte = self._data[start + index]
            value |= (byte & 0x7F) << 7 * index
            if byte < 0x80:
                return value, start + index + 1
        raise MessageError(f"at byte {start:,} a number is cut off or longer than 10 bytes")

    def _values(self, name: str, kind: Kind, field: _Field) -> list[object]:
        if isinstance(kind, str) and kind in _RUNS:
            return [self._run(name, *_RUNS[kind], field)]
        if kind == "number" and field.wire in (_FIXED32, _LENGTH):
            return self._numbers(name, field)
        if kind == "whole":
            return list(self._wholes(name, field))
        if isinstance(kind, tuple):
            if field.wire != _VARINT:
                raise MessageError(f"its {name} is not one of an enumeration")
            value, _ = self._varint(field.start, field.end)
            return [kind[value] if value < len(kind) else str(value)]
        if field.wire != _LENGTH:
            raise MessageError(f"its {name} is a number")
        if isinstance(kind, Mapping):
            return [self.message(field.start, field.end, kind)]
        if field.end - field.start > _MAX_TEXT:
            length = field.end - field.start
            raise MessageError(f"its {name} has {length:,} bytes, expected at most {_MAX_TEXT:,}")
        return [self._data[field.start : field.end].decode("utf-8", "backslashreplace")]

    def _run(self, name: str, wire: int | None, width: int, field: _Field) -> Run:
        if field.wire == wire:
            return Run(field.start, field.repeats, field.step)
        length = field.end - field.start
        if field.wire != _LENGTH or (length % width and not self._is_cut):
            raise MessageError(f"its {name} does not consist of numbers of {width} bytes")
        return Run(field.start, length // width, width)

    def _numbers(self, name: str, field: _Field) -> list[object]:
        """Return float32 numbers as the shortest decimal that is rounded to them: 0.0001."""
        run = self._run(name, _FIXED32, 4, field)
        _check_count(name, run.count)
        starts = range(run.start, run.start + run.count * run.step, run.step)
        numbers = (struct.unpack_from("<f", self._data, start)[0] for start in starts)
        return [shortest(number) for number in numbers]

    def _wholes(self, name: str, field: _Field) -> list[int]:
        """Return varints, packed or one, as int64."""
        if field.wire not in (_VARINT, _LENGTH):
            raise MessageError(f"its {name} is not a whole number")
        wholes, start = [], field.start
        while start < field.end:
            value, start = self._varint(start, field.end)
            wholes.append(value - 2**64 if value >= 2**63 else value)
            _check_count(name, len(wholes))
        return wholes


def _check_count(name: str, count: int) -> None:
    if count > _MAX_VALUES:
        raise MessageError(f"its {name} has {count:,} values or more")
