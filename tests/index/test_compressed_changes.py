"""Compressed vectors while their index changes: what they say of it is true, or not used."""

import hashlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from alexnet_deploy.index.compressed_check import compressed_problems
from alexnet_deploy.index.ledger import LEDGER_NAME
from alexnet_deploy.index.status import describe_index
from alexnet_deploy.index.storage import open_storage, open_storage_to_write
from tests.support.compressed_index import (
    assert_in_order,
    assert_same,
    compress,
    ranker_of,
    record_of,
)
from tests.support.made_index import add, clustered, live, make_index, remove, run_on

MODULE = "alexnet_deploy.index.compressed_search"
CHANGING = Path(__file__).parents[1] / "support" / "changing_child.py"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return an empty index of vectors of 24 numbers."""
    make_index(tmp_path / "index", 24)
    return tmp_path / "index"


def test_a_photograph_that_returns_to_its_vector_is_found(directory: Path) -> None:
    vectors = clustered(100, 24)
    with run_on(directory) as index:
        add(index, vectors)
        remove(index, [5])
        compress(index)
        with index.ledger.transaction():
            index.ledger.execute(
                "INSERT INTO photographs (root, path, size, mtime_ns, sha256, position, status) "
                "SELECT 1, x'61', 1, 1, sha256, position, 'indexed' FROM vectors "
                "WHERE position = 5"
            )
        (ranking,) = ranker_of(index, []).rank(vectors[5:6], 1, metric="cosine", threads=1)
    assert 5 in ranking.positions


def test_the_ledger_of_an_unfinished_run_does_not_know_what_was_compressed_after_it(
    directory: Path, tmp_path: Path
) -> None:
    told: list[str] = []
    with open_storage_to_write(directory) as index:
        with index.ledger.transaction():
            index.ledger.execute("INSERT INTO runs (started) VALUES (?)", (time.time(),))
        add(index, clustered(60, 24))
        shutil.copyfile(directory / LEDGER_NAME, tmp_path / "copy")
        add(index, clustered(40, 24, seed=1))
        with index.ledger.transaction():
            index.ledger.execute("UPDATE runs SET finished = started")
        compress(index)
    shutil.copyfile(tmp_path / "copy", directory / LEDGER_NAME)
    with run_on(directory) as index:  # other vectors come to the same positions
        add(index, clustered(40, 24, seed=2))
    with open_storage(directory) as index:
        assert_same(index, ranker_of(index, told), clustered(20, 24, seed=2))
    assert "of a later state of this one" in told[0]


def test_an_open_index_finds_out_that_its_ledger_became_an_older_copy(
    directory: Path, tmp_path: Path
) -> None:
    told: list[str] = []
    with run_on(directory) as index:
        add(index, clustered(60, 24))
    shutil.copyfile(directory / LEDGER_NAME, tmp_path / "copy")
    with run_on(directory) as index:
        add(index, clustered(40, 24, seed=1))
        compress(index)
    with open_storage(directory) as index:
        ranker = ranker_of(index, told)
        assert_same(index, ranker, clustered(20, 24, seed=1))
        assert not told
        shutil.copyfile(tmp_path / "copy", directory / LEDGER_NAME)  # over it, as `cp` does
        with run_on(directory) as other:
            add(other, clustered(20, 24, seed=2))
            add(other, clustered(20, 24, seed=2))
        assert_same(index, ranker, clustered(20, 24, seed=2))
    assert "of a later state of this one" in told[0]
    assert "of a later state" in describe_index(directory, check=False)["compressed"]["error"]
    with run_on(directory) as index:
        assert "compressed again" in compress(index)[0]


def test_with_an_effort_removed_photographs_make_no_answer_short(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{MODULE}._FEWEST", 32)
    vectors = clustered(2000, 24)
    with run_on(directory) as index:
        add(index, vectors)
        compress(index)
    with open_storage(directory) as index:
        ranker = ranker_of(index, [])
        (ranking,) = ranker.rank(vectors[:1], 100, metric="cosine", threads=1)
        with run_on(directory) as other:
            remove(other, ranking.positions.tolist())
        (ranking,) = ranker.rank(vectors[:1], 10, metric="cosine", threads=1, effort=20)
        assert len(ranking.positions) >= 10
        assert ranking.num_compared == 20
        (ranking,) = ranker.rank(vectors[:1], 10, metric="cosine", threads=1, effort=10**12)
        assert ranking.num_compared == len(live(index))


@pytest.mark.parametrize("make", [Path.touch, lambda path: path.symlink_to(path.name)])
def test_a_file_in_the_place_of_the_folder_is_told_of(
    make: Callable[[Path], None], directory: Path
) -> None:
    told: list[str] = []
    make(directory / "ann")
    with open_storage(directory) as index:
        ranker = ranker_of(index, told)
        for _ in range(2):
            ranker.rank(clustered(1, 24), 3, metric="cosine", threads=1)
    (line,) = told
    assert "a link or a file, expected a folder" in line


def test_files_of_another_fit_that_a_killed_run_left_go_with_the_next(directory: Path) -> None:
    with run_on(directory) as index:
        add(index, clustered(60, 24))
        compress(index)
        left = directory / "ann" / "00001.rows"
        left.write_bytes(b"rows")
        compress(index)
    assert {path.stem for path in left.parent.iterdir()} == {"compressed", "00000"}


def test_the_compressed_forms_of_other_vectors_are_a_problem_that_a_check_finds(
    directory: Path,
) -> None:
    with run_on(directory) as index:
        add(index, clustered(60, 24))
        compress(index)
        add(index, clustered(5, 24, seed=1))
        assert list(compressed_problems(index)) == []
        rows = directory / "ann" / "00000.rows"
        data = bytearray(rows.read_bytes())
        data[-1] ^= 0x80
        rows.write_bytes(data)
        (problem,) = compressed_problems(index)
        assert ": 1 vectors have the compressed form of others, or none" in problem
        rows.write_bytes(data[:-30])
        (problem,) = compressed_problems(index)
        assert "bytes, expected" in problem


@pytest.mark.parametrize("bits", [0, 64])
def test_a_search_is_right_while_another_process_indexes_and_compresses(
    bits: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{MODULE}._FEWEST", 8)
    directory, told = tmp_path / "index", list[str]()
    make_index(directory, 64)
    with run_on(directory) as index:
        add(index, clustered(300, 64))
        compress(index, bits)
    queries, states = clustered(3, 64, seed=1), set()
    with (
        open_storage(directory) as index,
        subprocess.Popen([sys.executable, CHANGING, str(directory), "12", str(bits)]) as process,
    ):
        ranker = ranker_of(index, told)
        while process.poll() is None:
            assert_same(index, ranker, queries)
            assert_in_order(index, ranker, queries, effort=20)
            states.add(hashlib.sha256((directory / LEDGER_NAME).read_bytes()).digest())
        assert_same(index, ranker, queries)
        assert_in_order(index, ranker, queries, effort=20)
        record = record_of(index)
        assert (record.fit > 1, record.bits) == (True, bits)
    assert process.returncode == 0
    assert len(states) > 5
    assert not told
