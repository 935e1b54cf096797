"""`skipped.jsonl`: the photographs of a run that could not be read.

One JSON object a line, {"path", "reason"}, each photograph once; there is no such file while there
is no such photograph.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from alexnet_deploy.errors import IncompatibleFileError
from alexnet_deploy.files.output_files import atomic_write
from alexnet_deploy.files.path_text import path_fields
from training.pictures import Failure

SKIPPED_NAME = "skipped.jsonl"


class SkippedPhotographs:
    """The list, and what has not been written yet.

    Args:
        folder: of the run; a list that lies there is gone on with.

    Raises:
        IncompatibleFileError: what lies there is no such list.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / SKIPPED_NAME
        self._lines: dict[str, str] = {}
        self._is_written = True
        try:
            text = self._path.read_text("ascii") if self._path.exists() else ""
            for line in text.splitlines():
                self._lines[json.loads(line)["path"]] = line
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise IncompatibleFileError(
                f"{self._path}: is no list of skipped photographs ({error}); move it away"
            ) from error

    def add(self, failures: Iterable[Failure]) -> None:
        """Note photographs; `save` writes them."""
        for failure in failures:
            if str(failure.path) not in self._lines:
                line = json.dumps(path_fields(failure.path) | {"reason": failure.reason})
                self._lines[str(failure.path)] = line
                self._is_written = False

    def save(self) -> None:
        """Write the list unless the disk has all of it.

        Raises:
            OutputError: it cannot be written; the earlier one is as it was.
        """
        if self._is_written:
            return
        with atomic_write(self._path) as file:
            file.writelines(f"{line}\n".encode("ascii") for line in self._lines.values())
        self._is_written = True
