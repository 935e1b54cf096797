"""Forged compressed vectors of an index: `ann/` with other bytes, numbers, files and records."""

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_deploy.index.compressed_files import read_compressed
from alexnet_deploy.index.compressed_record import FOLDER_NAME
from alexnet_deploy.index.compression import row_type
from alexnet_deploy.index.storage import open_storage
from fuzzing.kinds import check
from fuzzing.mutations import changed_bytes, changed_json

RECORD_NAME = "compressed.json"
_AXES, _ROWS = "00000.axes", "00000.rows"
_CODER, _BITS = "00000.coder", "00000.bits"
_OWN = (RECORD_NAME, _AXES, _ROWS, _CODER, _BITS)
_NUMBERS = (np.nan, np.inf, -np.inf, 1e308, -1e308, 0, -1, 1e6, 5e-324)
_INTEGERS = (-(2**63), -1, 0, 1, 2, 3, 2**31, 2**62, 2**63 - 1)
_SPARSE = (2**20, 2**32, 2**40)
_RECORDS: tuple[dict[str, Any], ...] = (
    *({"num_axes": number} for number in (1, 7, 9, 255, 256, 4096)),
    *({"num_rows": number} for number in (1, 2, 4, 2**20, 2**32, 2**40)),
    *({"next_position": number} for number in (1, 2, 2**40, 2**62)),
    *({"fit": number} for number in (1, 99999, 100000, -1)),
    *({"error": number} for number in (0.0, 5e-324, 2.0)),
    *({"num_fitted": 1}, {"num_fitted": 2**40}, {"num_measured": 2**40}),
    *({"recall": []}, {"recall": [0.5] * 10**5}, {"share_lost": 1.0, "share_lost_later": 1.0}),
    *({"run": 2}, {"started": 0.0}, {"identity": "f" * 64}, {"layer": "fc7"}),
    *({"coder": "none"}, {"coder": "itq"}, {"coder": "none", "coder_widths": []}),
    *({"coder_widths": widths} for widths in ([8, 512], [8, 10**7, 64], [8, 8, 64], [8], 9 * [64])),
    {"num_axes": 256, "num_rows": 2**32, "next_position": 2**62},
)


def change_compressed(index: Path, rng: random.Random) -> None:
    """Change what is in `ann/`, or what is in its place."""
    changes: list[Callable[[Path, random.Random], None]] = [
        *(_change_bytes, _change_record, _change_record, _change_numbers, _change_rows),
        *(_forge_record, _forge_record, _forge_dimension, _put_in_place, _put_in_place),
    ]
    for change in rng.choices(changes, k=rng.choice((1, 1, 1, 2))):
        if (index / FOLDER_NAME).is_dir():  # or else nothing is left to change
            change(index / FOLDER_NAME, rng)


def check_made_anew(index: Path) -> None:
    """Check that vectors are compressed, after a run that says so, in a form that can be read."""
    with open_storage(index) as storage:
        (num_vectors,) = storage.ledger.one("SELECT count(*) FROM vectors")
        is_there = read_compressed(storage) is not None
    check(is_there or not num_vectors, f"{num_vectors} vectors, and none is compressed")


def check_removed(index: Path) -> None:
    """Check that nothing is left of the compressed vectors, after a run that removes them."""
    left = [name for name in _OWN if os.path.lexists(index / FOLDER_NAME / name)]
    check(not left, f"{left} are left")


def _is_file(path: Path) -> bool:
    """Return whether a file is there, and no other name of one outside."""
    return path.is_file() and not path.is_symlink() and path.stat().st_nlink == 1


def _change_bytes(folder: Path, rng: random.Random) -> None:
    path = folder / rng.choice(_OWN)
    if _is_file(path) and path.stat().st_size < 2**20:
        path.write_bytes(changed_bytes(path.read_bytes(), rng))


def _change_record(folder: Path, rng: random.Random) -> None:
    path = folder / RECORD_NAME
    if _is_file(path):
        path.write_text(changed_json(_record(path), rng), "utf-8", "surrogatepass")


def _change_numbers(folder: Path, rng: random.Random) -> None:
    """Change numbers of the axes, the steps among them, which are the last, or of the coder."""
    name, kind = rng.choice(((_AXES, np.dtype("<f8")), (_CODER, np.dtype("<f4"))))
    path = folder / name
    if _is_file(path) and kind.itemsize <= path.stat().st_size < 2**20:
        numbers = np.fromfile(path, kind, path.stat().st_size // kind.itemsize)
        for _ in range(rng.choice((1, 1, 3))):
            at = rng.choice((rng.randrange(len(numbers)), len(numbers) - 1))
            with np.errstate(over="ignore"):  # in float32
                numbers[at] = rng.choice((*_NUMBERS, -numbers[at], 1.0000001 * numbers[at]))
        if rng.random() < 0.1:
            numbers[:] = rng.choice((0, 1, np.nan))
        path.write_bytes(numbers.tobytes())


def _change_rows(folder: Path, rng: random.Random) -> None:
    path = folder / _ROWS
    record = _record(folder / RECORD_NAME)
    num_axes = record.get("num_axes")
    if not _is_file(path) or not isinstance(num_axes, int) or not 0 < num_axes < 300:
        return
    kind = row_type(num_axes)
    if path.stat().st_size > 2**20 or path.stat().st_size < kind.itemsize:
        return
    rows = np.fromfile(path, kind, path.stat().st_size // kind.itemsize)
    at = rng.randrange(len(rows))
    part = rng.choice(("position", "length", "code", "order"))
    if part == "position":
        rows["position"][at] = rng.choice(_INTEGERS)
    elif part == "length":
        rows["length"][at] = rng.choice((np.nan, np.inf, -1, 0, 1e-45, 3e38))
    elif part == "code":
        rows["code"] = rng.randrange(256)
    else:
        rows = rows[::-1].copy() if rng.random() < 0.5 else np.concatenate([rows, rows])
    path.write_bytes(rows.tobytes())


def _forge_record(folder: Path, rng: random.Random) -> None:
    """State other numbers, mostly with files of the size that they ask for, which are all hole."""
    path = folder / RECORD_NAME
    record = _record(path)
    if record:
        record |= rng.choice(_RECORDS)
        path.write_text(json.dumps(record), "utf-8")
        for name, probability in ((_ROWS, 0.7), (_BITS, 0.7), (_AXES, 0.3), (_CODER, 0.3)):
            if rng.random() < probability and _is_file(folder / name):
                os.truncate(folder / name, rng.choice(_SPARSE))


def _forge_dimension(folder: Path, rng: random.Random) -> None:
    """Let the manifest, too, ask for more memory than there is."""
    path = folder.parent / "manifest.json"
    manifest = json.loads(path.read_bytes())
    dimension = rng.choice((10**4, 10**6, 10**7))
    manifest["dimension"] = dimension
    path.write_text(json.dumps(manifest), "utf-8")
    record = _record(folder / RECORD_NAME)
    if record:
        num_axes = record["num_axes"] = rng.choice((1, 6, 255, 4096))
        (folder / RECORD_NAME).write_text(json.dumps(record), "utf-8")
        if _is_file(folder / _AXES):
            os.truncate(folder / _AXES, 8 * (dimension + (dimension + 2) * num_axes + 2))


def _put_in_place(folder: Path, rng: random.Random) -> None:
    """Put a link, a pipe, a folder, another file, nothing or a hole in the place of something."""
    outside = folder.parents[2] / "outside" / "canary.f16"
    path = rng.choice((*(folder / name for name in _OWN), folder / "00001.rows", folder))
    if path == folder:
        shutil.rmtree(folder)
    elif path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    kind = rng.choice(("link", "own link", "hard link", "pipe", "folder", "file", "hole", "none"))
    if kind == "link":
        path.symlink_to(rng.choice((outside, outside.parent, outside.parent / "new")))
    elif kind == "own link":
        path.symlink_to(rng.choice(("../ledger.sqlite", "../vectors", ".", "compressed.json")))
    elif kind == "hard link":
        path.hardlink_to(outside)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
        (path / "file").write_bytes(b"not ours")
    elif kind != "none":
        path.touch()
        os.truncate(path, rng.choice(_SPARSE) if kind == "hole" else 3)


def _record(path: Path) -> dict[str, Any]:
    """Return the record, nothing where it is none any more."""
    try:
        found = json.loads(path.read_bytes()) if _is_file(path) else None
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {}
