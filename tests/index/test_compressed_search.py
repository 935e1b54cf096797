"""A search through compressed vectors against a search of all of them."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from alexnet_deploy.choices import Metric
from alexnet_deploy.index.storage import Storage, open_storage
from tests.support.indexed_vectors import as_tuples, nearest
from tests.support.made_index import add, clustered, live, make_index, remove, run_on

MODULE = "alexnet_deploy.index.compressed_search"
METRICS: tuple[Metric, ...] = ("cosine", "l2")


def compress(index: Storage) -> None:
    from alexnet_deploy.index.compressing import compress

    compress(index, threads=1)


@contextmanager
def ranker_of(index: Storage, told: list[str]) -> Iterator[Any]:
    from alexnet_deploy.index.compressed_search import CompressedRanker
    from alexnet_deploy.index.exact_search import ExactRanker

    with index.ledger.snapshot():
        yield CompressedRanker(index, ExactRanker(index), told.append)


@st.composite
def histories(draw: st.DrawFn) -> dict[str, Any]:
    """Draw vectors with many ties, some compressed, some added later, some removed."""
    dimension = draw(st.integers(1, 20))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    kinds = generator.integers(-2, 3, (draw(st.integers(1, 12)), dimension)).astype(np.float64)
    if draw(st.booleans()):
        kinds += generator.normal(0, 1, kinds.shape)
    counts = draw(st.tuples(st.integers(1, 60), st.integers(0, 20), st.integers(0, 20)))
    vectors = [
        kinds[generator.integers(0, len(kinds), count)]
        * generator.choice((1, 1, 2, 3, -1), (count, 1))
        for count in counts
    ]
    return {
        "vectors": [part.astype(np.float16) for part in vectors],
        "removed": generator.random(sum(counts)) < draw(st.sampled_from((0, 0.2, 0.9))),
        "among": generator.random(sum(counts)) < draw(st.sampled_from((0.3, 0.9, 2))),
        "queries": kinds.astype(np.float16),
        "k": draw(st.integers(1, 30)),
        "metric": draw(st.sampled_from(METRICS)),
        "fewest": draw(st.sampled_from((1, 4, 1024))),
    }


@settings(max_examples=40, deadline=None)
@given(history=histories())
def test_what_is_proved_is_what_a_search_of_all_finds(history: dict[str, Any]) -> None:
    told: list[str] = []
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        directory = Path(folder) / "index"
        make_index(directory, history["queries"].shape[1], segment_rows=7)
        patch.setattr(f"{MODULE}._FEWEST", history["fewest"])
        patch.setattr(f"{MODULE}._FEW", 0)
        patch.setattr(f"{MODULE}._LARGEST_SHARE", 1)
        with run_on(directory) as index:
            first, second, third = history["vectors"]
            add(index, first)
            compress(index)
            add(index, second)
            compress(index)
            add(index, third)
            remove(index, np.flatnonzero(history["removed"]).tolist())
        with open_storage(directory) as index, ranker_of(index, told) as ranker:
            arguments = (history["queries"], history["k"])
            found = ranker.rank(*arguments, metric=history["metric"], threads=2)
            all_of_it = nearest(index, live(index), *arguments, metric=history["metric"], threads=1)
    assert list(map(as_tuples, found)) == list(map(as_tuples, all_of_it))
    assert not told


@pytest.fixture(scope="module")
def compressed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    directory = tmp_path_factory.mktemp("made") / "index"
    make_index(directory, 96, segment_rows=1000)
    with run_on(directory) as index:
        add(index, clustered(6000, 96))
        compress(index)
    with open_storage(directory) as index:
        yield index


@pytest.mark.parametrize("metric", METRICS)
def test_few_vectors_are_read_and_none_is_missed(compressed: Storage, metric: Metric) -> None:
    queries = clustered(50, 96, seed=1)
    with ranker_of(compressed, []) as ranker:
        found = ranker.rank(queries, 10, metric=metric, threads=2)
        expected = nearest(compressed, live(compressed), queries, 10, metric=metric, threads=1)
    assert list(map(as_tuples, found)) == list(map(as_tuples, expected))
    assert np.median([ranking.num_compared for ranking in found]) < 600


def test_codes_choose_what_an_effort_compares(tmp_path: Path) -> None:
    from alexnet_deploy.index.compressing import compress

    make_index(tmp_path / "index", 96, segment_rows=1000)
    queries, among = clustered(30, 96, seed=1), np.arange(0, 5000, 2)
    with run_on(tmp_path / "index") as index:
        add(index, clustered(5000, 96))
        compress(index, codes=64, threads=1)
        with ranker_of(index, []) as ranker:
            found = ranker.rank(queries, 10, metric="cosine", threads=2, effort=500)
            proved = ranker.rank(queries, 10, metric="cosine", threads=2)
            of_some = ranker.rank(queries, 10, metric="cosine", threads=2, effort=500, among=among)
    assert {ranking.num_compared for ranking in (*found, *of_some)} == {500}
    hits = [
        np.isin(one.positions[:10], two.positions) for one, two in zip(proved, found, strict=True)
    ]
    assert np.mean(hits) > 0.9
    assert all(not (ranking.positions % 2).any() for ranking in of_some)


def test_with_an_effort_so_many_are_read_and_what_they_hold_is_right(compressed: Storage) -> None:
    queries = clustered(50, 96, seed=1)
    with ranker_of(compressed, []) as ranker:
        found = ranker.rank(queries, 10, metric="cosine", threads=2, effort=100)
        proved = ranker.rank(queries, 10, metric="cosine", threads=2)
    assert {ranking.num_compared for ranking in found} == {100}
    hits = [
        len(set(some.positions) & set(true.positions[:10])) / 10
        for some, true in zip(found, proved, strict=True)
    ]
    assert np.mean(hits) > 0.95


def test_without_the_error_of_the_codes_a_search_would_miss_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A code of two steps a number: far from the vectors, and the bound knows it.
    monkeypatch.setattr(f"{MODULE}._FEWEST", 16)
    vectors, queries = clustered(800, 96), clustered(40, 96, seed=1)
    from alexnet_deploy.index import compression

    def coarse(one: Any, coordinates: NDArray[np.float64]) -> NDArray[np.uint8]:
        steps = (coordinates - one.lows) / one.steps
        codes: NDArray[np.uint8] = np.clip(steps // 128 * 128 + 64, 0, 255).astype(np.uint8)
        return codes

    monkeypatch.setattr(compression.Compression, "codes", coarse)
    make_index(tmp_path / "index", 96, segment_rows=1000)
    with run_on(tmp_path / "index") as index:
        add(index, vectors)
        compress(index)
        expected = nearest(index, live(index), queries, 10, metric="cosine", threads=1)
        with ranker_of(index, []) as ranker:
            found = ranker.rank(queries, 10, metric="cosine", threads=1)
        assert list(map(as_tuples, found)) == list(map(as_tuples, expected))
        monkeypatch.setattr(
            "alexnet_deploy.index.compressed_scan.CompressedScan.bounds",
            lambda _, squares: np.sqrt(squares.astype(float)),
        )
        with ranker_of(index, []) as ranker:
            wrong = ranker.rank(queries, 10, metric="cosine", threads=1)
    assert list(map(as_tuples, wrong)) != list(map(as_tuples, expected))
