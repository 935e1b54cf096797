"""What a kind of input is: how one is made, and what reads it."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fuzzing.cage import WrongResultError


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of input.

    Attributes:
        name: for the table, and for `--attempt`.
        write: puts an input into a folder, the same for the same state of the generator.
        read: reads it as the package reads a stranger's file.
    """

    name: str
    write: Callable[[Path, random.Random], None]
    read: Callable[[Path], None]


def check(condition: bool, text: str) -> None:
    """Raise unless a reader's result is one that it may return."""
    if not condition:
        raise WrongResultError(text)
