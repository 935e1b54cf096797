"""Checks of a call's arguments: a wrong type is reported like a wrong value.

Each function takes the argument's name and value, and returns the value in its own type or raises
`ArgumentError`.
"""

import os
from collections.abc import Iterable
from numbers import Integral, Real
from pathlib import Path
from typing import TypeVar

from alexnet_deploy.errors import ArgumentError

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
