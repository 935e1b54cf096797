"""Compressed vectors while their index changes: what they say of it is true, or not used."""

import hashlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from alexnet_deploy.index.compressed_check import compressed_problems
from alexnet_deploy.index.compressed_record import compressed_record
from alexnet_deploy.index.ledger import LEDGER_NAME
from alexnet_deploy.index.maintenance import compact
from alexnet_deploy.index.storage import Storage, open_storage, open_storage_to_write
from tests.index.test_compressed_search import compress, ranker_of
from tests.support.indexed_vectors import as_tuples, nearest
from tests.support.made_index import add, clustered, live, make_index, remove, run_on

MODULE = "alexnet_deploy.index.compressed_search"
CHANGING = Path(__file__).parents[1] / "support" / "changing_child.py"


def assert_same(index: Storage, ranker: Any, queries: NDArray[np.float16], k: int = 10) -> None:
    """Search in one snapshot of the ledger through compressed vectors and through all."""
    with index.ledger.snapshot():
        found = ranker.rank(queries, k, metric="cosine", threads=1)
        expected = nearest(index, live(index), queries, k, metric="cosine", threads=1)
    assert list(map(as_tuples, found)) == list(map(as_tuples, expected))


def opened_ranker(index: Storage, told: list[str]) -> Any:
    with ranker_of(index, told) as ranker:
        return ranker


def test_a_photograph_that_returns_to_its_vector_is_found(tmp_path: Path) -> None:
    make_index(tmp_path / "index", 24)
    vectors = clustered(100, 24)
    with run_on(tmp_path / "index") as index:
        add(index, vectors)
        remove(index, [5])
        compress(index)
        with index.ledger.transaction():
            index.ledger.execute(
                "INSERT INTO photographs (root, path, size, mtime_ns, sha256, position, status) "
                "SELECT 1, x'61', 1, 1, sha256, position, 'indexed' FROM vectors "
                "WHERE position = 5"
            )
        ranker = opened_ranker(index, [])
        (ranking,) = ranker.rank(vectors[5:6], 1, metric="cosine", threads=1)
    assert 5 in ranking.positions


def test_the_ledger_of_an_unfinished_run_does_not_know_what_was_compressed_after_it(
    tmp_path: Path,
) -> None:
    told: list[str] = []
    directory = tmp_path / "index"
    make_index(directory, 24)
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
        assert_same(index, opened_ranker(index, told), clustered(20, 24, seed=2))
    assert "of a later state of this one" in told[0]


def test_an_open_index_finds_out_that_its_ledger_became_an_older_copy(tmp_path: Path) -> None:
    told: list[str] = []
    directory = tmp_path / "index"
    make_index(directory, 24)
    with run_on(directory) as index:
        add(index, clustered(60, 24))
    shutil.copyfile(directory / LEDGER_NAME, tmp_path / "copy")
    with run_on(directory) as index:
        add(index, clustered(40, 24, seed=1))
        compress(index)
    with open_storage(directory) as index:
        ranker = opened_ranker(index, told)
        assert_same(index, ranker, clustered(20, 24, seed=1))
        assert not told
        shutil.copyfile(tmp_path / "copy", directory / LEDGER_NAME)  # over it, as `cp` does
        with run_on(directory) as other:
            add(other, clustered(20, 24, seed=2))
            add(other, clustered(20, 24, seed=2))
        assert_same(index, ranker, clustered(20, 24, seed=2))
    assert "of a later state of this one" in told[0]


def test_with_an_effort_removed_photographs_make_no_answer_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{MODULE}._FEWEST", 32)
    make_index(tmp_path / "index", 24)
    vectors = clustered(2000, 24)
    with run_on(tmp_path / "index") as index:
        add(index, vectors)
        compress(index)
    with open_storage(tmp_path / "index") as index:
        ranker = opened_ranker(index, [])
        (ranking,) = ranker.rank(vectors[:1], 100, metric="cosine", threads=1)
        with run_on(tmp_path / "index") as other:
            remove(other, ranking.positions.tolist())
        (ranking,) = ranker.rank(vectors[:1], 10, metric="cosine", threads=1, effort=20)
        assert len(ranking.positions) >= 10
        assert ranking.num_compared == 20
        (ranking,) = ranker.rank(vectors[:1], 10, metric="cosine", threads=1, effort=10**12)
        assert ranking.num_compared == len(live(index))


def test_vectors_unlike_all_before_are_compressed_as_well(tmp_path: Path) -> None:
    """As when a burst of one motif is indexed first: axes of it leave nearly all of others out."""
    told: list[str] = []
    make_index(tmp_path / "index", 24)
    noise = np.random.default_rng(0).normal(0, 1e-2, (90, 24))
    with run_on(tmp_path / "index") as index:
        add(index, (noise[:60] + 1).astype(np.float16))
        compress(index)
        add(index, (noise[60:] - 1).astype(np.float16))
        from alexnet_deploy.index.compressing import compress as compress_and_tell

        compress_and_tell(index, threads=1, notify=told.append)
        record = compressed_record(index)
        assert record is not None
        assert record.num_rows == 90
        assert record.num_fitted == 60
        assert_same(index, opened_ranker(index, told), (noise - 1).astype(np.float16))
    assert not [line for line in told if "every vector is compared" in line]


def test_a_pruned_index_has_no_rows_of_what_is_gone_once_half_is(tmp_path: Path) -> None:
    make_index(tmp_path / "index", 24)
    with run_on(tmp_path / "index") as index:
        add(index, clustered(200, 24))
        compress(index)
        remove(index, range(130))
        compact(index)
        compress(index)
        record = compressed_record(index)
        assert record is not None
        assert (record.num_rows, record.fit) == (70, 1)


def test_files_of_another_fit_that_a_killed_run_left_go_with_the_next(tmp_path: Path) -> None:
    make_index(tmp_path / "index", 24)
    with run_on(tmp_path / "index") as index:
        add(index, clustered(60, 24))
        compress(index)
        left = tmp_path / "index" / "ann" / "00001.rows"
        left.write_bytes(b"rows")
        compress(index)
        assert not left.exists()
        assert {path.stem for path in left.parent.iterdir()} == {"compressed", "00000"}


@pytest.mark.parametrize("make", [Path.touch, lambda path: path.symlink_to(path.name)])
def test_a_file_in_the_place_of_the_folder_is_told_of(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    make_index(tmp_path / "index", 24)
    with run_on(tmp_path / "index") as index:
        add(index, clustered(20, 24))
    make(tmp_path / "index" / "ann")
    told: list[str] = []
    with open_storage(tmp_path / "index") as index, ranker_of(index, told) as ranker:
        for _ in range(2):
            ranker.rank(clustered(1, 24), 3, metric="cosine", threads=1)
    (line,) = told
    assert "a link or a file, expected a folder" in line


def test_codes_for_which_too_few_vectors_are_left_go_without_an_error(tmp_path: Path) -> None:
    told: list[str] = []
    make_index(tmp_path / "index", 96)
    with run_on(tmp_path / "index") as index:
        from alexnet_deploy.index.compressing import compress as compress_with

        add(index, clustered(100, 96))
        compress_with(index, codes=64, threads=1)
        remove(index, range(60))
        compact(index)
        compress_with(index, threads=1, notify=told.append)
        record = compressed_record(index)
        assert record is not None
        assert (record.num_rows, record.bits) == (40, 0)
    assert "too few vectors are left to fit codes of 64 bits, so they go" in told


def test_what_lies_behind_a_link_is_not_read(tmp_path: Path) -> None:
    told: list[str] = []
    directory = tmp_path / "index"
    make_index(directory, 24)
    with run_on(directory) as index:
        add(index, clustered(60, 24))
        compress(index)
    (directory / "ann").rename(tmp_path / "elsewhere")
    (directory / "ann").symlink_to(tmp_path / "elsewhere")
    with open_storage(directory) as index:
        assert_same(index, opened_ranker(index, told), clustered(20, 24, seed=1))
    assert "it is a link" in told[0]


def test_the_compressed_forms_of_other_vectors_are_a_problem_that_a_check_finds(
    tmp_path: Path,
) -> None:
    make_index(tmp_path / "index", 24)
    with run_on(tmp_path / "index") as index:
        add(index, clustered(60, 24))
        compress(index)
        add(index, clustered(5, 24, seed=1))
        assert list(compressed_problems(index)) == []
        rows = tmp_path / "index" / "ann" / "00000.rows"
        data = bytearray(rows.read_bytes())
        data[-1] ^= 0x80
        rows.write_bytes(data)
        (problem,) = compressed_problems(index)
        assert ": 1 vectors have the compressed form of others, or none" in problem
        rows.write_bytes(data[:-30])
        (problem,) = compressed_problems(index)
        assert "bytes, expected" in problem


def test_a_search_is_right_while_another_process_indexes_and_compresses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{MODULE}._FEWEST", 8)
    told: list[str] = []
    directory = tmp_path / "index"
    make_index(directory, 24)
    with run_on(directory) as index:
        add(index, clustered(300, 24))
        compress(index)
    queries, states = clustered(3, 24, seed=1), set()
    with (
        open_storage(directory) as index,
        subprocess.Popen([sys.executable, CHANGING, str(directory), "12"]) as process,
    ):
        ranker = opened_ranker(index, told)
        while process.poll() is None:
            assert_same(index, ranker, queries)
            states.add(hashlib.sha256((directory / LEDGER_NAME).read_bytes()).digest())
        assert_same(index, ranker, queries)
        record = compressed_record(index)
    assert process.returncode == 0
    assert len(states) > 5
    assert record is not None
    assert record.fit > 1
    assert not told
