"""Build and load `disk_watch.c`, and read what it records."""

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

LIBRARY_VARIABLE = "DISK_WATCH"
_SOURCE = Path(__file__).with_suffix(".c")
_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What was done to the files of the folder.

    Attributes:
        kind: create, write, truncate, sync, rename, unlink, mkdir, or mark.
        path: of the file or folder; of a mark, its text.
        other: the new name, of a rename.
        inode: of the file or folder; 0 for what goes by names alone.
        offset: of a write; of a truncation, the new size.
        data: what was written.
    """

    kind: str
    path: str
    other: str
    inode: int
    offset: int
    data: bytes


def built_library(folder: Path) -> Path:
    """Compile the library in `folder`; skip the test where that cannot be."""
    if not sys.platform.startswith("linux") or shutil.which("gcc") is None:
        pytest.skip("needs Linux and gcc")
    library = folder / "disk_watch.so"
    command = list(map(str, ("gcc", "-shared", "-fPIC", "-O1", _SOURCE, "-o", library, "-ldl")))
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return library


def run_watched(library: Path, module: str, *arguments: str | Path) -> str:
    """Run a module in a process that has the library; return what it prints."""
    environment = {**os.environ, "LD_PRELOAD": str(library), LIBRARY_VARIABLE: str(library)}
    finished = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=_ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


class Watch:
    """The library, in a process that `run_watched` has started."""

    def __init__(self) -> None:
        path = os.environ[LIBRARY_VARIABLE]
        os.environ.pop("LD_PRELOAD", None)
        self._library = ctypes.CDLL(path)
        self._library.watch.argtypes = (ctypes.c_char_p, ctypes.c_int, ctypes.c_long, ctypes.c_int)
        self._library.mark.argtypes = (ctypes.c_char_p,)

    @contextmanager
    def failing(self, folder: Path, number: int, error: int) -> Iterator[None]:
        """Let one operation of the block fail, once: the one of that number, from 0."""
        self._library.watch(os.fsencode(folder), -1, number, error)
        try:
            yield
        finally:
            self._library.watch(b"", -1, -1, 0)

    @contextmanager
    def recording(self, folder: Path, operations: list[Operation]) -> Iterator[None]:
        """Add what the block does to `operations`."""
        with tempfile.TemporaryFile() as log:
            self._library.watch(os.fsencode(folder), log.fileno(), -1, 0)
            try:
                yield
            finally:
                self._library.watch(b"", -1, -1, 0)
                log.seek(0)
                operations += _parsed(log.read())

    def mark(self, text: str) -> None:
        """Put a text between the operations."""
        self._library.mark(text.encode())


def _parsed(log: bytes) -> Iterator[Operation]:
    position = 0
    while position < len(log):
        end = log.index(b"\n", position)
        kind, *numbers = log[position:end].decode("ascii").split()
        inode, offset, *lengths = map(int, numbers)
        num_data, num_path, num_other = lengths
        path_end = end + 1 + num_path
        other_end = path_end + num_other
        position = other_end + num_data
        yield Operation(
            kind=kind,
            path=os.fsdecode(log[end + 1 : path_end]),
            other=os.fsdecode(log[path_end:other_end]),
            inode=inode,
            offset=offset,
            data=log[other_end:position],
        )
