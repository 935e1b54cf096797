"""Forged indexes: manifests, ledgers by bytes and by rows, journals, vectors, compressed ones."""

import json
import os
import random
import shutil
import sqlite3
import struct
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import numpy as np

import alexnet_deploy.index.model
from alexnet_deploy.errors import AlexNetDeployError
from alexnet_deploy.index.binary_codes import BinaryCoder
from alexnet_deploy.index.compressed_record import FOLDER_NAME
from alexnet_deploy.index.ledger import JOURNAL_NAME, LEDGER_NAME
from alexnet_deploy.index.roots import all_roots
from alexnet_deploy.index.status import describe_index, readable_index
from alexnet_deploy.index.storage import open_storage, open_storage_to_write
from fuzzing.compressed import (
    RECORD_NAME,
    change_compressed,
    check_made_anew,
    check_removed,
)
from fuzzing.kinds import Kind, check
from fuzzing.mutations import changed_bytes, changed_json, changed_rows
from tests.support.index_runner import DIMENSION, Runners, photograph, search, update

_LONG_AGO = 1_000_000_000
_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")


def index_kinds(seeds: Path) -> list[Kind]:
    """Return the kinds "manifest", "ledger", "rows", "journal", "vectors" and "compressed".

    From now on indexes of this process are made and searched with a runner that sees colours.

    Args:
        seeds: an empty folder for a good index and its photographs.
    """
    vars(alexnet_deploy.index.model)["open_runner_of"] = Runners().open
    forger = _Forger(seeds)
    forgeries: dict[str, Callable[[Path, random.Random], None]] = {
        "manifest": forger.change_manifest,
        "ledger": forger.change_ledger,
        "rows": forger.change_rows,
        "journal": forger.change_journal,
        "vectors": forger.change_vectors,
    }
    kinds = [
        Kind(name=name, write=_Writer(forger, change), read=_read)
        for name, change in forgeries.items()
    ]
    writer = _Writer(forger, change_compressed)
    return [*kinds, Kind(name="compressed", write=writer, read=_read_compressed)]


class _Writer:
    """Copy the good index, and change it."""

    def __init__(self, forger: "_Forger", change: Callable[[Path, random.Random], None]) -> None:
        self._forger = forger
        self._change = change

    def __call__(self, folder: Path, rng: random.Random) -> None:
        shutil.copytree(self._forger.index, folder / "index")
        shutil.copytree(self._forger.photographs, folder / "photos", copy_function=shutil.copy2)
        with closing(sqlite3.connect(folder / "index" / LEDGER_NAME)) as ledger, ledger:
            ledger.execute("UPDATE roots SET path = ?", (os.fsencode(folder / "photos"),))
        self._change(folder / "index", rng)


class _Forger:
    """A good index of four photographs, and its forgeries."""

    def __init__(self, seeds: Path) -> None:
        self.index, self.photographs = seeds / "index", seeds / "photos"
        self.photographs.mkdir()
        for number in range(4):
            path = self.photographs / f"{number}.bmp"
            path.write_bytes(photograph((number + 1, 99, 7)) if number else b"no photograph")
            os.utime(path, (_LONG_AGO, _LONG_AGO))
        update(self.index, self.photographs)
        _compress(self.index)
        record = json.loads((self.index / FOLDER_NAME / RECORD_NAME).read_bytes())
        record["started"] = float(_LONG_AGO)
        (self.index / FOLDER_NAME / RECORD_NAME).write_text(json.dumps(record), "utf-8")
        with closing(sqlite3.connect(self.index / LEDGER_NAME)) as ledger, ledger:
            ledger.execute("UPDATE runs SET started = ?, finished = ?", 2 * (float(_LONG_AGO),))
            tables = ("settings", "roots", "exclusions", "vectors", "photographs", "runs")
            self._columns = [
                (table, row[1])
                for table in tables
                for row in ledger.execute(f"PRAGMA table_info({table})")
            ]

    def change_manifest(self, index: Path, rng: random.Random) -> None:
        path = index / "manifest.json"
        data = path.read_bytes()
        if rng.random() < 0.2:
            path.write_bytes(changed_bytes(data, rng))
        else:
            path.write_text(changed_json(json.loads(data), rng), "utf-8", "surrogatepass")

    def change_ledger(self, index: Path, rng: random.Random) -> None:
        path = index / LEDGER_NAME
        data = path.read_bytes()
        # Pages are mostly empty: go on until one change has met something.
        page = 4096 * rng.randrange(len(data) // 4096)
        part = data[page : page + 4096]
        if rng.random() < 0.7:
            changed = changed_bytes(part, rng)[:4096].ljust(4096, b"\0")
            path.write_bytes(data[:page] + changed + data[page + 4096 :])
        else:
            path.write_bytes(changed_bytes(data, rng))

    def change_rows(self, index: Path, rng: random.Random) -> None:
        with closing(sqlite3.connect(index / LEDGER_NAME, isolation_level=None)) as ledger:
            ledger.execute("PRAGMA ignore_check_constraints = ON")
            ledger.execute("PRAGMA synchronous = OFF")
            for statement in changed_rows(self._columns, rng).split("; "):
                with suppress(sqlite3.Error):  # NOT NULL, or a rowid that is no number
                    ledger.execute(statement)

    def change_journal(self, index: Path, rng: random.Random) -> None:
        """Leave a journal as a killed commit does, changed; or one with another journal's name."""
        path = index / LEDGER_NAME
        before = path.read_bytes()
        copy = index.with_name("copy.sqlite")
        copy.write_bytes(before)
        with closing(sqlite3.connect(copy, isolation_level=None)) as ledger:
            ledger.execute("PRAGMA cache_size = 1")  # so that pages and journal go to disk at once
            ledger.execute("BEGIN IMMEDIATE")
            ledger.execute("UPDATE photographs SET size = size + 1")
            ledger.execute(
                "INSERT INTO photographs SELECT id + 9, root, path || 'x', 0, 0, NULL, "
                "NULL, 'failed', hex(zeroblob(9000)) FROM photographs"
            )
            journal = Path(f"{copy}-journal").read_bytes()
            torn = copy.read_bytes()
            ledger.execute("ROLLBACK")
        copy.unlink()
        # A header that was not yet synced counts no pages: make it count, mostly.
        if journal[8:12] == bytes(4) and rng.random() < 0.8:
            journal = journal[:8] + b"\xff" * 4 + journal[12:]
        if rng.random() < 0.2:
            victim = os.fsencode(index.parents[1] / "outside" / "canary.txt")
            end = struct.pack(">II", len(victim), sum(victim)) + _JOURNAL_MAGIC
            journal += struct.pack(">I", 2**30 // 4096 + 1) + victim + end
        if rng.random() < 0.9:
            head = changed_bytes(journal[:512], rng)
            journal = rng.choice((head + journal[512:], changed_bytes(journal, rng)))
        path.write_bytes(rng.choice((before, torn)))
        (index / JOURNAL_NAME).write_bytes(journal)

    def change_vectors(self, index: Path, rng: random.Random) -> None:
        path = index / "vectors" / "00000.f16"
        if rng.random() < 0.5:
            path.write_bytes(changed_bytes(path.read_bytes(), rng))
            return
        numbers = np.frombuffer(path.read_bytes(), np.float16).copy()
        numbers[rng.randrange(len(numbers))] = rng.choice((np.nan, np.inf, 65504, -65504, 0, 6e-8))
        path.write_bytes(numbers.tobytes())


def _read(folder: Path) -> None:
    """Search, describe, check and mend."""
    index, photos = folder / "index", folder / "photos"
    queries = [photos / "1.bmp", _stranger(folder)]
    _use(
        lambda: _search(index, queries),
        lambda: readable_index(describe_index(index, check=False)),
        lambda: readable_index(describe_index(index, check=True)),
        lambda: update(index, photos, repair=True),
        lambda: _search(index, queries),
        lambda: update(index, photos, prune=True),
    )


def _read_compressed(folder: Path) -> None:
    """Search, describe, compress again and take it back."""
    index, photos = folder / "index", folder / "photos"
    queries = [photos / "1.bmp", _stranger(folder)]

    def make_anew() -> None:
        update(index, photos, ann="compressed")
        check_made_anew(index)

    def take_back() -> None:
        update(index, photos, ann="exact")
        check_removed(index)

    _use(
        lambda: _search(index, queries),
        lambda: readable_index(describe_index(index, check=True)),
        lambda: update(index, photos),
        lambda: _search(index, queries, effort=6),
        make_anew,
        lambda: _search(index, queries),
        take_back,
    )


def _compress(index: Path) -> None:
    """Compress the vectors of an index, with binary codes of a coder that nobody has trained."""
    from alexnet_deploy.index.compressing import compress  # which loads FAISS

    weights = np.random.default_rng(0).normal(0, 1, (64, DIMENSION)).astype(np.float32)
    coder = BinaryCoder(weights=(weights,), biases=(np.zeros(64, np.float32),))
    with open_storage_to_write(index) as storage:
        compress(storage, codes=coder, threads=1)


def _stranger(folder: Path) -> Path:
    path = folder / "query.bmp"
    path.write_bytes(photograph((200, 3, 90)))
    return path


def _use(*uses: Callable[[], object]) -> None:
    """Do all of it; what one refuses the others are asked all the same."""
    refusal: AlexNetDeployError | None = None
    for use in uses:
        try:
            use()
        except AlexNetDeployError as error:
            refusal = refusal or error
    if refusal is not None:
        raise refusal


def _search(index: Path, queries: list[Path], effort: int | None = None) -> None:
    results = list(search(index, queries, k=3, effort=effort))
    with open_storage(index) as storage:
        roots = [root.path for root in all_roots(storage.ledger)]
    for result in results:
        result.to_json()
        for neighbour in result.neighbours:
            inside = any(neighbour.path.is_relative_to(root) for root in roots)
            check(inside and ".." not in neighbour.path.parts, f"found {neighbour.path}")
            numbers = (neighbour.cosine_similarity, neighbour.l2_distance)
            check(bool(np.isfinite(numbers).all()), f"{neighbour}")
            check(abs(numbers[0]) <= 1 and numbers[1] >= 0, f"{neighbour}")
