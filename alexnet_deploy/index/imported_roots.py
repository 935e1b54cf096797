"""Roots of an index that are files of vectors, which no run searches for photographs.

The paths of their rows are what such a file says, a path, a URL, a name, which nothing opens.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from alexnet_deploy.index.ledger import BLOB, INTEGER, Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedRoot:
    """A file whose vectors are in the index.

    Attributes:
        id: its id in the ledger.
        path: absolute, links resolved.
        size: in bytes, when it was read.
        mtime_ns: likewise.
        num_read: how many of its rows are in the index, from the first.
    """

    id: int
    path: Path
    size: int
    mtime_ns: int
    num_read: int


_SINCE = 7
"""The ledger's version."""


def imported_roots(ledger: Ledger) -> list[ImportedRoot]:
    """Return the files that were imported, in the order in which they were added."""
    if ledger.version() < _SINCE:
        return []
    rows = ledger.rows(
        "SELECT id, path, size, mtime_ns, num_read FROM imported JOIN roots ON id = root "
        "ORDER BY id",
        kinds=(INTEGER, BLOB, INTEGER, INTEGER, INTEGER),
    )
    return [
        ImportedRoot(
            id=key,
            path=absolute_path(ledger, path),
            size=size,
            mtime_ns=mtime_ns,
            num_read=num_read,
        )
        for key, path, size, mtime_ns, num_read in rows
    ]


def of_folders(ledger: Ledger, *, root: str = "root") -> str:
    """Return the condition of SQL that a row's root, in the column `root`, is a folder."""
    return "1" if ledger.version() < _SINCE else f"{root} NOT IN (SELECT root FROM imported)"


def absolute_path(ledger: Ledger, path: bytes) -> Path:
    """Return the path of a root.

    Raises:
        IncompatibleFileError: it is none that a root can have.
    """
    if not path.startswith(b"/") or b"\0" in path:
        raise ledger.damaged(f"the root {path!r} is no absolute path")
    return Path(os.fsdecode(path))
