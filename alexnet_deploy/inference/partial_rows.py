"""The rows of a run that has not finished, kept beside its output: a later run continues there.

    .vectors.npy.partial/     made for `vectors.npy`, its owner's alone, gone once that is there
        key.json              what the numbers depend on: `Provenance.row_fields`
        0.rows, 1.rows, ...   one file a layer: rows in the order in which they were computed
        journal.jsonl         a line for each photograph of each run, in the order given
        lock                  held by the run that is writing

A line of the journal is a photograph's path and, where it has a row, its slot in the files and a
checksum, with a hash of the file's path, size and time. A row is used again where the file still
has that size and time, and the numbers that checksum: so nothing is synced on the way, and a power
failure costs what the system had not yet written, some 30 s. Photographs that failed, that were
given in memory, or whose time proves nothing are computed again.

Memory grows by some 200 bytes for each row that an earlier run left. The disk holds the rows twice
while the output is written.
"""

import hashlib
import json
import os
import stat
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.errors import IncompatibleFileError, OutputError
from alexnet_deploy.files.locks import locked
from alexnet_deploy.files.output_files import errors_of, write_all
from alexnet_deploy.files.path_text import path_fields
from alexnet_deploy.files.records import json_object, read_record
from alexnet_deploy.files.regular_files import open_regular, read_file, remove_file
from alexnet_deploy.inference.activations import STORED
from alexnet_deploy.inference.provenance import Provenance
from alexnet_deploy.model.calibrated import ActivationRanges
from alexnet_deploy.photographs.file_stamps import is_settled, modified_ns

GROUP_BYTES = 16 * 2**20
"""Of rows that are read together: they compress and scan well, and take little memory."""

_KEY, _JOURNAL, _LOCK = "key.json", "journal.jsonl", "lock"
_NO_SLOT = -1
_UNREADABLE = "remove its folder"


@dataclass(frozen=True, slots=True)
class KeptRow:
    """A row that is there: its slot in the files, and the checksum of its numbers."""

    slot: int
    checksum: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RowGroup:
    """Rows of the output that follow each other.

    Attributes:
        paths: as they were given; - for a photograph in memory.
        errors: for each, the reason if it failed, else None.
        arrays: one for each layer, the first axis the rows; NaN where it failed.
    """

    paths: tuple[Path, ...]
    errors: tuple[str | None, ...]
    arrays: tuple[NDArray[np.floating], ...]


class PartialRows:
    """The rows that are there; made by `open_partial_rows`.

    Attributes:
        num_slots: rows in the files, of this run and of earlier ones.
    """

    def __init__(self, output: Path, place: Path, provenance: Provenance, stack: ExitStack) -> None:
        self._output = output
        self._place = place
        self._dtype = STORED[provenance.dtype]
        self._shapes = [layer.shape for layer in provenance.layers]
        self._files = [self._opened(f"{n}.rows", stack) for n in range(len(self._shapes))]
        self._journal = self._opened(_JOURNAL, stack)
        self._known: dict[bytes, KeptRow] = {}
        self.num_slots = 0
        self._start = self._end = self._read_journal()

    def find(self, stamp: bytes | None) -> KeptRow | None:
        """Return the row of a file with this stamp, if its numbers are those that were written."""
        row = None if stamp is None else self._known.get(stamp)
        if row is None:
            return None
        arrays = [np.empty(shape, self._dtype) for shape in self._shapes]
        is_whole = self._read(row.slot, arrays) and self._checksum(arrays) == row.checksum
        return row if is_whole else None

    def add(self, path: Path, stamp: bytes | None, arrays: Sequence[NDArray[np.floating]]) -> None:
        """Write the row of the next photograph.

        Args:
            path: of the photograph.
            stamp: that `stamp_of` returned before it was read.
            arrays: one for each layer, as `activations.stored` returns them.

        Raises:
            OutputError: no space.
        """
        row = KeptRow(self.num_slots, self._checksum(arrays))
        for number, array in enumerate(arrays):
            with errors_of(self._output):
                data = _bytes_of(array)
                write_all(self._files[number], data, row.slot * array.nbytes)
        self.num_slots += 1
        self.keep(path, stamp, row)

    def keep(self, path: Path, stamp: bytes | None, row: KeptRow) -> None:
        """Take a row that is there for the next photograph."""
        fields: dict[str, object] = {"slot": row.slot, "checksum": row.checksum}
        self._note(path, fields if stamp is None else fields | {"stamp": stamp.hex()})

    def fail(self, path: Path, error: str) -> None:
        """Write that the next photograph has no row, and why."""
        self._note(path, {"error": error})

    def groups(self) -> Iterator[RowGroup]:
        """Yield the rows of this run in order, some at a time.

        Raises:
            OutputError: the disk does not give back what was written.
        """
        row_bytes = self._dtype.itemsize * sum(map(_size, self._shapes))
        most = max(1, GROUP_BYTES // row_bytes)
        lines: list[dict[str, object]] = []
        with os.fdopen(os.dup(self._journal), "rb") as journal:
            journal.seek(self._start)
            for line in journal:
                lines.append(json.loads(line))
                if len(lines) == most:
                    yield self._group(lines)
                    lines = []
        if lines:
            yield self._group(lines)

    def _group(self, lines: list[dict[str, object]]) -> RowGroup:
        arrays = tuple(np.empty((len(lines), *shape), self._dtype) for shape in self._shapes)
        for number, line in enumerate(lines):
            row = [array[number] for array in arrays]
            if "error" in line:
                for array in row:
                    array.fill(np.nan)
            elif not self._read(int(str(line["slot"])), row):
                raise OutputError(
                    f"{self._output}: rows that were written are no longer in {self._place}; "
                    "check the disk, and run again"
                )
        return RowGroup(
            paths=tuple(Path(str(line["path"])) for line in lines),
            errors=tuple(None if "error" not in line else str(line["error"]) for line in lines),
            arrays=arrays,
        )

    def _read(self, slot: int, row: Sequence[NDArray[np.floating]]) -> bool:
        """Fill the arrays of a row; return whether the files have all of it."""
        with errors_of(self._output):
            pairs = zip(self._files, row, strict=True)
            return all(_read_all(file, array, slot * array.nbytes) for file, array in pairs)

    def _checksum(self, arrays: Sequence[NDArray[np.floating]]) -> int:
        checksum = 0
        for array in arrays:
            checksum = zlib.crc32(_bytes_of(array), checksum)
        return checksum

    def _note(self, path: Path, fields: dict[str, object]) -> None:
        line = f"{json.dumps(path_fields(path) | fields)}\n".encode("ascii")
        with errors_of(self._output):
            write_all(self._journal, memoryview(line), self._end)
        self._end += len(line)

    def _opened(self, name: str, stack: ExitStack) -> int:
        path = self._place / name
        with errors_of(path):
            descriptor = open_regular(path, os.O_RDWR | os.O_CREAT, to_write=True)
        stack.callback(os.close, descriptor)
        return descriptor

    def _read_journal(self) -> int:
        """Take up what earlier runs have written; return where that ends, and cut off the rest."""
        end = 0
        with errors_of(self._place / _JOURNAL):
            with os.fdopen(os.dup(self._journal), "rb") as journal:
                for line in journal:
                    if not self._take(line):
                        break
                    end += len(line)
            os.ftruncate(self._journal, end)
        return end

    def _take(self, line: bytes) -> bool:
        """Return whether a line is whole."""
        try:
            fields = json.loads(line)
            slot, checksum = fields.get("slot", _NO_SLOT), fields.get("checksum", 0)
            stamp = bytes.fromhex(fields.get("stamp", ""))
        except (ValueError, TypeError, AttributeError, RecursionError):
            return False
        are_whole = type(slot) is int and type(checksum) is int and line.endswith(b"\n")
        # Slots are given one after the other, so that a damaged number leaves no hole in the files.
        if not are_whole or not _NO_SLOT <= slot <= self.num_slots:
            return False
        if stamp and slot != _NO_SLOT:
            self._known[stamp] = KeptRow(slot, checksum)
        self.num_slots = max(self.num_slots, slot + 1)
        return True


@contextmanager
def open_partial_rows(
    output: Path, provenance: Provenance, notify: Callable[[str], None] = lambda _: None
) -> Iterator[PartialRows]:
    """Yield the rows that an earlier run for `output` left, if they are of the same provenance.

    They are removed when the block ends. Where it fails they stay, once there are any.

    Args:
        output: as the user named it.
        provenance: of this run.
        notify: called with a line for people: what is continued, discarded or left.

    Raises:
        OutputError: another run is writing to `output`; no space, no such folder, no permission.
        IncompatibleFileError: what is in the place of the rows is none of ours.
    """
    place = _place_of(output)
    with _locked(place, output), ExitStack() as stack:
        _check_key(place, provenance, output, notify)
        rows = PartialRows(output, place, provenance, stack)
        if rows.num_slots:
            notify(
                f"{output}: continues where a run has stopped, {rows.num_slots:,} rows are there"
            )
        try:
            yield rows
        except BaseException:
            if rows.num_slots:
                notify(f"{output}: not finished; run the same to continue it, or remove {place}")
            else:
                _remove(place)
            raise
        _remove(place)


def ranges_left(output: Path) -> ActivationRanges | None:
    """Return the int8 ranges of the rows that a stopped run for `output` left, if it had any.

    Whether there are rows, and whether they are of use, `open_partial_rows` sees.
    """
    path = _place_of(output) / _KEY
    with suppress(OSError, IncompatibleFileError):
        text = read_file(path, _UNREADABLE, follow_links=False)
        fields = json_object(text, str(path), _UNREADABLE)
        return read_record(ActivationRanges, fields.get("ranges", {}), str(path), _UNREADABLE)
    return None


def stamp_of(source: object) -> bytes | None:
    """Return a hash of a file's path, size and time; None for what is not one, or just changed."""
    if not isinstance(source, Path):
        return None
    try:
        status = os.stat(source)
    except (OSError, ValueError):
        return None
    time_ns = modified_ns(status)
    if not stat.S_ISREG(status.st_mode) or not is_settled(time_ns):
        return None
    text = f"{status.st_size} {time_ns} ".encode() + os.fsencode(os.path.abspath(source))
    return hashlib.blake2b(text, digest_size=16).digest()


def _bytes_of(array: NDArray[np.floating]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _read_all(file: int, array: NDArray[np.floating], offset: int) -> bool:
    """Fill an array; return whether the file goes so far."""
    data = _bytes_of(array)
    while data:
        num_read = os.preadv(file, [data], offset)
        if not num_read:
            return False
        data, offset = data[num_read:], offset + num_read
    return True


def _size(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape))


def _place_of(output: Path) -> Path:
    """Return the folder for an output: beside the file that a link leads to, beside a pipe."""
    is_file = not os.path.exists(output) or os.path.isfile(output)
    target = Path(os.path.realpath(output)) if is_file else output
    return target.with_name(f".{target.name}.partial")


@contextmanager
def _locked(place: Path, output: Path) -> Iterator[None]:
    """Hold the lock in the folder, which is made if need be."""

    def refusal(_: int) -> OutputError:
        return OutputError(
            f"{output}: another process is writing it; wait until it has finished, or choose "
            "another name"
        )

    with ExitStack() as stack:
        while True:  # since a run that has just finished removes the lock, and then the folder
            _make(place, output)
            try:
                descriptor = stack.enter_context(locked(place / _LOCK, refusal))
            except OutputError as error:
                if not isinstance(error.__cause__, FileNotFoundError):
                    raise
            else:
                if os.fstat(descriptor).st_nlink:
                    break
        yield


def _make(place: Path, output: Path) -> None:
    with errors_of(output):
        try:
            os.mkdir(place, 0o700)
        except FileExistsError:
            with suppress(FileNotFoundError):
                status = os.lstat(place)
                if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
                    # Whoever made it could let any numbers appear in the output.
                    raise IncompatibleFileError(
                        f"{place}: is not a folder of yours; remove it, or choose another output"
                    ) from None


def _check_key(
    place: Path, provenance: Provenance, output: Path, notify: Callable[[str], None]
) -> None:
    """Remove rows that are of another provenance, and write the one of those to come."""
    key = json.dumps(provenance.row_fields())
    path = place / _KEY
    try:
        old = read_file(path, _UNREADABLE, follow_links=False).decode("utf-8", "replace")
    except FileNotFoundError:
        old = ""
    if old == key:
        return
    differences = _differences(old, key)
    if differences:
        notify(
            f"{output}: begins anew, since a run that has stopped had another {differences}; its "
            "rows are removed"
        )
    with errors_of(place):
        _remove_files(place)
    with errors_of(path):
        descriptor = open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, to_write=True)
        try:
            write_all(descriptor, memoryview(key.encode("ascii")), 0)
        finally:
            os.close(descriptor)


def _differences(old: str, key: str) -> str:
    """Return what differs in words; "" if a run stopped before it had written the key."""
    try:
        before, now = json.loads(old), json.loads(key)
        names = [name for name in before | now if before.get(name) != now.get(name)]
    except (ValueError, AttributeError, TypeError):
        return ""
    return " and ".join(name.replace("_", " ") for name in names)


def _remove(place: Path) -> None:
    """Remove the folder; the lock in it last, for a process that waits for it."""
    with suppress(OSError):
        _remove_files(place)
        remove_file(place / _LOCK)
        os.rmdir(place)


def _remove_files(place: Path) -> None:
    for name in os.listdir(place):
        if name != _LOCK:
            remove_file(place / name)
