"""What it would cost to read a pickle, found by its steps alone.

torch's restricted reader runs no code, but a pickle of 200 bytes can hold a tuple that holds
another twice, that one another twice, and so on: its hash, or its text in an error, takes years.
"""

import pickletools
from pickle import UnpicklingError
from typing import BinaryIO

MAX_BYTES = 2**26
"""Of a pickle: that of a checkpoint has about 100 bytes for each tensor."""

_MAX_REPEATS = 8
_FREE = 10**6
"""Parts that may be counted in any pickle, however short."""

_PUTS = frozenset({"BINPUT", "LONG_BINPUT"})
_GETS = frozenset({"BINGET", "LONG_BINGET"})
_CHANGES = frozenset({"APPEND", "APPENDS", "SETITEM", "SETITEMS", "BUILD"})

_MAKE_BYTES = frozenset({"encode", "bytearray"})
_BYTES_MAKER = object()
"""The value of a function that makes bytes, of a text in Latin 1 if pickle wrote it.

4000 letters take the codec "punycode" 3 s, twice as many 8 times as long; a number of ten digits in
place of a text takes all memory.
"""


class CostlyPickleError(ValueError):
    """A pickle whose parts hold each other so often that reading it may never end."""


class _Part:
    """An object that a step makes.

    Attributes:
        size: parts in it, with itself; one that it holds twice counts twice.
        is_held: whether another part holds it, with the size that it had then.
        value: of a text, a number or a name; of a tuple of one or two, that of its last; of bytes,
            their encoding.
    """

    __slots__ = ("is_held", "size", "value")

    def __init__(self, value: object) -> None:
        self.size = 1
        self.is_held = False
        self.value = value


def check_cost(file: BinaryIO) -> None:
    """Follow a pickle from where `file` is to its end, and reject what no checkpoint needs.

    The count of all parts, once for each part that holds them directly or through others, has to
    stay within a small multiple of the steps. That bounds the depth, too.

    Raises:
        CostlyPickleError: it does not, or parts hold each other in a circle.
        UnpicklingError: it calls what takes unbounded time or memory.
        ValueError, LookupError: it is not a pickle, or goes on after the end of the file.
    """
    stack: list[_Part | None] = []  # None is a mark
    memo: dict[object, _Part | None] = {}
    count = 0
    for num_steps, (step, argument, _) in enumerate(pickletools.genops(file)):
        if step.name in _GETS:
            stack.append(memo[argument])
        elif step.name in _PUTS:
            memo[argument] = stack[-1]
        elif step.name == "MARK":
            stack.append(None)
        else:
            parts = _taken(stack, step)
            owner = parts.pop(0) if step.name in _CHANGES else _made(step, argument, parts)
            count += _add(parts, owner)
            if count > _FREE + _MAX_REPEATS * num_steps:
                raise CostlyPickleError("holds the same parts over and over")
            stack += [owner] * len(step.stack_after)


def _taken(stack: list[_Part | None], step: pickletools.OpcodeInfo) -> list[_Part]:
    """Take from the stack what a step works on, in order."""
    takes = step.stack_before
    parts: list[_Part] = []
    num_single = len(takes)
    if pickletools.markobject in takes:
        num_single = takes.index(pickletools.markobject)
        while (part := stack.pop()) is not None:
            parts.append(part)
    for _ in range(num_single):
        single = stack.pop()
        if single is None:
            raise LookupError("a mark where an object should be")
        parts.append(single)
    return parts[::-1]


def _made(step: pickletools.OpcodeInfo, argument: object, parts: list[_Part]) -> _Part:
    """Return what a step makes, as yet without its parts."""
    if step.name == "GLOBAL" and str(argument).rpartition(" ")[2] in _MAKE_BYTES:
        return _Part(_BYTES_MAKER)
    if step.name in ("TUPLE1", "TUPLE2"):
        return _Part(parts[-1].value)
    if step.name == "REDUCE" and parts[0].value is _BYTES_MAKER and parts[1].value == "latin1":
        del parts[0]  # the one use of it that is let pass
        return _Part("latin1")
    return _Part(argument)


def _add(parts: list[_Part], owner: _Part) -> int:
    """Put `parts` into `owner`; return how many parts these are with those in them."""
    if parts and owner.is_held:
        raise CostlyPickleError("holds parts that hold each other")
    size = 0
    for part in parts:
        if part.value is _BYTES_MAKER:
            raise UnpicklingError("GLOBAL _codecs.encode or bytearray")
        size += part.size
        part.is_held = True
    owner.size += size
    return size
