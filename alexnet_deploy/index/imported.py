"""Copy vectors from files into an index: `alexnet-deploy index --from`.

A file is read batch by batch. A batch is committed as a whole, together with how far the file has
been read, so that a killed run loses only the current one, and the next continues there. A file
that has changed since is read again from its beginning.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alexnet_deploy.choices import Ann
from alexnet_deploy.errors import Argument, ArgumentError, UsageError
from alexnet_deploy.importing.known import known_networks
from alexnet_deploy.index.imported_files import VectorFile, VectorRows, find_vector_files
from alexnet_deploy.index.imported_roots import imported_roots
from alexnet_deploy.index.keeping import Keeper, check_ann
from alexnet_deploy.index.ledger import Ledger
from alexnet_deploy.index.maintenance import remove_unnamed_segments
from alexnet_deploy.index.manifest import Manifest, VectorSpace, check_space, read_manifest
from alexnet_deploy.index.model import ModelRequest, check_request, create_empty
from alexnet_deploy.index.roots import all_roots
from alexnet_deploy.index.segments import float16_vector
from alexnet_deploy.index.storage import Storage, is_index, open_storage_to_write, remove_parts
from alexnet_deploy.index.writer import NewVectors, committed_with, write_row
from alexnet_deploy.inference.failures import FailureLimit, check_failures
from alexnet_deploy.model.default import bundled_checkpoint
from alexnet_deploy.model.layers import own_name
from alexnet_deploy.weights.names import ModelSource

_DOMAIN = b"alexnet-deploy imported vector\n"
"""What is hashed before an imported vector, in place of a photograph's bytes: no photograph begins
like this. Of these nothing is known here, and a file's word for them would be taken for those in
folders, too."""


@dataclass(slots=True, kw_only=True)
class ImportReport:
    """The outcome of an import.

    Attributes:
        directory: of the index.
        num_imported: rows copied.
        num_unchanged: rows that an earlier run has read, of files that have not changed.
        num_replaced: rows of files that have changed, taken out before these were read again.
        num_failed: rows that cannot be used.
    """

    directory: Path
    num_imported: int = 0
    num_unchanged: int = 0
    num_replaced: int = 0
    num_failed: int = 0

    def line(self) -> str:
        """Return the counts as a line for people."""
        return (
            f"{self.num_imported:,} imported, {self.num_unchanged:,} unchanged, "
            f"{self.num_replaced:,} replaced, {self.num_failed:,} failed"
        )

    def to_json(self) -> str:
        """Return one JSON object: index, imported, unchanged, replaced, failed."""
        return json.dumps(
            {
                "index": str(self.directory),
                "imported": self.num_imported,
                "unchanged": self.num_unchanged,
                "replaced": self.num_replaced,
                "failed": self.num_failed,
            }
        )

    def check(self, limit: FailureLimit) -> None:
        """Raise for more failures than `limit` allows.

        Raises:
            TooManyFailuresError: with the numbers.
        """
        num_good = self.num_imported + self.num_unchanged
        check_failures(self.num_failed, num_good + self.num_failed, limit)


def import_files(
    directory: Path,
    sources: Sequence[Path],
    request: ModelRequest,
    *,
    made_by: str | None = None,
    ann: Ann | int | Path = "auto",
    report: ImportReport | None = None,
    on_plan: Callable[[int], None] = lambda _: None,
    on_result: Callable[[str, str | None], None] = lambda name, error: None,
    notify: Callable[[str], None] = lambda _: None,
) -> ImportReport:
    """Copy the vectors of files into an index, as float16.

    Nothing is written before every file has been looked at. Each is a root of the index from then
    on, which other runs leave alone.

    Args:
        directory: of the index; created if it does not exist, for the vectors of the first file.
        sources: files and folders, see `imported_files`.
        request: its layer is taken where a file has several, its model remembered by a new index;
            precision and decoding must be those of the vectors.
        made_by: name of what made the vectors of files that do not say it; None for the index's.
        ann: whether the vectors are compressed, see `keeping.Keeper`.
        report: updated during the run.
        on_plan: called once with the number of rows to read.
        on_result: called for each with its name and, if it cannot be used, the reason, once
            committed.
        notify: called with lines for a person.

    Returns:
        `report`; call its `check`.

    Raises:
        UsageError: a source that is none, or vectors of which it is not known what made them.
        IncompatibleFileError: a file or the index is damaged, or they are of two vector spaces.
        IndexLockedError, OutputError: as `update.bring_up_to_date`.
    """
    check_ann(ann)
    report = ImportReport(directory=directory) if report is None else report
    own = read_manifest(directory).space if is_index(directory) else None
    files = _looked_at(sources, own, request, made_by)
    for file in files:
        _check_agrees(directory, own or files[0].space, file)
    if own is None:
        create_empty(directory, Manifest.of(files[0].space), _model(request, files[0]))
    with open_storage_to_write(directory) as index:
        remove_parts(directory)
        remove_unnamed_segments(index)
        check_request(index, request)
        for file in files:
            _check_agrees(directory, index.manifest.space, file)  # of another process's, perhaps
        keeper = Keeper(index, ann, request.threads, notify)
        _import(index, files, keeper, report, on_plan, on_result, notify)
    return report


def _import(
    index: Storage,
    files: Sequence[VectorFile],
    keeper: Keeper,
    report: ImportReport,
    on_plan: Callable[[int], None],
    on_result: Callable[[str, str | None], None],
    notify: Callable[[str], None],
) -> None:
    """Copy what is not there yet, as a run of its own."""
    started = time.time()
    plan = [(file, *_begun(index.ledger, file, report)) for file in files]
    report.num_unchanged = sum(start for _, _, start in plan)
    num_left = sum(file.num_rows - start for file, _, start in plan)
    keeper.plan(num_left)
    on_plan(num_left)
    for file, root, start in plan:
        _copy(index, file, root, start, report, on_result)
        _tell_repeated(index.ledger, file, root, notify)
    with index.ledger.transaction():
        index.ledger.execute(
            "INSERT INTO runs (started, finished, runner, reused, unchanged, failed, removed) "
            "VALUES (?, ?, 'imported', ?, ?, ?, ?)",
            (
                started,
                time.time(),
                report.num_imported,
                report.num_unchanged,
                report.num_failed,
                report.num_replaced,
            ),
        )
    keeper.carry_out(repair=False)


def _looked_at(
    sources: Sequence[Path], own: VectorSpace | None, request: ModelRequest, made_by: str | None
) -> list[VectorFile]:
    """Return the files, where what is left open is the index's own."""
    if made_by is not None and not 1 <= len(made_by) <= 900:
        raise ArgumentError("made_by", made_by, "1 to 900 characters")
    layer, named = own_name(request.layer) if request.layer else None, made_by
    if own is not None:
        layer = layer or (None if own.is_foreign else own.layer)
        named = named or own.made_by
    files = find_vector_files(sources, layer=layer, made_by=named)
    if not files:
        raise UsageError("no files of vectors were given; name at least one")
    for file in files:
        if made_by is not None and not file.space.is_foreign:
            raise UsageError(
                Argument("made_by", made_by),
                f": {file.path} says itself what made its vectors; leave it out",
            )
    return files


def _check_agrees(directory: Path, space: VectorSpace, file: VectorFile) -> None:
    asked = {name: getattr(file.space, name) for name in file.space.__slots__}
    check_space(directory, space, asked)


def _model(request: ModelRequest, file: VectorFile) -> ModelSource:
    """Return what a new index remembers; it is compared with the vectors' identity when opened."""
    return request.model or known_networks().get(file.network or "") or bundled_checkpoint()


def _begun(ledger: Ledger, file: VectorFile, report: ImportReport) -> tuple[int, int]:
    """Return a file's root, and how many of its rows are in the index already.

    Those of a file that has changed are taken out; those that lost their vectors are read again.
    """
    path, stamp = os.fsencode(file.path), (file.size, file.mtime_ns)
    with ledger.transaction():
        known = next((root for root in imported_roots(ledger) if root.path == file.path), None)
        if known is None:
            if any(root.path == file.path for root in all_roots(ledger)):
                raise UsageError(f"{file.path}: is a folder of the index; give it another name")
            ledger.execute("INSERT INTO roots (path, include_hidden) VALUES (?, 0)", (path,))
            (root,) = ledger.one("SELECT id FROM roots WHERE path = ?", (path,))
            ledger.execute("INSERT INTO imported VALUES (?, ?, ?, 0)", (root, *stamp))
            return root, 0
        if stamp != (known.size, known.mtime_ns):
            sql = "DELETE FROM photographs WHERE root = ?"
            report.num_replaced += ledger.execute(sql, (known.id,))
            ledger.execute(
                "UPDATE imported SET size = ?, mtime_ns = ?, num_read = 0 WHERE root = ?",
                (*stamp, known.id),
            )
            return known.id, 0
        lost = "SELECT 1 FROM photographs WHERE root = ? AND status = 'pending' LIMIT 1"
        is_whole = ledger.one(lost, (known.id,)) is None and 0 <= known.num_read <= file.num_rows
        return known.id, known.num_read if is_whole else 0


def _copy(
    index: Storage,
    file: VectorFile,
    root: int,
    start: int,
    report: ImportReport,
    on_result: Callable[[str, str | None], None],
) -> None:
    batches = file.batches(start)
    with closing(batches):
        for rows in batches:
            start += len(rows.names)
            errors = _commit(index, root, start, rows)
            for name, error in zip(rows.names, errors, strict=True):
                report.num_imported += error is None
                report.num_failed += error is not None
                on_result(os.fsdecode(name), error)


def _commit(index: Storage, root: int, num_read: int, rows: VectorRows) -> list[str | None]:
    """Commit a batch; return why each row cannot be used, None for the others."""
    errors, sha256s, new = list(rows.errors), [b""] * len(rows.names), NewVectors()
    seen: set[bytes] = set()
    with np.errstate(over="ignore"):  # checked below
        rounded = rows.vectors.astype(np.dtype("<f2"))
    for number, vector in enumerate(rounded):
        if errors[number] is None and not np.isfinite(vector).all():
            _, errors[number] = float16_vector(rows.vectors[number], index.manifest.space.layer)
        if errors[number] is None:
            sha256 = hashlib.sha256(_DOMAIN + vector.tobytes()).digest()
            sha256s[number] = sha256
            if sha256 not in seen and index.position_of(sha256) is None:
                seen.add(sha256)
                new.sha256s.append(sha256)
                new.rows.append(vector)
    with committed_with(index, new):
        for name, error, sha256 in zip(rows.names, errors, sha256s, strict=True):
            values = (
                (None, None, sha256, index.position_of(sha256), "indexed", None)
                if error is None
                else (None, None, None, None, "failed", error)
            )
            write_row(index.ledger, root, name, values)
        index.ledger.execute("UPDATE imported SET num_read = ? WHERE root = ?", (num_read, root))
    return errors


def _tell_repeated(
    ledger: Ledger, file: VectorFile, root: int, notify: Callable[[str], None]
) -> None:
    (num_names,) = ledger.one("SELECT count(*) FROM photographs WHERE root = ?", (root,))
    if num_names < file.num_rows:
        notify(
            f"{file.path}: {file.num_rows - num_names:,} of its {file.num_rows:,} rows have the "
            "name of a later one, which counts"
        )
