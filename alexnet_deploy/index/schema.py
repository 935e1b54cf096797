"""The tables of a ledger, and how a ledger that has others is told."""

import functools
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from alexnet_deploy.errors import IncompatibleFileError

VERSION = 7
_FIRST = """
CREATE TABLE settings (
    next_position INTEGER NOT NULL, -- where the next vector goes; never lowered
    model BLOB                      -- path of the model, NULL for the bundled checkpoint
);
INSERT INTO settings VALUES (0, NULL);
CREATE TABLE roots (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    path BLOB NOT NULL UNIQUE,      -- absolute, without links
    include_hidden INTEGER NOT NULL
);
CREATE TABLE vectors (
    position INTEGER PRIMARY KEY,   -- in the segments
    sha256 BLOB NOT NULL UNIQUE,    -- of the photographs' bytes
    checksum BLOB NOT NULL          -- first 8 bytes of the sha256 of the vector's bytes
);
CREATE TABLE photographs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    root INTEGER NOT NULL REFERENCES roots,
    path BLOB NOT NULL,             -- relative to the root
    size INTEGER,                   -- in bytes; NULL when it could not be asked for
    mtime_ns INTEGER,               -- NULL where it proves nothing, see FileStamp
    sha256 BLOB,
    position INTEGER REFERENCES vectors ON UPDATE CASCADE,
    status TEXT NOT NULL CHECK (status IN ('indexed', 'failed', 'pending')),
    reason TEXT,
    UNIQUE (root, path),
    CHECK ((status = 'indexed') = (position IS NOT NULL)),
    CHECK ((status = 'failed') = (reason IS NOT NULL))
);
CREATE INDEX photographs_by_position ON photographs (position);
CREATE TABLE runs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    started REAL NOT NULL,          -- seconds since 1970
    finished REAL,                  -- NULL when it was interrupted
    runner TEXT,                    -- what ran, NULL when nothing had to
    embedded INTEGER NOT NULL DEFAULT 0,
    reused INTEGER NOT NULL DEFAULT 0,
    unchanged INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0,
    removed INTEGER NOT NULL DEFAULT 0
);
"""
_EXCLUSIONS = """
CREATE TABLE exclusions (
    root INTEGER NOT NULL REFERENCES roots ON DELETE CASCADE,
    pattern BLOB NOT NULL,          -- see the module of that name
    PRIMARY KEY (root, pattern)
);
"""
_LEFT_OUT = """
CREATE TABLE left_out (             -- photographs that the last search of their folder left out
    root INTEGER NOT NULL REFERENCES roots ON DELETE CASCADE,
    path BLOB NOT NULL,             -- relative to the root
    PRIMARY KEY (root, path)
);
"""
_BEFORE_LOSS = """
CREATE TABLE before_loss (          -- of roots of which photographs have gone missing
    root INTEGER PRIMARY KEY REFERENCES roots ON DELETE CASCADE,
    photographs INTEGER NOT NULL    -- how many it had until then
);
"""
_HASHES = """
CREATE TABLE hashes (               -- of photographs, once duplicates were looked for
    position INTEGER PRIMARY KEY REFERENCES vectors ON UPDATE CASCADE ON DELETE CASCADE,
    hash BLOB NOT NULL              -- of the whole and of windows of it, see `perceptual_hash`
);
"""
_IMPORTED = """
CREATE TABLE imported (             -- roots that are files of vectors, not folders
    root INTEGER PRIMARY KEY REFERENCES roots ON DELETE CASCADE,
    size INTEGER NOT NULL,          -- of the file when it was read, in bytes
    mtime_ns INTEGER NOT NULL,
    num_read INTEGER NOT NULL       -- rows that are committed, counted from the first
);
"""
MIGRATIONS = {2: _EXCLUSIONS, 3: _LEFT_OUT, 4: _BEFORE_LOSS, 5: _HASHES, 6: _IMPORTED}
"""By `user_version`, the one statement that makes the tables those of the next."""
SCHEMAS = {
    version: "".join([_FIRST, *(MIGRATIONS[older] for older in range(2, version))])
    for version in range(2, VERSION + 1)
}
"""By `user_version`. Older ones are read, too, and migrated when they are first written to."""


def check_schema(path: Path, connection: sqlite3.Connection) -> None:
    """Refuse a ledger whose tables are not, word for word, those of its version.

    Raises:
        IncompatibleFileError: of a later version, with a write-ahead log, or with tables, views,
            triggers or indexes that an index does not have.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise IncompatibleFileError(
            f"{path}: is of format {version}, this version of alexnet-deploy reads {VERSION}; "
            "update alexnet-deploy, or index again into another directory"
        )
    found = dict(connection.execute(_STATEMENTS))
    if version not in SCHEMAS or found != _own_statements(version):
        raise damaged_ledger(
            path, "its tables are not those of an index, and no others may be there"
        )
    (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    if mode != "delete":  # the only other that a file can demand is a write-ahead log
        raise damaged_ledger(path, f"its journal mode is {mode}, and an index has no such files")


# Compared as bytes: they need not be text. Reading them runs nothing that is in them.
_STATEMENTS = "SELECT CAST(type || ' ' || name AS BLOB), CAST(sql AS BLOB) FROM sqlite_schema"


@functools.cache
def _own_statements(version: int) -> Mapping[bytes, bytes | None]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(SCHEMAS[version])
        return dict(connection.execute(_STATEMENTS))


def damaged_ledger(path: Path, reason: str) -> IncompatibleFileError:
    """Return the error of a file of an index that is not as it was written."""
    return IncompatibleFileError(
        f"{path}: damaged ({reason}); restore it from a copy, or index again into another directory"
    )
