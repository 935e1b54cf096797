"""The compressed vectors of an index on disk: `ann/`, a cache that can be deleted at any time.

    ann/compressed.json    what the files below are of; its rename makes them valid
    ann/00000.axes         float64: mean, axes, and the first step and the step of each number
    ann/00000.rows         a row for each vector, see `compression.row_type`; appended to
    ann/00000.coder        float32: the matrices and biases that make binary codes, if any
    ann/00000.bits         the binary code of each vector; appended to

Files of another fit have another number. Rows beyond those that the record counts are ignored and
overwritten. The directory may be a stranger's: nothing in it is run, every size is known before a
file is read, and what is not as it was written makes `ann/` useless, never the index.
"""

import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.files.output_files import atomic_write, errors_of, write_all
from alexnet_deploy.files.records import damaged, plain_fields
from alexnet_deploy.files.regular_files import open_folder, open_regular, remove_file
from alexnet_deploy.index.binary_codes import BinaryCoder
from alexnet_deploy.index.compressed_record import (
    AGAIN,
    FOLDER_NAME,
    RECORD_NAME,
    CompressedRecord,
    compressed_record,
)
from alexnet_deploy.index.compression import Compression, row_type
from alexnet_deploy.index.storage import Storage

_SUFFIXES = ("axes", "rows", "coder", "bits")
_FILE_NAME = re.compile(rf"[0-9]{{5}}\.({'|'.join(_SUFFIXES)})")
_MAX_NUMBERS = 2**26
_MAX_NUMBER = 1e6
_BLOCK_ROWS = 2**16


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Compressed:
    """The compressed vectors of an index, open for reading.

    Attributes:
        record: what they are.
        compression: of queries.
        positions: (N,) int64, ascending, of the rows.
        lengths: (N,) float32, 0 where a search has to compare the vector itself.
        codes: (N, d + 1) uint8, mapped into memory.
        coder: what makes the binary codes; None without.
        bits: (N, bits / 8) uint8, mapped into memory, those codes.
    """

    record: CompressedRecord
    compression: Compression
    positions: NDArray[np.int64]
    lengths: NDArray[np.float32]
    codes: NDArray[np.uint8]
    coder: BinaryCoder | None
    bits: NDArray[np.uint8]


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
        with suppress(FileNotFoundError):
            return _read(storage, record)
    raise damaged(str(folder), "files that its record names are missing", AGAIN)


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
        flags, files = os.O_RDWR | os.O_CREAT, {}
        for suffix in _SUFFIXES:
            file = open_regular(f"{fit:05d}.{suffix}", flags, folder=descriptor, to_write=True)
            stack.callback(os.close, file)
            files[suffix] = file
        yield CompressedWriter(folder, fit, descriptor, files)


class CompressedWriter:
    """See `compressed_writer`."""

    def __init__(self, folder: Path, fit: int, descriptor: int, files: Mapping[str, int]) -> None:
        self._folder = folder
        self._fit = fit
        self._descriptor = descriptor
        self._files = files

    def begin(self, compression: Compression, coder: BinaryCoder | None) -> None:
        """Write what a new fit turns vectors into points and codes with."""
        self._write("axes", 0, _packed(compression).tobytes())
        layers = () if coder is None else zip(coder.weights, coder.biases, strict=True)
        arrays = [array.astype("<f4").tobytes() for layer in layers for array in layer]
        self._write("coder", 0, b"".join(arrays))

    def append(self, num_before: int, rows: NDArray[np.void], bits: NDArray[np.uint8]) -> None:
        """Write rows and binary codes, (N, bits / 8), after `num_before` others.

        What lay there is cut off.
        """
        self._write("rows", num_before * rows.dtype.itemsize, rows.tobytes())
        self._write("bits", num_before * bits.shape[1], bits.tobytes())

    def _write(self, suffix: str, start: int, data: bytes) -> None:
        with errors_of(self._folder / f"{self._fit:05d}.{suffix}"):
            os.ftruncate(self._files[suffix], start)
            write_all(self._files[suffix], memoryview(data), start)

    def commit(self, record: CompressedRecord) -> None:
        """Make what was written the compressed vectors of the index; files of other fits go."""
        path = self._folder / RECORD_NAME
        with errors_of(path):
            for file in (*self._files.values(), self._descriptor):
                os.fsync(file)
            if path.is_symlink():  # whose target would be replaced
                remove_file(RECORD_NAME, folder=self._descriptor)
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
        names = [] if but is not None else [RECORD_NAME]
        files = filter(_FILE_NAME.fullmatch, os.listdir(descriptor))
        for name in (*names, *(name for name in files if int(name[:5]) != but)):
            with suppress(FileNotFoundError):
                remove_file(name, folder=descriptor)


def _read(storage: Storage, record: CompressedRecord) -> Compressed:
    """Map and check the files of a record.

    Raises:
        FileNotFoundError: one of them is missing.
        IncompatibleFileError: one of them is damaged.
    """
    path, dimension = storage.directory / FOLDER_NAME, storage.manifest.space.dimension
    row, num_rows = row_type(record.num_axes), record.num_rows
    code = np.dtype(("u1", (record.bits // 8,)))
    try:
        with _opened_folder(path) as folder:
            names = {suffix: f"{record.fit:05d}.{suffix}" for suffix in _SUFFIXES}
            num_numbers = dimension + (dimension + 2) * record.num_axes + 2
            numbers = _numbers(folder, names["axes"], "<f8", num_numbers)
            rows = _mapped(folder, names["rows"], row, num_rows)
            positions, lengths = _columns(rows, record.next_position)
            return Compressed(
                record=record,
                compression=_unpacked(numbers, record, dimension),
                positions=positions,
                lengths=lengths,
                codes=rows["code"],
                coder=_coder(folder, names["coder"], record, dimension) if record.bits else None,
                bits=_mapped(folder, names["bits"], code, num_rows if record.bits else 0),
            )
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise damaged(str(path), getattr(error, "strerror", None) or error, AGAIN) from error


def _mapped(folder: int, name: str, kind: np.dtype[Any], count: int) -> NDArray[Any]:
    descriptor = open_regular(name, os.O_RDONLY, folder=folder)
    with open(descriptor, "rb") as file:
        size = os.fstat(descriptor).st_size
        if size < count * kind.itemsize:
            raise ValueError(f"{name} has {size:,} bytes, expected {count * kind.itemsize:,}")
        if not size or not count:
            return np.empty(0, kind)
        return np.memmap(file, kind, "r", shape=(count,))


def _numbers(folder: int, name: str, kind: str, count: int) -> NDArray[Any]:
    """Read a file of numbers, which are finite.

    Raises:
        ValueError: they are not, or too many.
    """
    if count > _MAX_NUMBERS:
        raise ValueError(f"{name} would have {count:,} numbers, more than {_MAX_NUMBERS:,}")
    numbers = np.array(_mapped(folder, name, np.dtype(kind), count))
    if not np.abs(numbers).max() < _MAX_NUMBER:  # also where one is not a number
        raise ValueError(f"{name} holds numbers that are not finite, or too large")
    return numbers


def _coder(folder: int, name: str, record: CompressedRecord, dimension: int) -> BinaryCoder:
    widths = record.coder_widths
    if widths[0] != dimension:
        raise ValueError(f"its coder takes {widths[0]} numbers, a vector has {dimension}")
    sizes = [size for one, after in itertools.pairwise(widths) for size in (one * after, after)]
    numbers = _numbers(folder, name, "<f4", sum(sizes))
    parts = np.split(numbers, np.cumsum(sizes)[:-1])
    weights = [part.reshape(-1, width) for part, width in zip(parts[::2], widths, strict=False)]
    return BinaryCoder(weights=tuple(weights), biases=tuple(parts[1::2]))


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
