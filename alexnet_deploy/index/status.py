"""Describe an index: counts, roots, size, identity, last runs, commonest failures."""

import dataclasses
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alexnet_deploy.errors import IncompatibleFileError
from alexnet_deploy.files.path_text import path_fields, printable
from alexnet_deploy.index.compressed_check import compressed_problems
from alexnet_deploy.index.compressed_record import EFFORTS, compressed_record
from alexnet_deploy.index.imported_roots import imported_roots
from alexnet_deploy.index.integrity import problems
from alexnet_deploy.index.ledger import BLOB, INTEGER, NULL, REAL, TEXT
from alexnet_deploy.index.manifest import FOREIGN_LAYER
from alexnet_deploy.index.roots import Roots, all_roots
from alexnet_deploy.index.storage import Storage, open_storage
from alexnet_deploy.model.calibrated import readable_ranges
from alexnet_deploy.photographs.pixels import Decode
from alexnet_deploy.photographs.suffixes import LeftOut, describe_left_out

_NUM_RUNS = 5
_NUM_REASONS = 5
_PRUNE = "free them with: alexnet-deploy index --prune"


def describe_index(directory: Path, *, check: bool) -> dict[str, Any]:
    """Describe an index as JSON values.

    Keys: path, kind ("index"), size_bytes, format, metric, model (None for the bundled checkpoint),
    the fields of `VectorSpace`, photographs (by state), vectors (used, unused: unused ones are kept
    until a prune, in case their photographs return), roots (path, photographs, include_hidden,
    exclude, exists), imported (files of vectors: path, photographs), compressed (None; error, where
    they are of no use; or vectors, bytes_per_vector, code_bits, share_read, recall by effort: see
    `CompressedRecord`), left_out (by suffix, how many photographs of the roots were not tried),
    runs (the last, newest first; finished is None if interrupted or still running; times in seconds
    since 1970), failures (the commonest: reason, count, example) and, with `check`, problems.

    Args:
        directory: of the index.
        check: also read every vector, compressed or not, and list the problems.

    Raises:
        UsageError: the directory does not exist.
        IncompatibleFileError: not an index, or so damaged that it cannot be opened.
    """
    with open_storage(directory) as index:
        with index.ledger.snapshot():
            description = _description(index)
        if check:
            description["problems"] = [*problems(index), *compressed_problems(index)]
        return description


def failures_of(directory: Path) -> Iterator[tuple[Path | str, str]]:
    """Yield each photograph that failed, with its reason, in the order in which they were found.

    Raises:
        UsageError, IncompatibleFileError: as `describe_index`.
    """
    last = 0
    with open_storage(directory) as index:
        roots = Roots(index.ledger)
        # In chunks: an open statement would keep a run from committing for as long as it is read.
        while rows := list(
            index.ledger.rows(
                "SELECT id, root, path, reason FROM photographs WHERE status = 'failed' "
                "AND id > ? ORDER BY id LIMIT 1000",
                (last,),
                kinds=(INTEGER, INTEGER, BLOB, TEXT),
            )
        ):
            last = rows[-1][0]
            for _, root, path, reason in rows:
                yield roots.shown(root, path), reason


def readable_index(description: dict[str, Any]) -> str:
    """Return `describe_index`'s result as text for a terminal."""
    counts, vectors = description["photographs"], description["vectors"]
    lines = [
        f"{description['path']}: index, {description['size_bytes'] / 1e6:.1f} MB",
        f"  photographs   {counts['indexed']:,} indexed, {counts['failed']:,} failed"
        + (f", {counts['pending']:,} to be embedded again" if counts["pending"] else ""),
        f"  vectors       {vectors['used']:,} of {description['dimension']} numbers, float16"
        + (f"; {vectors['unused']:,} unused; {_PRUNE}" if vectors["unused"] else ""),
        f"  made by       {_maker(description)}",
        f"  identity      {description['identity']}",
    ]
    lines += readable_ranges(description["ranges"])
    for root in description["roots"]:
        gone = "" if root["exists"] else "  NOT THERE"
        without = f"  without {', '.join(root['exclude'])}" if root["exclude"] else ""
        lines.append(f"  root          {root['path']}  {root['photographs']:,}{without}{gone}")
    for file in description["imported"]:
        lines.append(f"  imported      {file['path']}  {file['photographs']:,}")
    if description["compressed"] is not None:
        lines.append(f"  compressed    {_compressed_line(description['compressed'])}")
    if description["left_out"]:
        lines.append(f"  left out      {describe_left_out(description['left_out'])}")
    lines += [f"  run           {_run_line(run)}" for run in description["runs"]]
    for failure in description["failures"]:
        lines.append(
            f"  failed        {failure['count']:,} x {failure['reason']} ({failure['example']})"
        )
    if "problems" in description:
        found = description["problems"] or ["none: every size, count and vector is as written"]
        lines += [f"  problem       {line}" for line in found]
    return "\n".join(map(printable, lines))


def _maker(description: dict[str, Any]) -> str:
    if description["layer"] == FOREIGN_LAYER:
        return "another program, see its identity; imported"
    return (
        f"{description['layer']} of {description['model'] or 'the bundled model'}"
        f", {description['precision']}, decoded by {Decode(**description['decode'])}"
    )


def _description(index: Storage) -> dict[str, Any]:
    ledger = index.ledger
    states = dict(ledger.rows("SELECT status, count(*) FROM photographs GROUP BY status"))
    (num_used,) = ledger.one("SELECT count(DISTINCT position) FROM photographs")
    (num_vectors,) = ledger.one("SELECT count(*) FROM vectors")
    (model,) = ledger.one("SELECT model FROM settings", kinds=(BLOB | NULL,))
    sizes = (_size(path) for path in index.directory.rglob("*"))
    return {
        **path_fields(index.directory),
        "kind": "index",
        "size_bytes": sum(sizes),
        "format": index.manifest.FORMAT,
        "metric": index.manifest.metric,
        "model": None if model is None else os.fsdecode(model),
        **dataclasses.asdict(index.manifest.space),
        "photographs": {state: states.get(state, 0) for state in ("indexed", "failed", "pending")},
        "vectors": {"used": num_used, "unused": num_vectors - num_used},
        "roots": _roots(index),
        "imported": _imported(index),
        "compressed": _compressed(index),
        "left_out": _left_out(index),
        "runs": _runs(index),
        "failures": _failures(index),
    }


def _size(path: Path) -> int:
    """Return the size of a file; 0 if it is gone, as a journal may be."""
    try:
        status = path.lstat()
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def _counts(index: Storage) -> dict[int, int]:
    """Return how many photographs each root has that can be found."""
    sql = "SELECT root, count(*) FROM photographs WHERE position IS NOT NULL GROUP BY root"
    return dict(index.ledger.rows(sql))


def _imported(index: Storage) -> list[dict[str, Any]]:
    counts = _counts(index)
    return [
        path_fields(root.path) | {"photographs": counts.get(root.id, 0)}
        for root in imported_roots(index.ledger)
    ]


def _roots(index: Storage) -> list[dict[str, Any]]:
    counts = _counts(index)
    return [
        path_fields(root.path)
        | {
            "photographs": counts.get(root.id, 0),
            "include_hidden": root.include_hidden,
            "exclude": list(root.exclude),
            "exists": os.path.isdir(root.path),
        }
        for root in all_roots(index.ledger)
    ]


def _compressed(index: Storage) -> dict[str, Any] | None:
    try:
        record = compressed_record(index)
    except IncompatibleFileError as error:
        return {"error": str(error)}
    if record is None:
        return None
    return {
        "vectors": record.num_rows,
        "bytes_per_vector": record.num_axes + 1,
        "code_bits": record.bits,
        "share_read": record.share_read,
        "recall": {str(effort): record.recall_of(effort) for effort in EFFORTS if record.recall},
    }


def _left_out(index: Storage) -> dict[str, int]:
    left_out = LeftOut()
    if index.ledger.version() > 3:
        for (path,) in index.ledger.rows("SELECT path FROM left_out ORDER BY path", kinds=(BLOB,)):
            left_out(os.fsdecode(path))
    return dict(left_out.counts)


def _runs(index: Storage) -> list[dict[str, Any]]:
    names = "started", "finished", "runner", "embedded", "reused", "unchanged", "failed", "removed"
    rows = index.ledger.rows(
        f"SELECT {', '.join(names)} FROM runs ORDER BY id DESC LIMIT {_NUM_RUNS}",
        kinds=(REAL, REAL | NULL, TEXT | NULL, *(INTEGER,) * 5),
    )
    return [dict(zip(names, row, strict=True)) for row in rows]


def _failures(index: Storage) -> list[dict[str, Any]]:
    rows = index.ledger.rows(
        # Of the columns that are not grouped by, SQLite takes those of the row with the minimum.
        "SELECT reason, count(*), root, min(path) FROM photographs WHERE status = 'failed' "
        f"GROUP BY reason ORDER BY count(*) DESC, reason LIMIT {_NUM_REASONS}",
        kinds=(TEXT, INTEGER, INTEGER, BLOB),
    )
    roots = Roots(index.ledger)
    return [
        {
            "reason": reason,
            "count": count,
            "example": str(roots.shown(root, path)),
        }
        for reason, count, root, path in rows
    ]


def _compressed_line(compressed: dict[str, Any]) -> str:
    if "error" in compressed:
        return str(compressed["error"])
    codes = f" and {compressed['code_bits']} bits" if compressed["code_bits"] else ""
    recall = ", ".join(f"{share:.3f} of {effort}" for effort, share in compressed["recall"].items())
    return (
        f"{compressed['vectors']:,} vectors to {compressed['bytes_per_vector']} bytes{codes} each; "
        f"the proof of a search reads {compressed['share_read']:.2%}; recall by effort "
        f"{recall or 'not measured'}"
    )


def _run_line(run: dict[str, Any]) -> str:
    try:
        started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run["started"]))
    except (OverflowError, ValueError, OSError):  # no time that a clock could show
        started = f"at {run['started']:g} s"
    if run["finished"] is None:
        return f"{started}  not finished"
    counts = ", ".join(
        f"{run[name]:,} {name}"
        for name in ("embedded", "reused", "unchanged", "failed", "removed")
        if run[name]
    )
    seconds = run["finished"] - run["started"]
    return (
        f"{started}  {counts or 'nothing to do'}, {seconds:.1f} s  {run['runner'] or ''}".rstrip()
    )
