"""2,000 random steps on a folder and its index, beside a model of them in plain Python.

The steps are always the same here. A longer walk, another each time:

    python -m tests.index.test_walk NUM_STEPS
"""

import dataclasses
import itertools
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_walk

from alexnet_deploy.errors import NoPhotographsError, UsageError
from alexnet_deploy.index.integrity import problems
from alexnet_deploy.index.storage import open_storage
from tests.support.index_runner import (
    Colour,
    Runners,
    counts,
    photograph,
    rows_of,
    search,
    update,
    vector_of,
)

STEPS_A_WALK = 50
SETTINGS = settings(stateful_step_count=STEPS_A_WALK, suppress_health_check=list(HealthCheck))
# In the order of bytes "a-/" comes before "a/", and "a0/" after it.
FOLDERS = ("", "a", "a/b", "a-", "a0")
NAMES = ("1.bmp", "2.bmp", os.fsdecode(b"\xe9.bmp"))
DAMAGED = b"not a photograph"
SECOND_NS = 10**9

Content = tuple[Colour, int]
"""Colour and edition; different editions have the same vector."""

PICTURES: list[Content] = [
    ((40 * n, 200 - 30 * n, 99), edition) for n in range(6) for edition in (0, 1)
]

paths = st.builds(os.path.join, st.sampled_from(FOLDERS), st.sampled_from(NAMES))
contents = st.sampled_from([*PICTURES, None])
several_files = st.dictionaries(paths, contents, min_size=6, max_size=9)
ages = st.sampled_from(["settled", "fresh"])


@dataclass(kw_only=True)
class File:
    """A file on disk; content None is a damaged one."""

    content: Content | None
    mtime_ns: int

    @property
    def data(self) -> bytes:
        return DAMAGED if self.content is None else photograph(*self.content)


@dataclass(kw_only=True)
class Entry:
    """What the index should know of a path; content None is a failure."""

    id: int
    content: Content | None
    mtime_ns: int | None
    size: int


@dataclass(kw_only=True)
class Outcome:
    """What a run should do: the counts of `index_runner.counts`, and more."""

    counts: list[int] = field(default_factory=lambda: [0] * 5)
    num_failed_before: int = 0
    losses: list[tuple[int, int]] = field(default_factory=list)
    colours: list[Colour] = field(default_factory=list)


class Model:
    """An index without files: a dictionary of paths, and the contents that have a vector."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.vectors: set[Content] = set()
        self._ids = itertools.count(1)
        self._num_before: int | None = None  # the first of the present losses

    def update(
        self, files: dict[str, File], scope: str, *, now_ns: int, prune: bool, retry_failed: bool
    ) -> Outcome | None:
        """Return what a run on one folder should do; None where nothing is or was."""
        found = sorted((path for path in files if is_in(path, scope)), key=search_order)
        gone = [path for path in self.entries if is_in(path, scope) and path not in files]
        if not found and not gone:
            return None
        outcome = Outcome()
        num_indexed = sum(entry.content is not None for entry in self.entries.values())
        if self._num_before is None and num_indexed < 5 * sum(
            self.entries[path].content is not None for path in gone
        ):
            self._num_before = num_indexed
        for path in found:
            self._read(path, files[path], now_ns, retry_failed, outcome)
        lost = self._lost(gone)
        if prune or len(lost) * 5 <= min(num_indexed, self._num_before or num_indexed):
            lost = []
            self._num_before = self._num_before if scope else None
        else:
            outcome.losses.append((len(lost), num_indexed))
        for path in set(gone) - set(lost):
            del self.entries[path]
            outcome.counts[3] += 1
        if prune:
            self.vectors = {e.content for e in self.entries.values() if e.content is not None}
        return outcome

    def _read(
        self, path: str, file: File, now_ns: int, retry_failed: bool, outcome: Outcome
    ) -> None:
        old, size = self.entries.get(path), len(file.data)
        if old is not None and (old.size, old.mtime_ns) == (size, file.mtime_ns):
            if old.content is None and not retry_failed:
                outcome.num_failed_before += 1
                return
            if old.content is not None:
                outcome.counts[2] += 1
                return
        is_settled = now_ns - file.mtime_ns > 2 * SECOND_NS
        mtime_ns = file.mtime_ns if is_settled else None
        key = next(self._ids) if old is None else old.id
        self.entries[path] = Entry(id=key, content=file.content, mtime_ns=mtime_ns, size=size)
        if file.content is None:
            outcome.counts[4] += 1
        elif file.content not in self.vectors:
            outcome.counts[0] += 1
            outcome.colours.append(file.content[0])
            self.vectors.add(file.content)
        elif old is not None and old.content == file.content:
            outcome.counts[2] += 1
        else:
            outcome.counts[1] += 1

    def _lost(self, gone: Sequence[str]) -> list[str]:
        """Return the paths of `gone` whose content is nowhere else."""
        left = {entry.content for path, entry in self.entries.items() if path not in gone}
        return [path for path in gone if self.entries[path].content not in left | {None}]

    def nearest(
        self, query: Content, own_path: str | None, metric: str
    ) -> list[tuple[str, float, float]]:
        """Return path, cosine similarity and L2 distance of all but `own_path`, nearest first."""
        wide = vector_of(query[0]).astype(np.float64)
        measured = []
        for path, entry in self.entries.items():
            if entry.content is not None and path != own_path:
                vector = vector_of(entry.content[0]).astype(np.float64)
                norms = np.linalg.norm(vector) * np.linalg.norm(wide)
                cosine = 1.0 if entry.content[0] == query[0] else float(vector @ wide / norms)
                distance = float(np.linalg.norm(vector - wide))
                value = -cosine if metric == "cosine" else distance
                measured.append((value, entry.id, path, cosine, distance))
        return [(path, cosine, distance) for _, _, path, cosine, distance in sorted(measured)]


def is_in(path: str, folder: str) -> bool:
    return not folder or path.startswith(f"{folder}/")


def search_order(path: str) -> list[tuple[int, str]]:
    """Sort the files of a folder before those of its sub-folders."""
    *folders, name = path.split("/")
    return [*((1, folder) for folder in folders), (0, name)]


class Walk(RuleBasedStateMachine):
    """The folder and the index on disk, and what they should be."""

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp())
        self.root, self.directory = self.place / "photographs", self.place / "index"
        self.root.mkdir()
        self.files: dict[str, File] = {}
        self.model = Model()
        self.runners = Runners()
        self.now_ns = 10**9 * SECOND_NS
        self.ticks = itertools.count(1)
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr("alexnet_deploy.index.model.open_runner_of", self.runners.open)
        clock = SimpleNamespace(time_ns=lambda: self.now_ns)
        self.patch.setattr("alexnet_deploy.photographs.file_stamps.time", clock)
        # Five vectors a segment, so that there are several and --prune has what to move.
        self.patch.setattr("alexnet_deploy.index.manifest.SEGMENT_BYTES", 5 * 16)

    def teardown(self) -> None:
        self.patch.undo()
        shutil.rmtree(self.place)

    @initialize(files=several_files)
    def begin(self, files: dict[str, Content | None]) -> None:
        self.add_several(files, "settled")
        self.update("", prune=False, retry_failed=False)

    # Steps on the folder.

    @rule(files=several_files, age=ages)
    def add_several(self, files: dict[str, Content | None], age: str) -> None:
        for path, content in files.items():
            self.write(path, File(content=content, mtime_ns=self.new_time(age)))

    @rule(path=paths, content=contents, age=ages)
    def add_or_change(self, path: str, content: Content | None, age: str) -> None:
        self.write(path, File(content=content, mtime_ns=self.new_time(age)))

    @precondition(lambda self: self.files)
    @rule(data=st.data(), content=contents)
    def change_in_the_same_moment(self, data: st.DataObject, content: Content | None) -> None:
        """Leave size and time as they are: only a second look can find it."""
        path = self.some_file(data)
        file = self.files[path]
        times = [other.mtime_ns for other in self.files.values()]
        is_fresh = self.now_ns - file.mtime_ns <= 2 * SECOND_NS
        # A copy with the same time, size and place is beyond what anyone can tell.
        if is_fresh and times.count(file.mtime_ns) == 1:
            self.write(path, dataclasses.replace(file, content=content))

    @precondition(lambda self: self.files)
    @rule(data=st.data(), age=ages)
    def touch(self, data: st.DataObject, age: str) -> None:
        path = self.some_file(data)
        mtime_ns = self.new_time(age)
        self.write(path, dataclasses.replace(self.files[path], mtime_ns=mtime_ns))

    @precondition(lambda self: self.files)
    @rule(data=st.data(), new=paths)
    def rename(self, data: st.DataObject, new: str) -> None:
        old = self.some_file(data)
        if old != new:
            (self.root / new).parent.mkdir(parents=True, exist_ok=True)
            (self.root / old).rename(self.root / new)
            self.files[new] = self.files.pop(old)

    @precondition(lambda self: self.files)
    @rule(data=st.data(), new=paths, keep_time=st.booleans())
    def copy(self, data: st.DataObject, new: str, keep_time: bool) -> None:
        file = self.files[self.some_file(data)]
        mtime_ns = file.mtime_ns if keep_time else self.new_time("fresh")
        self.write(new, dataclasses.replace(file, mtime_ns=mtime_ns))

    @precondition(lambda self: self.files)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        path = self.some_file(data)
        (self.root / path).unlink()
        del self.files[path]

    @precondition(lambda self: any("/" in path for path in self.files))
    @rule(data=st.data())
    def remove_folder(self, data: st.DataObject) -> None:
        folder = data.draw(st.sampled_from(self.folders_with_files()))
        shutil.rmtree(self.root / folder)
        self.files = {path: f for path, f in self.files.items() if not is_in(path, folder)}

    @precondition(lambda self: any("/" in path for path in self.files))
    @rule(data=st.data(), new=st.sampled_from(FOLDERS[1:]))
    def rename_folder(self, data: st.DataObject, new: str) -> None:
        old = data.draw(st.sampled_from(self.folders_with_files()))
        if (self.root / new).exists() or is_in(new, old):
            return
        (self.root / new).parent.mkdir(exist_ok=True)
        (self.root / old).rename(self.root / new)
        for path in [path for path in self.files if is_in(path, old)]:
            self.files[new + path.removeprefix(old)] = self.files.pop(path)

    @rule()
    def time_passes(self) -> None:
        self.now_ns += 10 * SECOND_NS

    # Steps on the index.

    @rule(
        scope=st.sampled_from(["", "", *FOLDERS]),
        prune=st.sampled_from([False, False, True]),
        retry_failed=st.sampled_from([False, False, True]),
    )
    def run_index(self, scope: str, prune: bool, retry_failed: bool) -> None:
        self.update(scope, prune=prune, retry_failed=retry_failed)

    @precondition(lambda self: self.files)
    @rule(data=st.data(), k=st.integers(1, 12), metric=st.sampled_from(["cosine", "l2"]))
    def search_for_a_file(self, data: st.DataObject, k: int, metric: str) -> None:
        path = self.some_file(data)
        self.search(self.root / path, self.files[path].content, path, k, metric)

    @rule(content=st.sampled_from([*PICTURES, ((77, 5, 60), 0)]), k=st.integers(1, 12))
    def search_for_another(self, content: Content, k: int) -> None:
        query = self.place / "query.bmp"
        query.write_bytes(photograph(*content))
        self.search(query, content, None, k, "cosine")

    def update(self, scope: str, *, prune: bool, retry_failed: bool) -> None:
        """Bring index and model up to date, and compare all that they hold."""
        folder = self.root / scope
        is_there = folder.is_dir()
        options: dict[str, Any] = {"prune": prune, "retry_failed": retry_failed}
        expected = self.model.update(self.files, scope, now_ns=self.now_ns, **options)
        if expected is None:
            with pytest.raises(NoPhotographsError if is_there else UsageError):
                update(self.directory, folder, **options)
        else:
            self.runners.colours.clear()
            report = update(self.directory, folder, **options)
            assert counts(report) == tuple(expected.counts)
            assert report.num_failed_before == expected.num_failed_before
            losses = [(loss.num_lost, loss.num_indexed) for loss in report.losses]
            assert losses == expected.losses
            assert self.runners.colours == expected.colours
        self.compare()
        if expected is not None and prune:
            # A segment of which less than three quarters are in use is given back; what is
            # moved from it may come to lie beside dead rows of the last one.
            num_rows = sum(f.stat().st_size // 16 for f in self.directory.glob("vectors/*"))
            assert 3 * num_rows <= 4 * len(self.model.vectors)

    def compare(self) -> None:
        rows = rows_of(self.directory)
        assert {path: row.id for path, row in rows.items()} == {
            self.root / path: entry.id for path, entry in self.model.entries.items()
        }
        for path, entry in self.model.entries.items():
            row = rows[self.root / path]
            if entry.content is None:
                assert (row.status, row.vector) == ("failed", None)
                assert "not an image" in (row.reason or "")
            else:
                assert (row.status, row.reason) == ("indexed", None)
                assert row.vector == tuple(vector_of(entry.content[0]).tolist())
        with open_storage(self.directory) as index:
            assert list(problems(index)) == []

    def search(
        self, query: Path, content: Content | None, own_path: str | None, k: int, metric: str
    ) -> None:
        """Search in the index and by brute force."""
        self.runners.colours.clear()
        (result,) = search(self.directory, [query], k=k, metric=metric)
        if content is None:
            assert result.neighbours == ()
            assert "not an image" in (result.error or "")
            return
        assert result.error is None
        assert self.runners.colours == ([] if content in self.model.vectors else [content[0]])
        expected = self.model.nearest(content, own_path, metric)[:k]
        found = [(n.path, n.cosine_similarity, n.l2_distance) for n in result.neighbours]
        assert [path for path, *_ in found] == [self.root / path for path, *_ in expected]
        # Both are sums of 8 terms in float64.
        for (_, *actual), (_, *wanted) in zip(found, expected, strict=True):
            assert actual == pytest.approx(wanted, rel=1e-12, abs=1e-12)

    def write(self, path: str, file: File) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_bytes(file.data)
        os.utime(self.root / path, ns=(file.mtime_ns, file.mtime_ns))
        self.files[path] = file

    def new_time(self, age: str) -> int:
        """Return a time that no file has."""
        age_ns = 5 * SECOND_NS if age == "settled" else 0
        return self.now_ns - age_ns - next(self.ticks)

    def some_file(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(sorted(self.files)))

    def folders_with_files(self) -> Sequence[str]:
        return [folder for folder in FOLDERS[1:] if any(is_in(p, folder) for p in self.files)]


def test_a_random_walk_finds_no_difference() -> None:
    run_walk(Walk, settings=settings(SETTINGS, max_examples=40, derandomize=True))


if __name__ == "__main__":
    num_walks = int(sys.argv[1]) // STEPS_A_WALK
    run_walk(Walk, settings=settings(SETTINGS, max_examples=num_walks))
