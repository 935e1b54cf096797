"""The compressed vectors of an index on disk: `ann/`, a cache that can be deleted at any time.

    ann/compressed.json    what the files below are of; its rename makes them valid
    ann/00000.axes         float64: mean, axes, and the first step and the step of each number
    ann/00000.rows         a row for each vector, see `compression.row_type`; appended to

Files of another fit have another number. Rows beyond those that the record counts are ignored and
overwritten. The directory may be a stranger's: nothing in it is run, every size is known before a
file is read, and what is not as it was written makes `ann/` useless, never the index.
"""

import json
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.errors import IncompatibleFileError
from alexnet_deploy.files.output_files import atomic_write, errors_of, write_all
from alexnet_deploy.files.records import Within, damaged, plain_fields, read_record
from alexnet_deploy.files.regular_files import open_folder, open_regular, read_file, remove_file
from alexnet_deploy.index.compression import Compression, row_type
from alexnet_deploy.index.ledger import REAL
from alexnet_deploy.index.storage import Storage

FOLDER_NAME = "ann"
_RECORD_NAME = "compressed.json"
_MAX_RECORD_BYTES = 2**16
"""Ours have about one thousand."""
_FILE_NAME = re.compile(r"[0-9]{5}\.(axes|rows)")
_AGAIN = "delete it, and index again: it is only a cache"
_MAX_NUMBER = 1e6
_BLOCK_ROWS = 2**16

NUM_NEAREST = 10
"""For which shares and recall are measured."""
EFFORTS = (20, 50, 100, 200, 500, 1000)
"""Vectors read, for which recall is measured."""
MAX_NUMBERS = 2**26
"""In a file of axes: 512 MB."""
_Name = Annotated[str, Within(1, 1000)]
_Share = Annotated[float, Within(0, 1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressedRecord:
    """The contents of `compressed.json`.

    Attributes:
        identity: of the network, as in the manifest.
        layer: of the vectors, as in the manifest.
        run: the ledger's last run when rows were last appended.
        started: when that run started, in seconds since 1970. A ledger in which no such run has
            finished is another, or an older copy: its positions may hold other vectors.
        fit: the number of the files.
        num_axes: d.
        error: of the `Compression`.
        num_rows: vectors that have a row.
        next_position: before it all had one, then.
        num_fitted: rows when the axes were fitted.
        share_lost: what the axes leave out of the variance of those rows.
        share_lost_later: the same of the rows since then; 0 where there are none.
        num_measured: rows when the next two were measured, by some of the index's own vectors.
        share_read: of the vectors, to prove which 10 are the nearest; the median.
        recall: of the nearest 10, for each of `EFFORTS`.
    """

    FORMAT: ClassVar[int] = 1

    identity: _Name
    layer: _Name
    run: Annotated[int, Within(1)]
    started: float
    fit: Annotated[int, Within(0, 99999)]
    num_axes: Annotated[int, Within(1, 2**8)]
    error: Annotated[float, Within(0, 2)]
    num_rows: Annotated[int, Within(1, 2**40)]
    next_position: Annotated[int, Within(1)]
    num_fitted: Annotated[int, Within(1, 2**40)]
    share_lost: _Share
    share_lost_later: _Share = 0.0
    num_measured: Annotated[int, Within(0, 2**40)] = 0
    share_read: _Share = 1.0
    recall: tuple[_Share, ...] = ()

    def recall_of(self, effort: int) -> float | None:
        """Return the recall measured for `effort`, or for less; None where none was."""
        known = [one for least, one in zip(EFFORTS, self.recall, strict=False) if least <= effort]
        return known[-1] if known else None

    def line(self) -> str:
        """Say to a person what compressing has brought."""
        recall = self.recall_of(100)
        return (
            f"{self.num_rows:,} vectors are compressed to {self.num_axes + 1} bytes each; a search "
            f"for {NUM_NEAREST} reads {self.share_read:.2%} of them to prove that it missed none"
            + ("" if recall is None else f", with an effort of 100 it finds {recall:.1%} of them")
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Compressed:
    """The compressed vectors of an index, open for reading.

    Attributes:
        record: what they are.
        compression: of queries.
        positions: (N,) int64, ascending, of the rows.
        lengths: (N,) float32, 0 where a search has to compare the vector itself.
        codes: (N, d + 1) uint8, mapped into memory.
    """

    record: CompressedRecord
    compression: Compression
    positions: NDArray[np.int64]
    lengths: NDArray[np.float32]
    codes: NDArray[np.uint8]


def record_stamp(directory: Path) -> tuple[int, int, int] | None:
    """Return what changes when the record does; None where there is none."""
    try:
        status = os.lstat(directory / FOLDER_NAME / _RECORD_NAME)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns


def read_compressed(storage: Storage) -> Compressed | None:
    """Read the compressed vectors of an index, in a snapshot of its ledger; None without any.

    Raises:
        IncompatibleFileError: they are damaged, or of another index, or of another state of it.
    """
    folder = storage.directory / FOLDER_NAME
    for _ in range(2):  # a new fit may take the place of the one whose record was read
        record = compressed_record(storage)
        if record is None:
            return None
        with suppress(FileNotFoundError), _opened_folder(folder) as descriptor:
            return _read(storage, record, descriptor)
    raise damaged(str(folder), "files that its record names are missing", _AGAIN)


def compressed_record(storage: Storage) -> CompressedRecord | None:
    """Return the record of the compressed vectors, whose files are not looked at; None without any.

    Raises:
        IncompatibleFileError: as `read_compressed`.
    """
    folder = storage.directory / FOLDER_NAME
    path = folder / _RECORD_NAME
    try:
        with _opened_folder(folder):  # which is no link
            text = read_file(path, _AGAIN, follow_links=False)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise damaged(str(folder), error.strerror or error, _AGAIN) from error
    if len(text) > _MAX_RECORD_BYTES:  # to check millions of numbers takes minutes
        raise damaged(str(path), f"it has {len(text):,} bytes", _AGAIN)
    record = read_record(CompressedRecord, text, str(path), _AGAIN)
    _check_belongs(storage, record)
    return record


@contextmanager
def compressed_writer(directory: Path, fit: int) -> Iterator["CompressedWriter"]:
    """Open the files of a fit; the caller holds the index's lock.

    Raises:
        OutputError: no space, no permission.
        IncompatibleFileError: a link or a folder is in the place of one of them.
    """
    folder = directory / FOLDER_NAME
    with errors_of(folder), ExitStack() as stack:
        with suppress(FileExistsError):
            folder.mkdir()
        descriptor = stack.enter_context(_opened_folder(folder))
        flags, files = os.O_RDWR | os.O_CREAT, []
        for suffix in ("axes", "rows"):
            file = open_regular(f"{fit:05d}.{suffix}", flags, folder=descriptor, to_write=True)
            stack.callback(os.close, file)
            files.append(file)
        yield CompressedWriter(folder, fit, descriptor, *files)


class CompressedWriter:
    """See `compressed_writer`."""

    def __init__(self, folder: Path, fit: int, descriptor: int, axes: int, rows: int) -> None:
        self._folder = folder
        self._fit = fit
        self._descriptor = descriptor
        self._axes = axes
        self._rows = rows

    def write_axes(self, compression: Compression) -> None:
        """Write what a new fit turns vectors into points with."""
        data = _packed(compression).tobytes()
        with errors_of(self._folder):
            os.ftruncate(self._axes, len(data))
            write_all(self._axes, memoryview(data), 0)

    def append(self, num_before: int, rows: NDArray[np.void]) -> None:
        """Write `rows` after `num_before` others; what lay there is cut off."""
        start = num_before * rows.dtype.itemsize
        with errors_of(self._folder):
            os.ftruncate(self._rows, start)
            write_all(self._rows, memoryview(rows.tobytes()), start)

    def commit(self, record: CompressedRecord) -> None:
        """Make what was written the compressed vectors of the index; files of other fits go."""
        path = self._folder / _RECORD_NAME
        with errors_of(path):
            for file in (self._axes, self._rows, self._descriptor):
                os.fsync(file)
            if path.is_symlink():  # whose target would be replaced
                remove_file(_RECORD_NAME, folder=self._descriptor)
        with atomic_write(path) as output:
            fields = {"format": record.FORMAT, **plain_fields(record)}
            output.write(json.dumps(fields, indent=1).encode() + b"\n")
        with errors_of(self._folder):
            os.fsync(self._descriptor)
        remove_compressed(self._folder.parent, but=self._fit)


def remove_compressed(directory: Path, *, but: int | None = None) -> None:
    """Delete the compressed vectors of an index; the caller holds its lock.

    Args:
        directory: of the index.
        but: the number of a fit that stays, with the record, while the files of others go.

    Raises:
        OutputError: no permission.
        IncompatibleFileError: a link or a folder is in the place of one of them.
    """
    folder = directory / FOLDER_NAME
    with errors_of(folder), suppress(FileNotFoundError), _opened_folder(folder) as descriptor:
        # The record first: without the others it would be damaged, without it they are nothing.
        names = [] if but is not None else [_RECORD_NAME]
        files = filter(_FILE_NAME.fullmatch, os.listdir(descriptor))
        for name in (*names, *(name for name in files if int(name[:5]) != but)):
            with suppress(FileNotFoundError):
                remove_file(name, folder=descriptor)


def _check_belongs(storage: Storage, record: CompressedRecord) -> None:
    space, path = storage.manifest.space, storage.directory / FOLDER_NAME
    sql = "SELECT started FROM runs WHERE id = ? AND finished IS NOT NULL"
    row = storage.ledger.one(sql, (record.run,), kinds=(REAL,))
    own = (space.identity, space.layer, None if row is None else row[0])
    if own != (record.identity, record.layer, record.started):
        raise IncompatibleFileError(
            f"{path}: is of another index, or of a later state of this one, which came from a "
            "copy; ",
            _AGAIN,
        )
    if record.next_position > storage.next_position():
        raise damaged(str(path), f"the next position is {record.next_position}", _AGAIN)


def _read(storage: Storage, record: CompressedRecord, folder: int) -> Compressed:
    """Map and check the files of a record.

    Raises:
        FileNotFoundError: one of them is missing.
    """
    path, dimension = storage.directory / FOLDER_NAME, storage.manifest.space.dimension
    num_numbers = dimension + (dimension + 2) * record.num_axes + 2
    try:
        if num_numbers > MAX_NUMBERS:
            raise ValueError(f"{record.num_axes} axes of {dimension} numbers are too many")
        numbers = _mapped(folder, f"{record.fit:05d}.axes", np.dtype("<f8"), num_numbers)
        rows = _mapped(folder, f"{record.fit:05d}.rows", row_type(record.num_axes), record.num_rows)
        positions, lengths = _columns(rows, record.next_position)
        return Compressed(
            record=record,
            compression=_unpacked(np.array(numbers), record, dimension),
            positions=positions,
            lengths=lengths,
            codes=rows["code"],
        )
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise damaged(str(path), getattr(error, "strerror", None) or error, _AGAIN) from error


def _mapped(folder: int, name: str, kind: np.dtype[Any], count: int) -> NDArray[Any]:
    descriptor = open_regular(name, os.O_RDONLY, folder=folder)
    with open(descriptor, "rb") as file:
        size = os.fstat(descriptor).st_size
        if size < count * kind.itemsize:
            raise ValueError(f"{name} has {size:,} bytes, expected {count * kind.itemsize:,}")
        return np.memmap(file, kind, "r", shape=(count,))


def _columns(
    rows: NDArray[np.void], next_position: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return positions and lengths, checked block by block, since a file may be all hole."""
    parts: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = []
    last = -1
    for start in range(0, len(rows), _BLOCK_ROWS):
        some = rows[start : start + _BLOCK_ROWS]
        positions, lengths = some["position"].astype(np.int64), some["length"].astype(np.float32)
        is_ascending = positions[0] > last and (positions[1:] > positions[:-1]).all()
        last = int(positions[-1])
        if not is_ascending or last >= next_position:
            raise ValueError("its positions are not those of vectors in their order")
        if not (lengths >= 0).all() or not np.isfinite(lengths).all():
            raise ValueError("a length is none")
        parts.append((positions, lengths))
    all_positions, all_lengths = zip(*parts, strict=True)
    return np.concatenate(all_positions), np.concatenate(all_lengths)


def _packed(compression: Compression) -> NDArray[np.float64]:
    parts = (compression.mean, compression.axes.ravel(), compression.lows, compression.steps)
    return np.concatenate(parts).astype("<f8")


def _unpacked(
    numbers: NDArray[np.float64], record: CompressedRecord, dimension: int
) -> Compression:
    """Return what `_packed` was given; a bound is none unless its axes are orthonormal.

    Raises:
        ValueError: they are not, or the steps are none.
    """
    num_axes, num_numbers = record.num_axes, record.num_axes + 1
    ends = np.cumsum((dimension, num_axes * dimension, num_numbers))
    mean, axes, lows, steps = np.split(numbers, ends)
    axes = axes.reshape(num_axes, dimension)
    # Also where one is not a number.
    if not (numbers.min() > -_MAX_NUMBER and numbers.max() < _MAX_NUMBER):
        raise ValueError("its axes are not finite")
    if not np.abs(axes @ axes.T - np.eye(num_axes)).max() < 1e-9:
        raise ValueError("its axes are not orthonormal")
    if not (steps > 0).all():
        raise ValueError("its steps are not positive")
    return Compression(
        mean=mean,
        axes=axes,
        lows=lows.astype(np.float32),
        steps=steps.astype(np.float32),
        error=record.error,
    )


@contextmanager
def _opened_folder(folder: Path) -> Iterator[int]:
    descriptor = open_folder(folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
