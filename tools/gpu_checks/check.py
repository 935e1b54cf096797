"""Checks and their results."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""

Status = Literal["passed", "failed", "skipped", "no-time"]
Figures = dict[str, Any]
"""Measurements by name: numbers, strings, and lists and dicts of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of the table.

    Attributes:
        name: for the report.
        function: "module:function"; called with `Settings` and `arguments`, returns figures.
        limit_s: seconds after which it is killed.
        arguments: keyword arguments, JSON-serializable.
        wheels_first: unpacked wheels, with their CUDA libraries, take precedence over installed
            packages; otherwise they come after, without those libraries.
    """

    name: str
    function: str
    limit_s: float
    arguments: Mapping[str, Any] = field(default_factory=dict)
    wheels_first: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings common to all checks.

    Attributes:
        scratch: a folder shared by all; deleted at the end.
        photographs: a folder of photographs; None for the package's samples.
    """

    scratch: Path
    photographs: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The result of a check.

    Attributes:
        name: the check's.
        status: "skipped" cannot run here, which is not a failure; "no-time" was not started or not
            finished because the total time ran out.
        seconds: duration, including its process.
        reason: why it did not pass; empty if it did.
        figures: what it measured, as far as it got.
    """

    name: str
    status: Status
    seconds: float = 0.0
    reason: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)


class Skipped(Exception):
    """The check, or the rest of it, cannot run on this machine; `str(error)` is the reason."""

    def __init__(self, reason: str, figures: Figures | None = None) -> None:
        super().__init__(reason)
        self.figures = figures or {}


class Failed(Exception):
    """A measurement is wrong; `str(error)` is the reason."""

    def __init__(self, reason: str, figures: Figures) -> None:
        super().__init__(reason)
        self.figures = figures


def require(is_right: bool, reason: str, figures: Figures) -> None:
    """Fail the check, keeping its figures, unless `is_right`.

    Raises:
        Failed: `is_right` is False.
    """
    if not is_right:
        raise Failed(reason, figures)
