"""Compressed vectors over the life of an index: made, extended, fitted anew, dropped, told of."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from alexnet_deploy.errors import ArgumentError, UsageError
from alexnet_deploy.index.itq import fit_itq
from alexnet_deploy.index.maintenance import compact
from alexnet_deploy.index.plan import plan
from alexnet_deploy.index.status import describe_index, readable_index
from alexnet_deploy.index.storage import Storage
from alexnet_deploy.index.update import UpdateOptions
from tests.support.compressed_index import assert_same, compress, ranker_of, record_of
from tests.support.index_runner import Runners, save_colours, search, update
from tests.support.made_index import add, clustered, live, make_index, remove, run_on


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Storage]:
    """Open an index of 400 vectors of 96 numbers, for writing."""
    make_index(tmp_path / "made", 96)
    with run_on(tmp_path / "made") as index:
        add(index, clustered(400, 96))
        yield index


def test_later_vectors_are_added_until_there_are_twice_as_many(index: Storage) -> None:
    assert "400 vectors are compressed" in compress(index)[0]
    folder = index.directory / "ann"
    size = (folder / "00000.rows").stat().st_size
    add(index, clustered(40, 96, seed=1))
    compress(index)
    record = record_of(index)
    assert (record.fit, record.num_rows, record.num_fitted) == (0, 440, 400)
    assert (folder / "00000.rows").stat().st_size == size * 440 // 400
    add(index, clustered(360, 96, seed=2))
    compress(index)
    record = record_of(index)
    assert (record.fit, record.num_rows, record.num_fitted) == (1, 800, 800)
    assert {path.name[:5] for path in folder.glob("0*")} == {"00001"}


def test_they_are_fitted_anew_when_a_prune_has_left_half_of_them(index: Storage) -> None:
    compress(index)
    remove(index, range(0, 400, 5))  # the segments are full enough to stay
    compact(index)
    compress(index)
    assert record_of(index).fit == 0
    remove(index, live(index)[::2].tolist())
    compact(index)
    compress(index)
    assert (record_of(index).fit, record_of(index).num_rows) == (1, 160)


def test_vectors_unlike_all_before_are_told_of_and_found(index: Storage) -> None:
    """As when a burst of one motif is indexed first: axes of it leave nearly all of others out."""
    told: list[str] = []
    noise = np.random.default_rng(0).normal(0, 1e-2, (300, 96))
    remove(index, range(400))
    compact(index)
    add(index, (noise[:200] + 1).astype(np.float16))
    compress(index)
    add(index, (noise[200:] - 1).astype(np.float16))
    assert "the axes leave out" in compress(index)[-1]
    assert record_of(index).num_fitted == 200
    assert_same(index, ranker_of(index, told), (noise[:20] - 1).astype(np.float16))
    assert not told
    add(index, clustered(5, 96))
    assert "105 later vectors" in compress(index)[-1]


@pytest.mark.parametrize("dimension", [1, 10, 15])
def test_vectors_of_few_numbers_are_compressed_whole(dimension: int, tmp_path: Path) -> None:
    make_index(tmp_path / "few", dimension)
    with run_on(tmp_path / "few") as index:
        add(index, clustered(300, dimension))
        compress(index)
        add(index, clustered(100, dimension, seed=1))
        assert not any("leave out" in line for line in compress(index))
        assert record_of(index).num_axes == dimension
        assert_same(index, ranker_of(index, []), clustered(20, dimension, seed=2))


def test_codes_are_added_kept_and_dropped(index: Storage) -> None:
    found, told = [], []
    for codes in (None, 64, None, 0):
        told += compress(index, codes)
        record = record_of(index)
        found.append((record.fit, record.bits, record.num_rows))
        add(index, clustered(10, 96, seed=len(found)))
    assert found == [(0, 0, 400), (1, 64, 410), (1, 64, 420), (2, 0, 430)]
    assert ["and 64 bits" in line for line in told] == [False, True, False]


def test_codes_stay_when_too_few_vectors_are_left_to_fit_them_anew(index: Storage) -> None:
    compress(index, 64)
    remove(index, range(350))
    compact(index)
    compress(index)
    record = record_of(index)
    assert (record.fit, record.bits, record.num_rows) == (1, 64, 50)


def test_too_few_vectors_or_numbers_for_the_bits_are_refused(index: Storage) -> None:
    with pytest.raises(UsageError, match=r"more than 128 vectors of at least 128 numbers"):
        compress(index, 128)


def test_codes_come_back_with_what_was_damaged(index: Storage) -> None:
    compress(index, 64)
    (index.directory / "ann" / "00000.rows").unlink()
    assert "compressed again" in compress(index)[0]
    assert record_of(index).bits == 64


def test_codes_of_a_coder_that_are_damaged_are_told_of(index: Storage) -> None:
    compress(index, fit_itq(clustered(200, 96), 64))
    (index.directory / "ann" / "00000.rows").unlink()
    assert "codes of 64 bits cannot be made again without their coder" in compress(index)[1]
    assert record_of(index).bits == 0


def test_too_few_photographs_for_the_bits_are_refused_before_the_work(
    tmp_path: Path, runners: Runners
) -> None:
    save_colours(tmp_path / "colours", 12)
    with pytest.raises(UsageError, match=r"more than 64 vectors .* the index has 12 of 8"):
        update(tmp_path / "index", tmp_path / "colours", ann=64)
    assert describe_index(tmp_path / "index", check=False)["photographs"]["indexed"] == 0


def test_an_effort_that_cannot_be_kept_is_told_of(tmp_path: Path, runners: Runners) -> None:
    paths = save_colours(tmp_path / "colours", 3)
    told: list[str] = []
    update(tmp_path / "index", tmp_path / "colours")
    list(search(tmp_path / "index", paths, k=1, effort=2, notify=told.append))
    assert told[-1] == "no vectors are compressed: all were compared, whatever the effort"


def test_a_small_index_is_compressed_where_it_is_asked_for(
    tmp_path: Path, runners: Runners
) -> None:
    index = tmp_path / "colours index"
    paths = save_colours(tmp_path / "colours", 12)
    update(index, tmp_path / "colours")
    assert describe_index(index, check=False)["compressed"] is None
    expected = [result.neighbours for result in search(index, paths, k=5)]
    update(index, tmp_path / "colours", ann="compressed")
    told: list[str] = []
    assert [one.neighbours for one in search(index, paths, k=5, notify=told.append)] == expected
    assert "of 12 vectors were compared" in told[-1]
    assert "no other is nearer" in told[-1]
    list(search(index, paths, k=1, effort=2, notify=told.append))
    assert "recall was" in told[-1]
    list(search(index, paths, k=2, effort=3, notify=told.append))
    assert "no other is nearer" in told[-1]
    assert "12 vectors to 9 bytes each" in readable_index(describe_index(index, check=True))
    save_colours(tmp_path / "colours", 14)
    update(index, tmp_path / "colours")
    assert describe_index(index, check=False)["compressed"]["vectors"] == 14
    update(index, tmp_path / "colours", ann="exact")
    assert describe_index(index, check=False)["compressed"] is None
    assert not list((index / "ann").iterdir())


def test_what_says_how_to_compress_is_checked_at_once() -> None:
    for ann in (0, 65, "often", True):
        with pytest.raises(ArgumentError, match="ann"):
            UpdateOptions(ann=ann)  # type: ignore[arg-type]


def test_a_plan_grows_with_the_vectors_and_does_as_it_is_told() -> None:
    small, large = plan(10, 4096, "auto", 2), plan(10**7, 4096, "auto", 2)
    assert (small.is_compressed, large.is_compressed) == (False, True)
    assert large.compressed_bytes == 10**7 * 140
    assert "10,000,000 vectors" in large.line()
    assert plan(10, 4096, "compressed", 2).is_compressed
    coded = plan(10**7, 4096, 64, 2)
    assert (coded.is_compressed, coded.compressed_bytes) == (True, 10**7 * 148)
    assert not plan(10**7, 4096, "exact", 2).is_compressed
