"""The results file, rewritten after each check, beside that of an earlier run."""

import dataclasses
import json
import math
import os
import re
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

from gpu_checks.check import Result, Status

# The file is shared, so local folders are removed.
_FOLDERS = re.compile(r"(?<![\w.~:/-])/(?:[^/\s'\",;:()]+/)+")


class Record:
    """Results so far; if killed at any moment, a file holds those of the finished checks.

    Attributes:
        path: their file: FILE.partial.json until all checks have had their turn, then FILE.json, so
            that earlier results are not lost before.
    """

    def __init__(self, path: Path, environment: Result, wheels: tuple[str, ...]) -> None:
        """Start the file.

        Args:
            path: the final file; its folder is created.
            environment: its figures come first in the file.
            wheels: names of those unpacked.

        Raises:
            OSError: it cannot be written.
        """
        self._complete = path
        self.path = path.with_name(f"{path.stem}.partial{path.suffix}")
        date = datetime.now(UTC).date().isoformat()
        self._head = {"date": date, "wheels": wheels, **environment.figures}
        self._results = [environment]
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(f"{path}: is a folder")
        self._write(complete=False)

    def counts(self) -> dict[Status, int]:
        """Return the number of checks by status."""
        counted = Counter(result.status for result in self._results)
        statuses: tuple[Status, ...] = get_args(Status)
        return {status: counted[status] for status in statuses}

    def add(self, result: Result) -> None:
        """Add a result and write the file."""
        self._results.append(result)
        self._write(complete=False)

    def finish(self) -> None:
        """Replace earlier results, unless a check had no time."""
        if not self.counts()["no-time"]:
            self._write(complete=True)
            os.replace(self.path, self._complete)
            self.path = self._complete

    def _write(self, *, complete: bool) -> None:
        checks = [dataclasses.asdict(result) for result in self._results]
        checks[0]["figures"] = {}  # they are the header
        seconds = sum(result.seconds for result in self._results)
        content = {
            **self._head,
            "complete": complete,
            "summary": self.counts(),
            "seconds": seconds,
            "checks": checks,
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
