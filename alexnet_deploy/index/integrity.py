"""Check the integrity of an index: sizes, counts, and the checksum of every vector."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.errors import Argument, IncompatibleFileError
from alexnet_deploy.index.imported_roots import imported_roots
from alexnet_deploy.index.ledger import BLOB, INTEGER
from alexnet_deploy.index.roots import Roots
from alexnet_deploy.index.segments import vector_checksum
from alexnet_deploy.index.storage import Storage

_BLOCK_ROWS = 512


def problems(index: Storage) -> Iterator[str]:
    """Yield a line for each problem of an index, reading all of it."""
    ledger = index.ledger
    for (line,) in ledger.rows("PRAGMA integrity_check"):
        if line != "ok":
            yield f"ledger: {line}"
    for table, row, other, _ in ledger.rows("PRAGMA foreign_key_check"):
        yield f"ledger: row {row} of {table} refers to a missing row of {other}"
    next_position = index.next_position()
    for (position,) in ledger.rows(
        "SELECT position FROM vectors WHERE position < 0 OR position >= ?", (next_position,)
    ):
        yield f"ledger: vector {position} lies beyond the {next_position} committed"
    for (key,) in ledger.rows(
        "SELECT p.id FROM photographs p JOIN vectors v USING (position) WHERE p.sha256 != v.sha256"
    ):
        yield f"ledger: photograph {key} has the vector of other content"
    roots = Roots(ledger)
    for key, root, path in ledger.rows(
        "SELECT id, root, path FROM photographs", kinds=(INTEGER, INTEGER, BLOB)
    ):
        try:
            roots.file(root, path)
        except IncompatibleFileError:
            yield f"ledger: photograph {key} has the path {path[:100]!r}, which none can have"
    pending = dict(
        ledger.rows("SELECT root, count(*) FROM photographs WHERE status = 'pending' GROUP BY root")
    )
    for imported in imported_roots(ledger):
        if num_lost := pending.pop(imported.id, 0):
            yield (
                f"{num_lost:,} rows of {imported.path} without a vector; alexnet-deploy index "
                "--from brings them back"
            )
    if num_pending := sum(pending.values()):
        yield f"{num_pending:,} photographs without a vector; alexnet-deploy index embeds them"
    for position, reason in damaged_vectors(index):
        yield f"vector {position}: {reason} ({_owners(index, position)})"


def damaged_vectors(index: Storage) -> Iterator[tuple[int, str]]:
    """Yield position and reason of each vector that is missing or not as written.

    Every vector that the ledger names is read, in blocks.
    """
    last = -1
    while rows := list(
        index.ledger.rows(
            "SELECT position, checksum FROM vectors WHERE position > ? ORDER BY position LIMIT ?",
            (last, _BLOCK_ROWS),
            kinds=(INTEGER, BLOB),
        )
    ):
        last = rows[-1][0]
        for position, checksum in rows:
            reason = _damage(index, position, checksum)
            # A pruning run may just have moved it.
            if reason is not None and index.ledger.one(
                "SELECT 1 FROM vectors WHERE position = ?", (position,)
            ):
                yield position, reason


def intact_rows(index: Storage, positions: Sequence[int]) -> NDArray[np.float16]:
    """Return a copy of the vectors at `positions`, (N, D), each as it was written.

    Raises:
        IncompatibleFileError: one is missing or has changed, as all have under a manifest that
            states another dimension.
    """
    rows = index.segments.take(np.array(positions, np.int64))
    for position, row in zip(positions, rows, strict=True):
        sql = "SELECT checksum FROM vectors WHERE position = ?"
        found = index.ledger.one(sql, (position,), kinds=(BLOB,))
        if found is None or found[0] != vector_checksum(row):
            raise IncompatibleFileError(
                f"index {index.directory}: vector {position} was changed since it was written; "
                "index with ",
                Argument("repair", True),
                " to embed its photograph again, or restore the index from a copy",
            )
    return rows


def _damage(index: Storage, position: int, checksum: bytes) -> str | None:
    try:
        (row,) = index.segments.take(np.array([position]))
    except IncompatibleFileError:
        return "is missing, its segment was truncated or removed"
    return None if vector_checksum(row) == checksum else "was changed since it was written"


def _owners(index: Storage, position: int) -> str:
    rows = list(
        index.ledger.rows(
            "SELECT root, path FROM photographs WHERE position = ? LIMIT 3",
            (position,),
            kinds=(INTEGER, BLOB),
        )
    )
    roots = Roots(index.ledger)
    paths = [str(roots.shown(root, path)) for root, path in rows]
    return ", ".join(paths) or "no longer any photograph's"
