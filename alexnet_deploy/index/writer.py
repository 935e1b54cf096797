"""Write one batch of photographs to an index: the vectors, then the commit that names them."""

import dataclasses
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.errors import PhotographError
from alexnet_deploy.index.ledger import BLOB, NULL, Ledger
from alexnet_deploy.index.scan import Task
from alexnet_deploy.index.segments import float16_vector, vector_checksum
from alexnet_deploy.index.storage import Storage
from alexnet_deploy.inference.run import PhotographResult
from alexnet_deploy.model.spec import ModelSpec
from alexnet_deploy.photographs.file_stamps import read_stamped
from alexnet_deploy.photographs.pipeline import Loaded, crop_loader


@dataclass(slots=True, kw_only=True)
class BatchCounts:
    """The outcome of a batch.

    Attributes:
        num_embedded: embedded.
        num_reused: new or changed, but the content already had a vector.
        num_unchanged: touched, but with the same content.
        num_failed: failed, with a reason.
        results: as given to `commit`, plus the failures that it found.
    """

    num_embedded: int = 0
    num_reused: int = 0
    num_unchanged: int = 0
    num_failed: int = 0
    results: list[PhotographResult[Path]] = field(default_factory=list)


class BatchWriter:
    """Load photographs for an index, and commit their results.

    Args:
        index: open for writing.
        spec: of the runner.
    """

    def __init__(self, index: Storage, spec: ModelSpec) -> None:
        self._index = index
        space = index.manifest.space
        self._load = crop_loader(spec, space.decode)
        self._layer = space.layer
        self._tasks: deque[Task] = deque()
        # By content hash: what has a row that is not committed yet, and why others got no vector.
        self._under_way: set[bytes] = set()
        self._reasons: dict[bytes, str] = {}

    def following(self, tasks: Iterator[Task]) -> Iterator[Path]:
        """Yield the files of `tasks`, and remember the tasks for `commit`."""
        for task in tasks:
            self._tasks.append(task)
            yield task.file

    def load(self, path: Path) -> Loaded:
        """Read a file; decode it only if its content has no vector yet. Called in threads.

        Raises:
            PhotographError: it cannot be read. A file that was read but cannot be decoded is
                returned with its stamp instead: that failure is final until the file changes.
        """
        data, stamp = read_stamped(path)
        if self._index.position_of(stamp.sha256) is not None:
            return Loaded(stamp=stamp)
        try:
            return dataclasses.replace(self._load(data), stamp=stamp)
        except PhotographError as error:
            return Loaded(error=error.reason, stamp=stamp)

    def needs_row(self, loaded: Loaded) -> bool:
        """Return whether the content is new, called in the order of the photographs.

        Otherwise a duplicate decoded at the same time would shift the following batches, and a
        resumed run would have different batches from an uninterrupted one.
        """
        assert loaded.stamp is not None
        sha256 = loaded.stamp.sha256
        if sha256 in self._under_way or self._index.position_of(sha256) is not None:
            return False
        self._under_way.add(sha256)
        return True

    def commit(self, results: Sequence[PhotographResult[Path]]) -> BatchCounts:
        """Write the vectors of a batch, then the rows that name them, atomically.

        Raises:
            OutputError: no space, for instance; the index is unchanged.
        """
        counts = BatchCounts()
        with committed_with(self._index, self._vectors(results)):
            for result in results:
                task = self._tasks.popleft()
                assert task.file == result.source
                self._record(task, result, counts)
        return counts

    def _vectors(self, results: Sequence[PhotographResult[Path]]) -> "NewVectors":
        """Round the new vectors to float16; one that does not fit becomes a failure.

        So do its copies that were loaded meanwhile, and those of a photograph with which the
        network overflows.
        """
        vectors = NewVectors()
        for result in results:
            if result.outputs is None and not result.has_overflowed:
                continue
            assert result.stamp is not None
            sha256, row, reason = result.stamp.sha256, None, result.error
            self._under_way.remove(sha256)
            if result.outputs is not None:
                row, reason = float16_vector(result.outputs[self._layer], self._layer)
            if row is None:
                self._reasons[sha256] = reason or ""
            else:
                self._reasons.pop(sha256, None)
                vectors.rows.append(row)
                vectors.sha256s.append(sha256)
        return vectors

    def _record(self, task: Task, result: PhotographResult[Path], counts: BatchCounts) -> None:
        """Write one photograph's row, and count it."""
        sha256 = None if result.stamp is None else result.stamp.sha256
        error = result.error or self._reasons.get(sha256 or b"")
        counts.results.append(dataclasses.replace(result, error=error))
        if error is not None:
            counts.num_failed += 1
            # What could not be opened is retried by each run.
            mtime_ns = None if result.stamp is None else task.mtime_ns
            self._write(task, (task.size, mtime_ns, None, None, "failed", error))
            return
        assert result.stamp is not None
        if result.outputs is not None:
            counts.num_embedded += 1
        elif self._indexed_content(task) == sha256:
            counts.num_unchanged += 1
        else:
            counts.num_reused += 1
        position = self._index.position_of(result.stamp.sha256)
        stamp = result.stamp
        self._write(task, (stamp.size, stamp.mtime_ns, sha256, position, "indexed", None))

    def _indexed_content(self, task: Task) -> bytes | None:
        """Return the hash of the content indexed under a task's path."""
        row = self._index.ledger.one(
            "SELECT sha256 FROM photographs WHERE root = ? AND path = ? AND status = 'indexed'",
            (task.root, task.path),
            kinds=(BLOB | NULL,),
        )
        return None if row is None else row[0]

    def _write(self, task: Task, values: tuple[Any, ...]) -> None:
        write_row(self._index.ledger, task.root, task.path, values)


@dataclass(slots=True, kw_only=True)
class NewVectors:
    """The new vectors of a batch, (D,) each, and their content hashes."""

    rows: list[NDArray[np.float16]] = field(default_factory=list)
    sha256s: list[bytes] = field(default_factory=list)


@contextmanager
def committed_with(index: Storage, vectors: NewVectors) -> Iterator[None]:
    """Append vectors and sync them, then commit what names them, and what the block writes.

    Raises:
        OutputError: no space, for instance; the index is unchanged.
    """
    start = index.next_position()
    stop = start + len(vectors.rows)
    if stop > start:
        index.segments.append(start, np.stack(vectors.rows))
        index.segments.sync(start, stop)
    with index.ledger.transaction():
        _insert_vectors(index.ledger, start, vectors)
        yield


def _insert_vectors(ledger: Ledger, start: int, vectors: NewVectors) -> None:
    pairs = zip(vectors.sha256s, vectors.rows, strict=True)
    ledger.execute_many(
        "INSERT INTO vectors (position, sha256, checksum) VALUES (?, ?, ?)",
        (
            (position, sha256, vector_checksum(row))
            for position, (sha256, row) in enumerate(pairs, start)
        ),
    )
    ledger.execute("UPDATE settings SET next_position = ?", (start + len(vectors.rows),))


def write_row(ledger: Ledger, root: int, path: bytes, values: tuple[Any, ...]) -> None:
    """Write a photograph's row, or change it.

    Args:
        ledger: in a transaction.
        root: id of its root.
        path: in its root.
        values: size, mtime_ns, sha256, position, status and reason.
    """
    # Not ON CONFLICT, which consumes an id for each existing row.
    num_changed = ledger.execute(
        "UPDATE photographs SET size = ?, mtime_ns = ?, sha256 = ?, position = ?, status = ?, "
        "reason = ? WHERE root = ? AND path = ?",
        (*values, root, path),
    )
    if not num_changed:
        ledger.execute(
            "INSERT INTO photographs (size, mtime_ns, sha256, position, status, reason, root, "
            "path) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (*values, root, path),
        )
