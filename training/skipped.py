"""`skipped.jsonl`: the photographs of a run that could not be read.

One JSON object per line, {"path", "reason"}, each photograph once; the file is created with the
first one.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from alexnet_deploy.files.output_files import atomic_write
from alexnet_deploy.files.path_text import path_fields
from alexnet_deploy.files.records import json_object, read_record
from alexnet_deploy.files.regular_files import read_file
from training.pictures import Failure

SKIPPED_NAME = "skipped.jsonl"
_AGAIN = "move the list away"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Skipped:
    path: str
    path_base64: str | None
    reason: str


class SkippedPhotographs:
    """The list of skipped photographs.

    Args:
        folder: of the run; an existing list is continued.

    Raises:
        IncompatibleFileError: the existing file is not such a list.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / SKIPPED_NAME
        self._lines: dict[str, str] = {}
        self._is_written = True
        try:
            content = read_file(self._path, _AGAIN)
        except FileNotFoundError:
            return
        for number, line in enumerate(content.decode("ascii", "replace").splitlines(), start=1):
            source = f"{self._path}: line {number}"
            fields = {"path_base64": None} | json_object(line, source, _AGAIN)
            self._lines[read_record(_Skipped, fields, source, _AGAIN).path] = line

    def add(self, failures: Iterable[Failure]) -> None:
        """Add photographs; `save` writes them."""
        for failure in failures:
            if str(failure.path) not in self._lines:
                line = json.dumps(path_fields(failure.path) | {"reason": failure.reason})
                self._lines[str(failure.path)] = line
                self._is_written = False

    def save(self) -> None:
        """Write the list if it has changed.

        Raises:
            OutputError: it cannot be written; an earlier one is left as it was.
        """
        if self._is_written:
            return
        with atomic_write(self._path) as file:
            file.writelines(f"{line}\n".encode("ascii") for line in self._lines.values())
        self._is_written = True
