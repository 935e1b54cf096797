"""The results file, rewritten after each check, beside that of an earlier run."""

import dataclasses
import json
import math
import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

Status: TypeAlias = Literal["passed", "failed", "skipped", "no-time"]
Figures = dict[str, Any]
"""Measurements by name: numbers, strings, and lists and dicts of them."""

# The file is shared, so local folders are removed.
_FOLDERS = re.compile(r"(?<![\w.~:/-])/(?:[^/\s'\",;:()]+/)+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The result of a check.

    Attributes:
        name: the check's.
        status: "skipped" cannot run here, which is not a failure; "no-time" was not started or not
            finished because the total time ran out.
        seconds: duration.
        reason: why it did not pass; empty if it did.
        figures: what it measured, as far as it got.
    """

    name: str
    status: Status
    seconds: float = 0.0
    reason: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)


class Record:
    """Results so far; if killed at any moment, a file holds those of the finished checks.

    Attributes:
        path: their file: FILE.partial.json until `finish`, then FILE.json, so that earlier results
            are not lost before.
        counts: the number of checks by status.
    """

    def __init__(self, path: Path, head: Mapping[str, Any]) -> None:
        """Start the file; `head` comes first in it.

        Raises:
            OSError: it cannot be written.
        """
        self._final, self._head = path, head
        self._results: list[Result] = []
        self.path = path.with_name(f"{path.stem}.partial{path.suffix}")
        self.counts = Counter[str](dict.fromkeys(get_args(Status), 0))
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(f"{path}: is a folder")
        self._write(complete=False)

    def add(self, result: Result) -> None:
        """Add a result and write the file."""
        self._results.append(result)
        self.counts[result.status] += 1
        self._write(complete=False)

    def finish(self) -> None:
        """Replace the results of an earlier run."""
        self._write(complete=True)
        self.path = self.path.replace(self._final)

    def _write(self, *, complete: bool) -> None:
        content = {
            **self._head,
            "complete": complete,
            "summary": self.counts,
            "seconds": sum(result.seconds for result in self._results),
            "checks": [dataclasses.asdict(result) for result in self._results],
        }
        part = self.path.with_name(f"{self.path.name}.part")
        part.write_text(json.dumps(to_plain(content), indent=1) + "\n", "utf-8")
        os.replace(part, self.path)


def to_plain(value: Any) -> Any:
    """Return a value for JSON: numbers with six digits, paths without their folders.

    NaN and infinities, which JSON lacks, become strings, as does anything but numbers and lists.
    """
    if hasattr(value, "item"):  # NumPy's numbers, torch's
        value = value.item()
    if isinstance(value, Mapping):
        return {str(key): to_plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(each) for each in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else str(value)
    if value is None or isinstance(value, (bool, int)):
        return value
    return _FOLDERS.sub("", str(value))
