"""The photographs of an index by content, and their perceptual hashes, which are stored once.

`alexnet-deploy index` stores none: hashing would add a fifth to the time of a small photograph.
Whoever needs them first has each photograph decoded again.
"""

import os
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.errors import PhotographError
from alexnet_deploy.index.finder import PhotographFinder
from alexnet_deploy.index.imported_roots import of_folders
from alexnet_deploy.index.ledger import BLOB, INTEGER, NULL, Ledger
from alexnet_deploy.index.roots import all_roots
from alexnet_deploy.index.storage import Storage
from alexnet_deploy.photographs.file_stamps import read_stamped
from alexnet_deploy.photographs.likeness import read_thumbnail
from alexnet_deploy.photographs.memory import DECODED, READ
from alexnet_deploy.photographs.perceptual_hash import HASH_BYTES, NUM_HASHES, hashes_of
from alexnet_deploy.photographs.pipeline import in_order

Result = TypeVar("Result")

_TABLE_SINCE = 6
"""The ledger's version."""
_ROWS_PER_COMMIT = 256
_AHEAD_PER_THREAD = 4
_GONE = "is gone, or was changed since it was indexed; run alexnet-deploy index, then this again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Read(Generic[Result]):
    """What was made of the bytes of a photograph.

    Attributes:
        sha256: of the bytes.
        path: of a file that has them, or was the first to.
        result: None if it could not be read.
        error: the reason.
    """

    sha256: bytes
    path: Path
    result: Result | None
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StoredHashes:
    """The contents that have hashes, the largest file first, equal ones in the index's order.

    Attributes:
        sha256s: (N,) of their bytes.
        hashes: (N, `NUM_HASHES`, `HASH_BYTES`) uint8.
    """

    sha256s: tuple[bytes, ...]
    hashes: NDArray[np.uint8]


def of_present_folders(ledger: Ledger) -> str:
    """Return the condition of SQL that a photograph is in a folder that is there."""
    absent = [root.id for root in all_roots(ledger) if not os.path.isdir(root.path)]
    return f"{of_folders(ledger)} AND root NOT IN ({', '.join(map(str, absent))})"


def unhashed(index: Storage) -> list[bytes]:
    """Return the SHA-256 of every content that has no hashes yet."""
    sql = f"SELECT v.sha256 FROM vectors v WHERE {_is_used(index)}"
    if index.ledger.version() >= _TABLE_SINCE:
        sql += " AND NOT EXISTS (SELECT 1 FROM hashes h WHERE h.position = v.position)"
    return [row[0] for row in index.ledger.rows(f"{sql} ORDER BY v.position", kinds=(BLOB,))]


def store_hashes(
    index: Storage,
    sha256s: Iterable[bytes],
    *,
    threads: int,
    on_read: Callable[[Path, str | None], None],
) -> None:
    """Hash contents and store the hashes; a run that is stopped loses the last 256 at most.

    Args:
        index: open for writing.
        sha256s: of the contents.
        threads: that decode and hash.
        on_read: called with the path of each photograph, and why it could not be read.
    """
    waiting: list[tuple[bytes, bytes]] = []
    hashed = read_contents(
        index, sha256s, lambda data: hashes_of(read_thumbnail(data)).tobytes(), threads=threads
    )
    with closing(hashed):
        for read in hashed:
            if read.result is not None:
                waiting.append((read.result, read.sha256))
            if len(waiting) == _ROWS_PER_COMMIT:
                _store(index, waiting)
                waiting = []
            on_read(read.path, read.error)
    _store(index, waiting)


def _store(index: Storage, rows: list[tuple[bytes, bytes]]) -> None:
    with index.ledger.transaction():
        index.ledger.execute_many(
            "INSERT OR REPLACE INTO hashes (position, hash) "
            "SELECT position, ? FROM vectors WHERE sha256 = ?",
            rows,
        )


def _is_used(index: Storage) -> str:
    """Return the condition that a vector `v` is of a file in a folder that is there."""
    is_here = of_present_folders(index.ledger)
    return f"EXISTS (SELECT 1 FROM photographs p WHERE p.position = v.position AND {is_here})"


def stored_hashes(index: Storage) -> StoredHashes:
    """Return all hashes of photographs that the index has.

    Raises:
        IncompatibleFileError: one is not as this program writes them.
    """
    rows: list[tuple[bytes, bytes]] = []
    if index.ledger.version() >= _TABLE_SINCE:
        found = index.ledger.rows(
            "SELECT v.sha256, h.hash, (SELECT max(size) FROM photographs p "
            "WHERE p.position = v.position) AS size FROM hashes h JOIN vectors v USING (position) "
            f"WHERE {_is_used(index)} ORDER BY size DESC, position",
            kinds=(BLOB, BLOB, INTEGER | NULL),
        )
        rows = [(sha256, hashes) for sha256, hashes, _ in found]
    expected = NUM_HASHES * HASH_BYTES
    for _, hashes in rows:
        if len(hashes) != expected:
            raise index.ledger.damaged(
                f"perceptual hashes have {len(hashes):,} bytes, expected {expected}"
            )
    joined = np.frombuffer(b"".join(hashes for _, hashes in rows), np.uint8)
    return StoredHashes(
        sha256s=tuple(sha256 for sha256, _ in rows),
        hashes=joined.reshape(-1, NUM_HASHES, HASH_BYTES),
    )


def read_contents(
    index: Storage, sha256s: Iterable[bytes], work: Callable[[bytes], Result], *, threads: int
) -> Generator[Read[Result], None, None]:
    """Read a file of each content, if one still has it, and yield what `work` makes of its bytes.

    Args:
        index: of the photographs.
        sha256s: of the contents; one that has left the index meanwhile is passed over.
        work: called in threads; it may raise `PhotographError`.
        threads: their number.
    """
    finder = PhotographFinder(index)

    def contents() -> Iterator[tuple[bytes, list[Path]]]:
        for sha256 in sha256s:
            position = index.position_of(sha256)
            files = [] if position is None else finder.files(position)
            if files:
                yield sha256, [file.path for file in files]

    def read(content: tuple[bytes, list[Path]]) -> Read[Result]:
        sha256, paths = content
        with READ.released_at_end(), DECODED.released_at_end():
            for path in paths:
                try:
                    data, stamp = read_stamped(path)
                except PhotographError:
                    continue
                if stamp.sha256 == sha256:
                    try:
                        return Read(sha256=sha256, path=path, result=work(data), error=None)
                    except PhotographError as error:
                        return Read(sha256=sha256, path=path, result=None, error=error.reason)
        return Read(sha256=sha256, path=paths[0], result=None, error=_GONE)

    yield from in_order(contents(), read, threads=threads, ahead=_AHEAD_PER_THREAD * threads)
