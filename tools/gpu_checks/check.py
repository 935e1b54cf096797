"""What a check is, and what comes of one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""

Status = Literal["passed", "failed", "skipped", "no-time"]
Figures = dict[str, Any]
"""What was measured, by name: numbers, texts, and lists and dicts of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of the table.

    Attributes:
        name: for the report.
        function: "module:function"; it takes `Settings` and `arguments`, and returns figures.
        limit_s: seconds after which it is ended.
        arguments: further ones, of JSON's types.
        wheels_first: what was unpacked from the folder of wheels comes before what is installed,
            with its CUDA libraries; else behind it, and without them.
    """

    name: str
    function: str
    limit_s: float
    arguments: Mapping[str, Any] = field(default_factory=dict)
    wheels_first: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What all checks are given.

    Attributes:
        scratch: a folder that they share; it is deleted at the end.
        photographs: a folder of photographs; None for the package's samples.
    """

    scratch: Path
    photographs: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of a check.

    Attributes:
        name: the check's.
        status: "skipped" is a check that could not be made here, which is no fault; "no-time" is
            one that was not begun or not ended because the time for all was up.
        seconds: that it took, its process included.
        reason: why it did not pass; empty if it did.
        figures: what it measured, as far as it came.
    """

    name: str
    status: Status
    seconds: float = 0.0
    reason: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)


class Skipped(Exception):
    """The check, or the rest of it, cannot be made on this machine; `str(error)` says why."""

    def __init__(self, reason: str, figures: Figures | None = None) -> None:
        super().__init__(reason)
        self.figures = figures or {}


class Failed(Exception):
    """What was measured is wrong; `str(error)` is the reason."""

    def __init__(self, reason: str, figures: Figures) -> None:
        super().__init__(reason)
        self.figures = figures


def require(is_right: bool, reason: str, figures: Figures) -> None:
    """Let the check fail, with what it measured, unless `is_right`.

    Raises:
        Failed: it is not.
    """
    if not is_right:
        raise Failed(reason, figures)
