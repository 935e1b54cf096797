"""The nearest vectors against a search of all of them in plain Python."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from alexnet_deploy.choices import Metric
from alexnet_deploy.index.ledger import Ledger
from alexnet_deploy.index.segments import SegmentUnreadableError
from tests.support.indexed_vectors import as_tuples, index_of, nearest, vectors_after_relu

MODULE = "alexnet_deploy.index.exact_search"
METRICS: tuple[Metric, ...] = ("cosine", "l2")
_TWO_NUMBERS = (
    (0.0174560546875, -0.1600341796875),
    (0.03485107421875, -0.306640625),
    (0.041717529296875, -0.382568359375),
    (0.046051025390625, -0.4052734375),
    (0.06524658203125, -0.59814453125),
    (0.079345703125, -0.7275390625),
    (0.07745361328125, -0.681640625),
    (0.07464599609375, -0.65673828125),
    (0.0849609375, -0.74755859375),
    (0.1490478515625, -1.3115234375),
    (0.143798828125, -1.318359375),
    (0.1431884765625, -1.3134765625),
    (0.1387939453125, -1.2724609375),
    (0.10638427734375, -0.93603515625),
    (0.0906982421875, -0.7978515625),
    (0.0899658203125, -0.82470703125),
    (0.09228515625, -0.8125),
    (0.2257080078125, -2.068359375),
)


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    directory = tmp_path_factory.mktemp("ledger")
    Ledger.create(directory)
    with Ledger.open(directory) as ledger:
        yield ledger


def brute_force(
    vectors: NDArray[np.float16],
    positions: Sequence[int],
    query: NDArray[np.float16],
    k: int,
    metric: Metric,
) -> list[tuple[int, float, float]]:
    """Return (position, cosine, distance) of the nearest, one by one with exact sums.

    The numbers are integers below 9: sums, squares and products of them have no rounding error,
    and the one division and the two roots are rounded in the one way that IEEE 754 allows.
    """
    wide, found = query.tolist(), []
    for position in positions:
        row = vectors[position].tolist()
        square = math.fsum(x * x for x in row) * math.fsum(y * y for y in wide)
        product = math.fsum(x * y for x, y in zip(row, wide, strict=True))
        cosine = product / math.sqrt(square) if square else 0.0
        distance = math.sqrt(math.fsum((x - y) ** 2 for x, y in zip(row, wide, strict=True)))
        value = -min(1.0, max(-1.0, cosine)) if metric == "cosine" else distance
        found.append((value, position, min(1.0, max(-1.0, cosine)), distance))
    found.sort()
    last = found[min(k, len(found)) - 1][0]
    return [entry[1:] for entry in found if entry[0] <= last]


@st.composite
def searches(draw: st.DrawFn) -> dict[str, Any]:
    """Draw vectors with many ties: few numbers, copies, multiples, zeros; holes; queries."""
    dimension = draw(st.integers(1, 5))
    row = st.lists(st.integers(-2, 2), min_size=dimension, max_size=dimension)
    kinds = draw(st.lists(row, min_size=1, max_size=12))
    of_kinds = st.tuples(st.integers(0, len(kinds) - 1), st.sampled_from((1, 1, 2, 3, -1)))
    chosen = draw(st.lists(of_kinds, min_size=1, max_size=60))
    num_queries = draw(st.sampled_from((1, 2, 16, 17, 40)))
    asked = draw(st.lists(of_kinds, min_size=num_queries, max_size=num_queries))
    live = draw(st.lists(st.booleans(), min_size=len(chosen), max_size=len(chosen)))
    live[draw(st.integers(0, len(chosen) - 1))] = True
    return {
        "vectors": np.array([np.multiply(kinds[i], by) for i, by in chosen], np.float16),
        "queries": np.array([np.multiply(kinds[i], by) for i, by in asked], np.float16),
        "positions": np.flatnonzero(live).astype(np.int64),
        "segment_rows": draw(st.integers(3, 7)),
        "k": draw(st.integers(1, len(chosen) + 3)),
        "metric": draw(st.sampled_from(METRICS)),
        "threads": draw(st.integers(1, 3)),
    }


@settings(max_examples=100)
@given(search=searches(), more=st.sampled_from((0, 16)))
def test_the_nearest_are_those_of_a_search_in_plain_python(
    ledger: Ledger, search: dict[str, Any], more: int
) -> None:
    vectors, positions, queries = search["vectors"], search["positions"], search["queries"]
    k, metric = search["k"], search["metric"]
    with (
        pytest.MonkeyPatch.context() as patch,
        index_of(vectors, search["segment_rows"], ledger) as index,
    ):
        patch.setattr(f"{MODULE}._MORE", more)
        found = nearest(index, positions, queries, k, metric=metric, threads=search["threads"])
    assert len(found) == len(queries)
    for ranking, query in zip(found, queries, strict=True):
        expected = brute_force(vectors, positions.tolist(), query, k, metric)
        assert as_tuples(ranking) == expected


@pytest.fixture(scope="module")
def random_vectors() -> NDArray[np.float16]:
    return vectors_after_relu()


@pytest.mark.parametrize("metric", METRICS)
def test_no_answer_depends_on_k_or_the_other_queries_or_the_threads(
    ledger: Ledger, random_vectors: NDArray[np.float16], metric: Metric
) -> None:
    positions = np.flatnonzero(np.arange(400) % 7).astype(np.int64)
    queries = random_vectors[:40]
    with index_of(random_vectors, 90, ledger) as index:
        whole = nearest(index, positions, queries, 1000, metric=metric, threads=1)
        assert all(len(ranking.positions) == len(positions) for ranking in whole)
        for k, threads in ((1, 2), (5, 1), (16, 3), (100, 2), (len(positions), 3)):
            some = nearest(index, positions, queries, k, metric=metric, threads=threads)
            for ranking, all_of_it in zip(some, whole, strict=True):
                values = -all_of_it.cosine_similarity if metric == "cosine" else None
                values = all_of_it.l2_distance if values is None else values
                count = int((values <= values[k - 1]).sum())
                assert as_tuples(ranking) == as_tuples(all_of_it)[:count]
        for number in (0, 7, 13):
            query = queries[number : number + 1]
            (alone,) = nearest(index, positions, query, 5, metric=metric, threads=2)
            together = as_tuples(whole[number])
            assert as_tuples(alone) == together[: len(alone.positions)]


@pytest.mark.parametrize("metric", METRICS)
def test_values_are_those_of_exact_sums(
    ledger: Ledger, random_vectors: NDArray[np.float16], metric: Metric
) -> None:
    query = random_vectors[3]
    with index_of(random_vectors, 90, ledger) as index:
        (found,) = nearest(index, np.arange(400), query[None], 400, metric=metric, threads=2)
    for position, cosine, distance in as_tuples(found):
        ((_, exact_cosine, exact_distance),) = brute_force(
            random_vectors, [position], query, 1, metric
        )
        # 64 additions in float64, each with an error of 2**-53 of the sum.
        assert cosine == pytest.approx(exact_cosine, rel=64 * 2.0**-52, abs=0)
        assert distance == pytest.approx(exact_distance, rel=64 * 2.0**-52, abs=0)


@pytest.mark.parametrize("metric", METRICS)
def test_a_copy_is_at_distance_0_and_cosine_1_exactly(
    ledger: Ledger, random_vectors: NDArray[np.float16], metric: Metric
) -> None:
    different = [number for number in range(60) if random_vectors[number].any()]
    queries = random_vectors[different]
    with index_of(random_vectors, 90, ledger) as index:
        found = nearest(index, np.arange(400), queries, 1, metric=metric, threads=2)
    for number, ranking in zip(different, found, strict=True):
        assert number in ranking.positions
        assert set(ranking.cosine_similarity.tolist()) == {1.0}
        assert set(ranking.l2_distance.tolist()) == {0.0}


def test_zero_vectors_have_cosine_0_with_everything(ledger: Ledger) -> None:
    vectors = np.array([[-1, 0], [0, 0], [1, 0], [0, 0]], np.float16)
    with index_of(vectors, 3, ledger) as index:
        found = nearest(index, np.arange(4), vectors[1:3], 9, metric="cosine", threads=1)
    assert [ranking.positions.tolist() for ranking in found] == [[0, 1, 2, 3], [2, 1, 3, 0]]
    assert [ranking.cosine_similarity.tolist() for ranking in found] == [[0] * 4, [1, 0, 0, -1]]
    assert found[0].l2_distance.tolist() == [1, 0, 1, 0]


def test_numbers_at_both_ends_of_float16_do_no_harm(ledger: Ledger) -> None:
    vectors = np.array([[65504] * 4, [-65504] * 4, [6e-8] * 4, [0] * 4], np.float16)
    for metric in METRICS:
        with index_of(vectors, 3, ledger) as index:
            found = nearest(index, np.arange(4), vectors, 4, metric=metric, threads=1)
        for number, ranking in enumerate(found):
            assert np.isfinite(ranking.l2_distance).all()
            assert ranking.l2_distance[ranking.positions == number] == 0
    assert found[0].l2_distance[-1] == 4 * 65504


class Scans:
    """Counts the passes over the vectors."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        from alexnet_deploy.index.exact_scan import Scan

        self.num_fetched: list[int] = []
        real = Scan.run

        def run(scan: Any, queries: NDArray[np.float32]) -> Any:
            self.num_fetched.append(scan._num_fetched)
            return real(scan, queries)

        patch.setattr(Scan, "run", run)


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> Scans:
    return Scans(monkeypatch)


def near_ties() -> NDArray[np.float16]:
    """Return 21 vectors in an order of nearness to the ones that float32 cannot see.

    The first number of vector i is 1 + j / 1024 with j = 21 - i, the others are 1. Its cosine
    with the ones is 1 - j**2 * 1.2e-10, the last the nearest; half the spacing of float32 below
    1 is 3e-8.
    """
    vectors = np.ones((21, 4096), np.float16)
    vectors[:, 0] += np.arange(21, 0, -1) / 1024
    return vectors


def test_what_float32_cannot_tell_apart_is_ranked_by_float64(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, scans: Scans
) -> None:
    vectors, query = near_ties(), np.ones((1, 4096), np.float16)
    monkeypatch.setattr(f"{MODULE}._MORE", 0)
    with index_of(vectors, 5, ledger) as index:
        for k in (1, 2, 5):
            scans.num_fetched.clear()
            (found,) = nearest(index, np.arange(21), query, k, metric="cosine", threads=2)
            assert found.positions.tolist() == list(range(20, 20 - k, -1))
            assert len(scans.num_fetched) > 1
            assert scans.num_fetched[0] == k
    assert 0.5e-9 < found.cosine_similarity[2] - found.cosine_similarity[3] < 2e-9


def test_without_the_bound_on_the_error_the_same_search_would_be_wrong(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, scans: Scans
) -> None:
    vectors, query = near_ties(), np.ones((1, 4096), np.float16)
    monkeypatch.setattr(f"{MODULE}._MORE", 0)
    monkeypatch.setattr(
        "alexnet_deploy.index.exact_scan._UNIT_ROUNDOFF", -1
    )  # every answer counts as proved
    with index_of(vectors, 5, ledger) as index:
        (found,) = nearest(index, np.arange(21), query, 5, metric="cosine", threads=1)
    assert scans.num_fetched == [5]
    assert found.positions.tolist() != [20, 19, 18, 17, 16]


def test_the_bound_holds_for_the_shortest_vectors(ledger: Ledger) -> None:
    """Seventeen vectors near the query and the nearest, which float32 puts behind all of them."""
    vectors = np.array(_TWO_NUMBERS, np.float16)
    query = np.array([[0.1693115234375, -1.5205078125]], np.float16)
    with index_of(vectors, 20, ledger) as index:
        (whole,) = nearest(index, np.arange(18), query, 18, metric="cosine", threads=1)
        (first,) = nearest(index, np.arange(18), query, 1, metric="cosine", threads=1)
    assert whole.positions[0] == 17
    assert first.positions.tolist() == [17]


def test_far_vectors_need_one_scan(
    ledger: Ledger, random_vectors: NDArray[np.float16], scans: Scans
) -> None:
    with index_of(random_vectors, 90, ledger) as index:
        for metric in METRICS:
            nearest(index, np.arange(400), random_vectors[1:2], 3, metric=metric, threads=2)
    assert scans.num_fetched == [3 + 16, 3 + 16]


@pytest.mark.parametrize("damage", ["missing", "cut short"])
def test_a_segment_that_is_not_there_is_named(
    ledger: Ledger, random_vectors: NDArray[np.float16], damage: str
) -> None:
    with index_of(random_vectors, 90, ledger) as index:
        path = index.segments.path(2)
        if damage == "missing":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(SegmentUnreadableError, match=r"00002\.f16"):
            nearest(index, np.arange(400), random_vectors[:1], 3, metric="l2", threads=2)
        # What no photograph has any more is not read.
        positions = np.flatnonzero(np.arange(400) // 90 != 2).astype(np.int64)
        nearest(index, positions, random_vectors[:1], 3, metric="l2", threads=2)


def test_live_positions_are_those_that_photographs_have(tmp_path: Path) -> None:
    from alexnet_deploy.index.exact_search import live_positions

    Ledger.create(tmp_path)
    with Ledger.open(tmp_path) as ledger, index_of(np.zeros((9, 1), np.float16), 3, ledger) as one:
        assert live_positions(one).tolist() == []
        ledger.execute("INSERT INTO roots VALUES (1, x'2f', 0)")
        for position in (8, 3, 5):
            ledger.execute(
                "INSERT INTO vectors VALUES (?, ?, x'00')", (position, bytes([position]))
            )
        insert = (
            "INSERT INTO photographs (root, path, position, status, reason) VALUES (1, ?, ?, ?, ?)"
        )
        for name, position in ((b"a", 8), (b"b", 3), (b"c", 8)):
            ledger.execute(insert, (name, position, "indexed", None))
        ledger.execute(insert, (b"d", None, "failed", "empty"))
        assert live_positions(one).tolist() == [3, 8]
        assert live_positions(one).dtype == np.int64
