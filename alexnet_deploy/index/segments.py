"""The vectors of an index on disk: append-only, memory-mapped files of float16 rows.

D is the dimension. Position p is row p % R of segment p // R, where R is the manifest's
`segment_rows`. Which rows are committed is known only to the ledger.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.errors import Argument, IncompatibleFileError
from alexnet_deploy.files.output_files import errors_of, write_all
from alexnet_deploy.files.regular_files import (
    ForeignEntryError,
    open_folder,
    open_regular,
    remove_file,
)

FOLDER_NAME = "vectors"
_ROW_TYPE = np.dtype("<f2")
_SEGMENT_NAME = re.compile(r"([0-9]{5}|[1-9][0-9]{5,8})\.f16")


class SegmentUnreadableError(IncompatibleFileError):
    """A segment is missing, or shorter than the ledger requires."""


class Segments:
    """The files `vectors/00000.f16`, `00001.f16`, ...

    Args:
        directory: of the index.
        dimension: D.
        segment_rows: R.
    """

    def __init__(self, directory: Path, *, dimension: int, segment_rows: int) -> None:
        self._folder = directory / FOLDER_NAME
        self._descriptor: int | None = None
        self._dimension = dimension
        self._segment_rows = segment_rows
        self._row_bytes = dimension * _ROW_TYPE.itemsize
        self._maps: dict[int, NDArray[np.float16]] = {}

    def path(self, segment: int) -> Path:
        """Return the file of a segment."""
        return self._folder / f"{segment:05d}.f16"

    def numbers(self) -> list[int]:
        """Return the numbers of the segments that have a file, ascending."""
        try:
            names = os.listdir(self._open_folder())
        except OSError as error:
            raise IncompatibleFileError(
                f"{self._folder}: cannot be read ({error.strerror or error}); restore it from a "
                "copy, or index again into another directory"
            ) from error
        return sorted(int(name[:-4]) for name in names if _SEGMENT_NAME.fullmatch(name))

    def spans(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Yield (segment, first row, row after the last) for the positions start .. stop."""
        while start < stop:
            segment, row = divmod(start, self._segment_rows)
            end = min(self._segment_rows, row + stop - start)
            yield segment, row, end
            start += end - row

    def append(self, position: int, rows: NDArray[np.float16]) -> None:
        """Write `rows`, (N, D), from `position` on, overwriting what is there; then call `sync`.

        Raises:
            IncompatibleFileError: a segment ends before `position`.
            OutputError: no space, no permission.
        """
        taken = 0
        for segment, first, end in self.spans(position, position + len(rows)):
            path = self.path(segment)
            data = rows[taken : taken + end - first].astype(_ROW_TYPE).tobytes()
            taken += end - first
            with errors_of(path), self._opened(segment, os.O_RDWR | os.O_CREAT) as descriptor:
                if os.fstat(descriptor).st_size < first * self._row_bytes:
                    raise self._too_short(segment, first, os.fstat(descriptor).st_size)
                write_all(descriptor, memoryview(data), first * self._row_bytes)

    def sync(self, start: int, stop: int) -> None:
        """Sync the positions start .. stop to disk, so that they survive a power failure.

        Raises:
            OutputError: the disk reports an error.
        """
        for segment, first, _ in self.spans(start, stop):
            with errors_of(self.path(segment)):
                with self._opened(segment, os.O_RDONLY) as descriptor:
                    os.fsync(descriptor)
                if first == 0:  # the file's name is new
                    os.fsync(self._open_folder())

    def rows(self, segment: int, num_rows: int) -> NDArray[np.float16]:
        """Return the first `num_rows` of a segment, (N, D), memory-mapped, read-only.

        Raises:
            IncompatibleFileError: the file is missing or has fewer rows.
        """
        mapped = self._maps.get(segment)
        if mapped is None or len(mapped) < num_rows:
            mapped = self._map(segment, num_rows)
            self._maps[segment] = mapped
        return mapped[:num_rows]

    def take(self, positions: NDArray[np.int64]) -> NDArray[np.float16]:
        """Return a copy of the rows at `positions`, (N, D), in that order."""
        out = np.empty((len(positions), self._dimension), np.float16)
        segments, rows = np.divmod(positions, self._segment_rows)
        for segment in np.unique(segments):
            here = segments == segment
            wanted = rows[here]
            out[here] = self.rows(int(segment), int(wanted.max()) + 1)[wanted]
        return out

    def num_whole_rows(self, segment: int) -> int:
        """Return how many rows the file of a segment has; 0 where there is no such file."""
        try:
            with self._opened(segment, os.O_RDONLY) as descriptor:
                return os.fstat(descriptor).st_size // self._row_bytes
        except (FileNotFoundError, ForeignEntryError):
            return 0

    def remove(self, segment: int) -> None:
        """Delete a segment that the ledger no longer names; existing memory maps stay valid."""
        self._maps.pop(segment, None)
        with errors_of(self.path(segment)), suppress(FileNotFoundError):
            remove_file(self.path(segment).name, folder=self._open_folder())

    def close(self) -> None:
        """Let go of the maps, and with them of the files; no row may be in use any more."""
        self._maps.clear()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open_folder(self) -> int:
        """Return the descriptor in which every segment is opened, so that no link leads away."""
        if self._descriptor is None:
            self._descriptor = open_folder(self._folder)
        return self._descriptor

    @contextmanager
    def _opened(self, segment: int, flags: int) -> Iterator[int]:
        name = self.path(segment).name
        descriptor = open_regular(
            name, flags, folder=self._open_folder(), to_write=bool(flags & os.O_RDWR)
        )
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _map(self, segment: int, num_rows: int) -> NDArray[np.float16]:
        path = self.path(segment)
        try:
            with self._opened(segment, os.O_RDONLY) as descriptor:
                size = os.fstat(descriptor).st_size
                if size < num_rows * self._row_bytes:
                    raise self._too_short(segment, num_rows, size)
                shape = (size // self._row_bytes, self._dimension)
                with open(descriptor, "rb", closefd=False) as file:
                    return np.memmap(file, _ROW_TYPE, "r", shape=shape)
        except OSError as error:
            raise SegmentUnreadableError(
                f"{path}: cannot be read ({error.strerror or error}), and the ledger names "
                f"{num_rows:,} vectors in it; restore it from a copy, or index with ",
                Argument("repair", True),
                " to embed their photographs again",
            ) from error

    def _too_short(self, segment: int, num_rows: int, size: int) -> IncompatibleFileError:
        return SegmentUnreadableError(
            f"{self.path(segment)}: has {size:,} bytes, the ledger names {num_rows:,} vectors of "
            f"{self._row_bytes:,} in it; restore it from a copy, or index with ",
            Argument("repair", True),
            " to embed their photographs again",
        )


def float16_vector(
    activations: NDArray[np.float32], layer: str
) -> tuple[NDArray[np.float16] | None, str | None]:
    """Round activations to a vector, (D,), or return None and the reason if they do not fit.

    Args:
        activations: of one photograph, any shape; flattened in C order.
        layer: its name, for the message.
    """
    with np.errstate(over="ignore"):  # checked on the next line
        row = activations.ravel().astype(np.float16)
    if np.isfinite(row).all():
        return row, None
    largest = float(np.abs(activations).max())
    if np.isnan(largest):
        return None, f"its {layer} activations are not numbers (NaN)"
    return None, (
        f"its {layer} activations reach {largest:.3g}, an index holds up to 65504 (float16); "
        "index a later layer"
    )


def vector_checksum(row: NDArray[np.float16]) -> bytes:
    """Return an 8-byte checksum of a row."""
    return hashlib.sha256(row.astype(_ROW_TYPE).tobytes()).digest()[:8]
