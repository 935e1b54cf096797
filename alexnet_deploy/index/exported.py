"""Write the vectors of an index as Parquet, for other programs: `alexnet-deploy index --export`.

    photographs-00000.parquet, photographs-00001.parquet, ...    100,000 rows each

The columns of `inference.parquet_files`, then `sha256` of the photograph's bytes in hex (null where
it is not known: of an imported one), and the vector under its layer's name, a fixed-size list of
float32: few programs read float16, and none of its numbers change. `id` is the index's. `error` is
null: photographs that failed are not here. The schema's metadata has the manifest, by which
`alexnet-deploy index` takes the files in again. Owns pyarrow here.
"""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.errors import MissingPackageError, UsageError
from alexnet_deploy.files.output_files import errors_of, make_directory, write_together
from alexnet_deploy.index.integrity import intact_rows
from alexnet_deploy.index.ledger import BLOB, INTEGER
from alexnet_deploy.index.manifest import Manifest
from alexnet_deploy.index.roots import Roots
from alexnet_deploy.index.storage import Storage, open_storage

try:
    import pyarrow
except ImportError as error:
    raise MissingPackageError("pyarrow", "parquet", "exporting vectors") from error

from alexnet_deploy.index.imported_files import MANIFEST_KEY
from alexnet_deploy.inference.parquet_files import LEADING, leading_columns, parquet_writer

_FILE_ROWS = 100_000
_MAX_FILES = 200
"""Open at a time; with more photographs each file has more rows."""
_GROUP_BYTES = 2**24
"""Of float32 vectors in a row group; 1,024 of FC7."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What was written.

    Attributes:
        directory: of the index.
        folder: of the files.
        files: in the order of their rows.
        num_exported: photographs.
    """

    directory: Path
    folder: Path
    files: tuple[Path, ...]
    num_exported: int

    def line(self) -> str:
        """Return a line for people."""
        return f"{self.folder}: {self.num_exported:,} vectors in {len(self.files):,} files"

    def to_json(self) -> str:
        """Return one JSON object: index, exported, files."""
        return json.dumps(
            {
                "index": str(self.directory),
                "exported": self.num_exported,
                "files": [str(file) for file in self.files],
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """Photographs with their vectors, (N, D)."""

    ids: list[int]
    paths: list[Path | str]
    sha256s: list[str | None]
    vectors: NDArray[np.float16]


def export_files(
    directory: Path,
    folder: Path,
    *,
    on_plan: Callable[[int], None] = lambda _: None,
    on_result: Callable[[Path | str, str | None], None] = lambda path, error: None,
) -> ExportReport:
    """Write the vectors of all photographs of an index; the files appear when all are whole.

    Each photograph is as some moment of the run had it: another process may index meanwhile, and
    waits for the rows of one group at most. What it adds is not here.

    The first file appears last, and with it all are there: a process that is killed while they are
    renamed, a moment at the end, can leave others without it, which are no export.

    Args:
        directory: of the index, which need not be writable.
        folder: made if it does not exist; else empty.
        on_plan: called once with the number of photographs.
        on_result: called for each once it is written, with its path, or what it was imported as.

    Raises:
        UsageError: the folder holds something, or the index no vector.
        IncompatibleFileError: the index is damaged.
        OutputError: the files cannot be written.
    """
    with open_storage(directory) as index:
        sql = "SELECT count(*), max(id) FROM photographs WHERE status = 'indexed'"
        num_rows, last = index.ledger.one(sql)
        if not num_rows:
            raise UsageError(f"index {directory}: has no vector to export; index something first")
        file_rows = max(_FILE_ROWS, -(-num_rows // _MAX_FILES))
        names = [f"photographs-{number:05}.parquet" for number in range(-(-num_rows // file_rows))]
        files = [folder / name for name in names]
        _make_empty(folder)
        on_plan(num_rows)
        num_exported, rows = 0, _Cursor(index, last)
        with write_together(files) as opened:
            for file in opened:
                num_exported += _write(file, index.manifest, rows.some(file_rows), on_result)
    return ExportReport(
        directory=directory, folder=folder, files=tuple(files), num_exported=num_exported
    )


def _make_empty(folder: Path) -> None:
    """Make a folder, or refuse one that holds files: a reader would take them for some of these."""
    make_directory(folder)
    with errors_of(folder):
        others = [name for name in os.listdir(folder) if not name.startswith(".alexnet-deploy-")]
    if others:
        raise UsageError(
            f"{folder}: holds {others[0]}, expected a new or an empty folder; remove it, or name "
            "another"
        )


class _Cursor:
    """Reads the photographs of an index by ascending id, each group of rows in its own snapshot."""

    def __init__(self, index: Storage, last: int) -> None:
        self._index = index
        self._done, self._last = 0, last
        self._group_rows = max(1, _GROUP_BYTES // (4 * index.manifest.space.dimension))

    def some(self, num_rows: int) -> Iterator[_Rows]:
        """Yield the next groups, `num_rows` in all, or fewer at the end."""
        while num_rows:
            group = self._next(min(num_rows, self._group_rows))
            if not group.ids:
                return
            num_rows -= len(group.ids)
            yield group

    def _next(self, num_rows: int) -> _Rows:
        ledger = self._index.ledger
        with ledger.snapshot():  # while it lasts no vector can move
            roots = Roots(ledger)
            rows = list(
                ledger.rows(
                    "SELECT id, root, path, position, sha256 FROM photographs WHERE "
                    "status = 'indexed' AND id > ? AND id <= ? ORDER BY id LIMIT ?",
                    (self._done, self._last, num_rows),
                    kinds=(INTEGER, INTEGER, BLOB, INTEGER, BLOB),
                )
            )
            vectors = intact_rows(self._index, [position for _, _, _, position, _ in rows])
        shown = [roots.shown(root, path) for _, root, path, _, _ in rows]
        self._done = rows[-1][0] if rows else self._done
        return _Rows(
            ids=[key for key, *_ in rows],
            paths=shown,
            sha256s=[
                None if isinstance(one, str) else sha256.hex()
                for one, (*_, sha256) in zip(shown, rows, strict=True)
            ],
            vectors=vectors,
        )


def _write(
    file: BinaryIO,
    manifest: Manifest,
    groups: Iterator[_Rows],
    on_result: Callable[[Path | str, str | None], None],
) -> int:
    """Write one file; return how many rows it has."""
    space = manifest.space
    schema = pyarrow.schema(
        [
            *LEADING,
            pyarrow.field("sha256", pyarrow.string()),
            pyarrow.field(space.layer, pyarrow.list_(pyarrow.float32(), space.dimension)),
        ],
        metadata={MANIFEST_KEY: manifest.to_json()},
    )
    num_written = 0
    with parquet_writer(file, schema) as writer:
        for group in groups:
            values = pyarrow.array(group.vectors.astype(np.float32).ravel())
            columns = [
                *leading_columns(group.ids, group.paths, [None] * len(group.ids)),
                pyarrow.array(group.sha256s, pyarrow.string()),
                pyarrow.FixedSizeListArray.from_arrays(values, space.dimension),
            ]
            writer.write_table(pyarrow.Table.from_arrays(columns, schema=schema))
            num_written += len(group.ids)
            for path in group.paths:
                on_result(path, None)
    return num_written
