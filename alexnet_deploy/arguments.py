"""Checks of a call's arguments: a wrong type is reported like a wrong value.

Each function takes the argument's name and value, and returns the value in its own type or raises
`ArgumentError`.
"""

import os
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from numbers import Integral, Real
from pathlib import Path
from typing import TypeVar

from alexnet_deploy.errors import ArgumentError

_1970 = datetime(1970, 1, 1, tzinfo=UTC)
_Word = TypeVar("_Word", bound=str)


def count(name: str, value: object, most: int | None = None) -> int:
    """Check a whole number, 1 or more, up to `most`; NumPy's, too."""
    expected = "1 or more" if most is None else f"1 to {most}"
    if not isinstance(value, Integral):
        raise ArgumentError(name, value, f"a whole number, {expected}")
    number = int(value)
    if number < 1 or (most is not None and number > most):
        raise ArgumentError(name, value, expected)
    return number


def distance(name: str, value: object) -> float:
    """Check a number, 0 or more."""
    if not isinstance(value, Real) or not float(value) >= 0:  # NaN fails the comparison
        raise ArgumentError(name, value, "0 or more")
    return float(value)


def time_ns(name: str, value: object) -> int:
    """Check a date or a time, and return it in nanoseconds since 1970, within 64 bits.

    It is of `datetime`, or text as in ISO 8601: local time unless it says its zone; of a date its
    beginning.
    """
    text = value.isoformat() if isinstance(value, date) else value
    try:
        if not isinstance(text, str):
            raise ValueError
        since_1970 = datetime.fromisoformat(text).astimezone(UTC) - _1970
    except (ValueError, OverflowError, OSError) as error:  # the last two beyond the calendar
        expected = "a date or a time such as 2024-05-01 or 2024-05-01T18:30"
        raise ArgumentError(name, value, expected) from error
    return max(-(2**63), min(since_1970 // timedelta(microseconds=1) * 1000, 2**63 - 1))


def choice(name: str, value: _Word, choices: tuple[_Word, ...]) -> _Word:
    """Check one of a few words."""
    if value not in choices:
        raise ArgumentError(name, value, f"one of {', '.join(choices)}")
    return value


def path(name: str, value: object) -> Path:
    """Check a path."""
    return Path(_path_text(name, value))


def paths(name: str, value: object) -> list[str]:
    """Check one path or several, and return their text."""
    if isinstance(value, (str, bytes, os.PathLike)):  # bytes are iterable, too, and refused
        return [_path_text(name, value)]
    if not isinstance(value, Iterable):
        raise ArgumentError(name, value, "one path or several")
    return [_path_text(f"{name}[{number}]", one) for number, one in enumerate(value)]


def _path_text(name: str, value: object) -> str:
    text = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
    if not isinstance(text, str):
        raise ArgumentError(name, value, "a path, as a string or a Path")
    return text
