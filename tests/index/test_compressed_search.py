"""A search through compressed vectors against a search of all of them."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from alexnet_deploy.choices import Metric
from alexnet_deploy.index.storage import Storage, open_storage
from tests.support.compressed_index import assert_same, compress, ranker_of
from tests.support.made_index import add, clustered, live, make_index, remove, run_on

MODULE = "alexnet_deploy.index.compressed_search"
METRICS: tuple[Metric, ...] = ("cosine", "l2")


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
        "is_among": generator.random(sum(counts)) < draw(st.sampled_from((0.3, 0.9))),
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
        with open_storage(directory) as index:
            arguments = (ranker_of(index, told), history["queries"], history["k"])
            among = np.intersect1d(live(index), np.flatnonzero(history["is_among"]))
            assert_same(index, *arguments, history["metric"])
            assert_same(index, *arguments, history["metric"], among)
    assert not told


@pytest.fixture(scope="module", params=[0, 64])
def compressed(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Storage]:
    """Return an index of 3,000 vectors, without and with binary codes."""
    directory = tmp_path_factory.mktemp("made") / "index"
    make_index(directory, 96, segment_rows=1000)
    with run_on(directory) as index:
        add(index, clustered(3000, 96))
        compress(index, request.param)
    with open_storage(directory) as index:
        yield index


@pytest.mark.parametrize("metric", METRICS)
def test_few_vectors_are_read_and_none_is_missed(compressed: Storage, metric: Metric) -> None:
    ranker = ranker_of(compressed, [])
    counts = assert_same(compressed, ranker, clustered(50, 96, seed=1), metric=metric)
    assert np.median(counts) < 400


@pytest.mark.parametrize("metric", METRICS)
def test_what_few_points_are_looked_at_for_is_the_nearest(
    metric: Metric, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # By L2 the nearest is seldom among the first few, whose lengths are any.
    monkeypatch.setattr(f"{MODULE}._FEWEST", 16)
    generator = np.random.default_rng(0)

    def some(count: int) -> NDArray[np.float16]:
        rows = 5 + generator.normal(0, 1, (count, 4))
        return (rows * generator.uniform(0.5, 1.5, (count, 1))).astype(np.float16)

    make_index(tmp_path / "index", 4, segment_rows=1000)
    with run_on(tmp_path / "index") as index:
        add(index, some(2000))
        compress(index)
        counts = assert_same(index, ranker_of(index, []), some(100), k=1, metric=metric)
    assert np.median(counts) < 200


def test_with_an_effort_so_many_are_read_and_most_of_the_nearest_are_found(
    compressed: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{MODULE}._FEW", 0)
    queries, among = clustered(30, 96, seed=1), np.arange(0, 3000, 2)
    ranker = ranker_of(compressed, [])
    proved = ranker.rank(queries, 10, metric="cosine", threads=2)
    found = ranker.rank(queries, 10, metric="cosine", threads=2, effort=300)
    of_some = ranker.rank(queries, 10, metric="cosine", threads=2, effort=300, among=among)
    assert {ranking.num_compared for ranking in (*found, *of_some)} == {300}
    assert all(np.isin(ranking.positions, among).all() for ranking in of_some)
    pairs = zip(proved, found, strict=True)
    assert np.mean([np.isin(a.positions[:10], b.positions) for a, b in pairs]) > 0.9


def test_without_the_error_of_the_codes_a_search_would_miss_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A code of two steps a number: far from the vectors, and the bound knows it.
    monkeypatch.setattr(f"{MODULE}._FEWEST", 1)
    monkeypatch.setattr(f"{MODULE}._MORE", 0)
    queries = clustered(40, 96, seed=1)

    def coarse(one: Any, coordinates: NDArray[np.float64]) -> NDArray[np.uint8]:
        steps = (coordinates - one.lows) / one.steps
        codes: NDArray[np.uint8] = np.clip(steps // 128 * 128 + 64, 0, 255).astype(np.uint8)
        return codes

    monkeypatch.setattr("alexnet_deploy.index.compression.Compression.codes", coarse)
    make_index(tmp_path / "index", 96, segment_rows=1000)
    with run_on(tmp_path / "index") as index:
        add(index, clustered(800, 96))
        compress(index)
        assert_same(index, ranker_of(index, []), queries)
        monkeypatch.setattr(
            "alexnet_deploy.index.compressed_scan.CompressedScan.bounds",
            lambda _, squares: np.sqrt(squares.astype(float)),
        )
        with pytest.raises(AssertionError):
            assert_same(index, ranker_of(index, []), queries)
