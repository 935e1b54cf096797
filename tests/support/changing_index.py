"""An index that changes at random, and a plain model of what a search of it must find.

Photographs are made up: a name in one of three folders, and a content, which is a number; each
content has a vector. The ledger is changed by the statements of a run, and by the package's own
compaction, repair and compression. All numbers are multiples of 1/16, so that sums in float64 are
exact in any order, and the model's answers are those of the index bit for bit.
"""

import hashlib
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.choices import METRICS, Metric
from alexnet_deploy.errors import ClosedError
from alexnet_deploy.index.binary_codes import BinaryCoder
from alexnet_deploy.index.compressed_record import FOLDER_NAME as ANN
from alexnet_deploy.index.ledger import LEDGER_NAME
from alexnet_deploy.index.maintenance import compact, forget_damaged
from alexnet_deploy.index.model import ModelRequest
from alexnet_deploy.index.segments import FOLDER_NAME as VECTORS
from alexnet_deploy.index.segments import vector_checksum
from alexnet_deploy.index.session import Index
from alexnet_deploy.index.storage import Storage, open_storage_to_write
from tests.support.made_index import make_index

DIMENSION, SEGMENT_ROWS = 24, 64
_FOLDERS = ("/made/a", "/made/b", "/made/c")
_KINDS = 30
_FULL = 900
"""Photographs; from here on more are removed than added."""

Found = list[tuple[str, float, float]]


def vector_of(content: int) -> NDArray[np.float16]:
    """Return the vector of a content: near others, often the same, or another length of it."""
    generator = np.random.default_rng(content)
    kind = int(generator.integers(_KINDS))
    vector = np.random.default_rng(kind).integers(-40, 41, DIMENSION)
    if generator.random() < 0.7:
        vector = vector + generator.integers(-9, 10, DIMENSION)
    vector = vector * generator.choice((0, 1, 2, 3, -1), p=(0.02, 0.8, 0.08, 0.05, 0.05))
    result: NDArray[np.float16] = (vector / 16).astype(np.float16)
    return result


@dataclass(slots=True)
class Model:
    """The photographs that can be found.

    Attributes:
        photographs: by path: id in the ledger, and content.
    """

    photographs: dict[str, tuple[int, int]] = field(default_factory=dict)

    def found(self, query: NDArray[np.float16], metric: Metric, within: str | None) -> Found:
        """Return all photographs as a search ranks them: path, cosine similarity, L2 distance."""
        chosen = [
            (key, path, content)
            for path, (key, content) in self.photographs.items()
            if within is None or path.startswith(f"{within}/")
        ]
        if not chosen:
            return []
        rows = np.stack([_wide_vector_of(content) for _, _, content in chosen])
        wide = query.astype(np.float64)
        squares = (rows**2).sum(axis=1) * (wide**2).sum()
        cosines = np.where(squares > 0, (rows @ wide) / np.sqrt(np.maximum(squares, 1e-9)), 0)
        cosines = np.clip(cosines, -1, 1)
        distances = np.sqrt(((rows - wide) ** 2).sum(axis=1))
        values = -cosines if metric == "cosine" else distances
        keys = np.array([key for key, _, _ in chosen])
        order = np.lexsort((keys, values))
        return [(chosen[one][1], float(cosines[one]), float(distances[one])) for one in order]


_known: dict[int, NDArray[np.float64]] = {}


def _wide_vector_of(content: int) -> NDArray[np.float64]:
    if content not in _known:
        _known[content] = vector_of(content).astype(np.float64)
    return _known[content]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Copy:
    """A copy of an index, and of its model."""

    directory: Path
    photographs: dict[str, tuple[int, int]]


class ChangingIndex:
    """An index, its model, and what may happen to them.

    Args:
        place: an empty folder.
        seed: decides what happens.
        is_compressed: whether runs compress the vectors.
        has_codes: whether these have binary codes, too.

    Attributes:
        counts: of what has happened.
        told: by the searches.
    """

    def __init__(self, place: Path, seed: int, *, is_compressed: bool, has_codes: bool) -> None:
        self.counts: Counter[str] = Counter()
        self.told: list[str] = []
        self._place = place
        self._directory = place / "index"
        self._rng = random.Random(seed)
        self._is_compressed = is_compressed
        self._coder = _coder() if has_codes else None
        self._model = Model()
        self._copies: list[_Copy] = []
        self._num_names = 0
        make_index(self._directory, DIMENSION, segment_rows=SEGMENT_ROWS)
        self._session = self._opened()

    def close(self) -> None:
        """Close the session that has been open all the time."""
        self._session.close()

    def step(self) -> None:
        """Let something happen: mostly a search, or a run that changes something."""
        others: list[tuple[Callable[[], None], int]] = [
            (self._search, 50),
            (self._run, 40),
            (self._search_anew, 4),
            (self._copy, 2),
        ]
        if self._is_compressed:
            others.append((self._delete_compressed, 1))
            others.append((self._restore_compressed, 2))
        others.append((self._restore_all_else, 2))
        actions, weights = zip(*others, strict=True)
        (action,) = self._rng.choices(actions, weights)
        self.counts[action.__name__] += 1
        action()

    def _opened(self) -> Index:
        return Index(self._directory, ModelRequest(threads=1), notify=self.told.append)

    # Searching

    def _search(self) -> None:
        try:
            self._check(self._session)
        except ClosedError:  # as it should be, once the ledger is another file
            assert self.counts["ledgers replaced"] > self.counts["sessions closed"]
            self.counts["sessions closed"] += 1
            self._session.close()
            self._session = self._opened()
            self._check(self._session)

    def _search_anew(self) -> None:
        with self._opened() as session:
            self._check(session)

    def _check(self, session: Index) -> None:
        """Search, and compare what is found with what the model finds."""
        rng = self._rng
        metric = rng.choice(METRICS)
        k = rng.choice((1, 1, 3, 8, 30, len(self._model.photographs) + 5))
        query = self._query()
        within = rng.choice((None, None, *_FOLDERS))
        expected = self._model.found(query, metric, within)
        if within is not None and not expected:
            return  # a folder that is not there either is refused
        effort = rng.choice((None, None, None, 2 * k, 5 * k))
        (result,) = session.search(query, k, metric=metric, within=within or (), effort=effort)
        found = [
            (str(one.path), one.cosine_similarity, one.l2_distance) for one in result.neighbours
        ]
        if effort is None:
            assert found == expected[:k], (found, expected[:k], k, metric, within)
        else:  # what it holds is right and in order, and there is as much as can be
            places = [expected.index(one) for one in found]
            assert places == sorted(places)
            assert len(found) == min(k, len(expected))

    def _query(self) -> NDArray[np.float16]:
        content = self._content()
        if self._model.photographs and self._rng.random() < 0.3:
            _, content = self._model.photographs[self._rng.choice(list(self._model.photographs))]
        return vector_of(content)

    # Runs

    def _run(self) -> None:
        """Do what a run may do, finish it or leave it as a killed one does, and compress."""
        changes: list[tuple[Callable[[Storage], None], int]] = [
            (self._add, 8),
            (self._remove, 8 if len(self._model.photographs) > _FULL else 4),
            (self._rename, 4),
            (self._bring_back, 3),
            (self._prune, 2),
            (self._repair, 1),
        ]
        actions, weights = zip(*changes, strict=True)
        with open_storage_to_write(self._directory) as index:
            with index.ledger.transaction():
                index.ledger.execute("INSERT INTO runs (started) VALUES (?)", (time.time(),))
            for action in self._rng.choices(actions, weights, k=self._rng.choice((1, 1, 2, 4))):
                self.counts[action.__name__] += 1
                action(index)
                if self._rng.random() < 0.05:
                    self._copy()  # in the middle of a run
            if self._rng.random() < 0.05:
                return
            with index.ledger.transaction():
                last = "(SELECT max(id) FROM runs)"
                sql = f"UPDATE runs SET finished = ? WHERE id = {last}"
                index.ledger.execute(sql, (time.time(),))
            if self._is_compressed and self._rng.random() < 0.6:
                self.counts["compress"] += 1
                self._compress(index)

    def _compress(self, index: Storage) -> None:
        from alexnet_deploy.index.compressing import compress

        compress(index, codes=self._coder, threads=1)

    def _content(self) -> int:
        return self._rng.randrange(2**31)

    def _put(self, index: Storage, contents: Sequence[int]) -> None:
        """Index photographs under new names, as a batch of a run does."""
        start = index.next_position()
        new = {one: b"" for one in contents if index.position_of(_sha256(one)) is None}
        rows = [vector_of(content) for content in new]
        if rows:
            index.segments.append(start, np.stack(rows))
        with index.ledger.transaction():
            index.ledger.execute_many(
                "INSERT INTO vectors VALUES (?, ?, ?)",
                [
                    (position, _sha256(content), vector_checksum(row))
                    for position, (content, row) in enumerate(zip(new, rows, strict=True), start)
                ],
            )
            sql = "UPDATE settings SET next_position = ?"
            index.ledger.execute(sql, (start + len(rows),))
            for content in contents:
                self._num_names += 1
                path = f"{self._rng.choice(_FOLDERS)}/{self._num_names}.jpg"
                sha256 = _sha256(content)
                index.ledger.execute(
                    "INSERT INTO photographs (root, path, size, mtime_ns, sha256, position, "
                    "status) VALUES (1, ?, 1, 1, ?, ?, 'indexed')",
                    (path.removeprefix("/made/").encode(), sha256, index.position_of(sha256)),
                )
                (key,) = index.ledger.one("SELECT max(id) FROM photographs")
                self._model.photographs[path] = (key, content)

    def _add(self, index: Storage) -> None:
        many = 150 if len(self._model.photographs) < _FULL else 20
        self._put(index, [self._content() for _ in range(self._rng.choice((1, 2, 9, many)))])

    def _some(self, shares: Sequence[float]) -> list[str]:
        """Return the paths of some photographs, at least one where there are any."""
        paths = list(self._model.photographs)
        count = max(1, int(self._rng.choice(shares) * len(paths)))
        return self._rng.sample(paths, min(count, len(paths)))

    def _remove(self, index: Storage) -> None:
        self._drop(index, self._some((0, 0, 0.02, 0.1, 0.6)))

    def _drop(self, index: Storage, paths: Sequence[str]) -> list[int]:
        contents = []
        with index.ledger.transaction():
            for path in paths:
                key, content = self._model.photographs.pop(path)
                index.ledger.execute("DELETE FROM photographs WHERE id = ?", (key,))
                contents.append(content)
        return contents

    def _rename(self, index: Storage) -> None:
        self._put(index, self._drop(index, self._some((0, 0.02, 0.2))))

    def _bring_back(self, index: Storage) -> None:
        """Index again what was removed, or copy what is there; a vector may be left of it."""
        sql = "SELECT sha256 FROM vectors"
        left = [_contents[sha256] for (sha256,) in index.ledger.rows(sql)]
        if left:
            self._put(index, self._rng.sample(left, min(len(left), self._rng.choice((1, 20)))))

    def _prune(self, index: Storage) -> None:
        compact(index)

    def _repair(self, index: Storage) -> None:
        """Damage vectors on disk, let them be found, and embed their photographs again."""
        paths = self._some((0, 0.05))
        damaged = {self._model.photographs[path][1] for path in paths}
        for content in damaged:
            position = index.position_of(_sha256(content))
            assert position is not None
            segment, row = divmod(position, SEGMENT_ROWS)
            with open(index.segments.path(segment), "r+b") as file:
                file.seek(2 * DIMENSION * row)
                file.write((-2 - vector_of(content)).tobytes())
        assert forget_damaged(index) == len(damaged)
        known = self._model.photographs
        again = [path for path, (_, content) in known.items() if content in damaged]
        self._put(index, self._drop(index, again))

    # What happens to a directory

    def _copy(self) -> None:
        """Keep a copy of the index as it is now, in place of an older one."""
        if len(self._copies) > 3:
            oldest = self._copies.pop(self._rng.randrange(len(self._copies)))
            shutil.rmtree(oldest.directory)
        directory = self._place / f"copy-{self.counts['copies']}"
        self.counts["copies"] += 1
        shutil.copytree(self._directory, directory)
        photographs = dict(self._model.photographs)
        self._copies.append(_Copy(directory=directory, photographs=photographs))

    def _delete_compressed(self) -> None:
        shutil.rmtree(self._directory / ANN, ignore_errors=True)

    def _restore_compressed(self) -> None:
        """Put the compressed vectors of a copy in the place of the index's, or over them."""
        if self._copies:
            source = self._rng.choice(self._copies).directory / ANN
            if self._rng.random() < 0.5:
                self._delete_compressed()
            if source.exists():
                shutil.copytree(source, self._directory / ANN, dirs_exist_ok=True)

    def _restore_all_else(self) -> None:
        """Let ledger and vectors be those of a copy, which knows nothing of what came later."""
        if self._copies:
            copy = self._rng.choice(self._copies)
            shutil.rmtree(self._directory / VECTORS)
            shutil.copytree(copy.directory / VECTORS, self._directory / VECTORS)
            restored = self._place / "restored"
            shutil.copyfile(copy.directory / LEDGER_NAME, restored)
            restored.replace(self._directory / LEDGER_NAME)
            self._model = Model(dict(copy.photographs))
            self.counts["ledgers replaced"] += 1


_contents: dict[bytes, int] = {}


def _sha256(content: int) -> bytes:
    sha256 = hashlib.sha256(content.to_bytes(8, "little")).digest()
    _contents[sha256] = content
    return sha256


def _coder() -> BinaryCoder:
    """Return a coder of 64 bits that nobody has trained."""
    weights = np.random.default_rng(0).normal(0, 1, (64, DIMENSION)).astype(np.float32)
    return BinaryCoder(weights=(weights,), biases=(np.zeros(64, np.float32),))
