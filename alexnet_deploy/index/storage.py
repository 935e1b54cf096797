"""An index on disk, opened for reading, or locked for writing."""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from alexnet_deploy.files.output_files import errors_of
from alexnet_deploy.files.regular_files import remove_file
from alexnet_deploy.index.ledger import INTEGER, LEDGER_NAME, Ledger
from alexnet_deploy.index.lock import writer_lock
from alexnet_deploy.index.manifest import MANIFEST_NAME, Manifest, read_manifest
from alexnet_deploy.index.segments import Segments

_MAX_POSITION = 2**62
"""Beyond what any disk holds; with a segment more it still is a number that SQLite stores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """An open index.

    Attributes:
        directory: where it is.
        manifest: the immutable part.
        ledger: the rows.
        segments: the vectors.
    """

    directory: Path
    manifest: Manifest
    ledger: Ledger
    segments: Segments

    def next_position(self) -> int:
        """Return where the next vector goes."""
        row = self.ledger.one("SELECT next_position FROM settings", kinds=(INTEGER,))
        if not 0 <= row[0] < _MAX_POSITION:
            raise self.ledger.damaged(f"the next vector would go to {row[0]}")
        return int(row[0])

    def position_of(self, sha256: bytes | None) -> int | None:
        """Return where the vector of a file's content is; any thread may ask."""
        sql = "SELECT position FROM vectors WHERE sha256 = ?"
        row = self.ledger.one(sql, (sha256,), kinds=(INTEGER,))
        return None if row is None else int(row[0])


@contextmanager
def open_storage(directory: Path) -> Iterator[Storage]:
    """Open an existing index for reading; it need not be writable.

    Raises:
        UsageError: it does not exist.
        IncompatibleFileError: it is damaged, or of another format.
    """
    manifest = read_manifest(directory)
    segments = Segments(
        directory, dimension=manifest.space.dimension, segment_rows=manifest.segment_rows
    )
    with closing(segments), Ledger.open(directory) as ledger:
        yield Storage(directory=directory, manifest=manifest, ledger=ledger, segments=segments)


def ledger_id(directory: Path) -> tuple[int, int] | None:
    """Return device and inode of an index's ledger, None where there is none."""
    try:
        status = os.stat(directory / LEDGER_NAME)
    except OSError:
        return None
    return status.st_dev, status.st_ino


@contextmanager
def open_storage_to_write(directory: Path) -> Iterator[Storage]:
    """Open an existing index and hold its lock; an older ledger becomes one of today's.

    Raises:
        IndexLockedError: another process writes to it.
        OutputError: it is not writable.
        UsageError, IncompatibleFileError: as `open_storage`.
    """
    read_manifest(directory)  # before creating a lock file in what may not be an index
    with writer_lock(directory), open_storage(directory) as index:
        index.ledger.migrate()
        yield index


def is_index(directory: Path) -> bool:
    """Return whether a directory is an index.

    Raises:
        OutputError: it cannot be read.
    """
    with errors_of(directory):
        try:
            os.lstat(directory / MANIFEST_NAME)  # a link that leads nowhere is refused when read
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True


def remove_parts(directory: Path) -> None:
    """Delete temporary files of a killed process; the caller holds the lock."""
    for path in directory.glob(".alexnet-deploy-*.part"):
        with errors_of(path):
            remove_file(path)
