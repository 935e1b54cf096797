"""The nearest vectors of an index, exactly: FAISS over its segments as they lie on disk.

Q queries, N vectors, D numbers in each. Vectors are stored as float16 and mapped into memory;
blocks of them become float32 for FAISS. What FAISS finds, and a few more, is measured again in
float64 and ranked; that the rest cannot belong to the nearest is proved by a bound on the
rounding error, or more is fetched. So the ranking is a function of the vectors alone: it depends
neither on k, nor on the other queries, nor on the number of threads, nor on what scans.

A build of FAISS for GPUs scans there, by cosine similarity, when many queries come at once. L2
distances it expands into products, whose rounding error says too little of a small distance.
"""

import dataclasses
import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.choices import Metric
from alexnet_deploy.index.exact_scan import Scan
from alexnet_deploy.index.faiss_library import faiss, threads_of_faiss
from alexnet_deploy.index.ledger import INTEGER, NUM_PARAMETERS
from alexnet_deploy.index.ranking import Ranking
from alexnet_deploy.index.storage import Storage

_MORE = 16
_FEWEST_FOR_GPU = 16
"""Queries: for fewer, the vectors are read no faster than they could be carried to a GPU."""
_MOST_ON_GPU = 2048
"""Neighbours: asked for more there, FAISS ends the process (its GPU_MAX_SELECTION_K)."""


class ExactRanker:
    """Compares every vector; see the module.

    Args:
        storage: of the index.
        gpu: of `gpu_resources`, to scan there where it pays and FAISS can; None for the CPU.
    """

    def __init__(self, storage: Storage, gpu: Any = None) -> None:
        self._storage = storage
        self._gpu = gpu
        self._positions: NDArray[np.int64] = np.empty(0, np.int64)
        self._version: int | None = None  # of the ledger that `_positions` are of

    def rank(
        self,
        queries: NDArray[np.float16],
        k: int,
        *,
        metric: Metric,
        threads: int,
        among: NDArray[np.int64] | None = None,
        effort: int | None = None,
    ) -> list[Ranking]:
        """Rank the vectors for each query, whatever the effort; see `Ranker.rank`, `nearest`."""
        return nearest(
            self._storage,
            self._live() if among is None else among,
            queries,
            k,
            metric=metric,
            threads=threads,
            gpu=self._gpu,
        )

    def _live(self) -> NDArray[np.int64]:
        """Return the positions of the vectors that photographs have now."""
        (version,) = self._storage.ledger.one("PRAGMA data_version")  # grows with others' commits
        if version != self._version:
            self._positions = live_positions(self._storage)
            self._version = version
        return self._positions


def live_positions(storage: Storage, start: int = -(2**63)) -> NDArray[np.int64]:
    """Return the positions of the vectors that photographs have, ascending, from `start` on."""
    rows = storage.ledger.rows(
        "SELECT DISTINCT position FROM photographs WHERE position >= ? ORDER BY position",
        (start,),
        kinds=(INTEGER,),
    )
    return np.fromiter(itertools.chain.from_iterable(rows), np.int64)


def are_live(storage: Storage, positions: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which of some vectors photographs have, (N,)."""
    found: list[int] = []
    for start in range(0, len(positions), NUM_PARAMETERS):
        some = positions[start : start + NUM_PARAMETERS].tolist()
        marks = ", ".join("?" * len(some))
        sql = f"SELECT DISTINCT position FROM photographs WHERE position IN ({marks})"
        found += (position for (position,) in storage.ledger.rows(sql, some, kinds=(INTEGER,)))
    return np.isin(positions, found)


def nearest(
    storage: Storage,
    positions: NDArray[np.int64],
    queries: NDArray[np.float16],
    k: int,
    *,
    metric: Metric,
    threads: int,
    gpu: Any = None,
) -> list[Ranking]:
    """Rank the vectors at `positions` for each query.

    Args:
        storage: of the index, in a snapshot of its ledger.
        positions: (N,) int64, ascending.
        queries: as for `Ranker.rank`, and so are k and metric.
        k: see queries.
        metric: see queries.
        threads: that scan.
        gpu: as of `ExactRanker`.

    Raises:
        SegmentUnreadableError: a segment is not there.
        DeviceError: the GPU computes less exactly than float32.
    """
    if not len(positions):
        nothing = np.empty(0)
        none = Ranking(
            positions=positions, cosine_similarity=nothing, l2_distance=nothing, num_compared=0
        )
        return [none] * len(queries)
    if metric != "cosine" or len(queries) < _FEWEST_FOR_GPU:
        gpu = None
    rankings: dict[int, Ranking] = {}
    waiting, num_fetched = list(range(len(queries))), k + _MORE
    while waiting:
        num_fetched = min(num_fetched, len(positions))
        scan = Scan(
            storage,
            positions,
            metric,
            num_fetched,
            threads,
            gpu if num_fetched <= _MOST_ON_GPU else None,
        )
        found, bounds = scan.run(queries[waiting].astype(np.float32))
        unproved = []
        for number, candidates, bound in zip(waiting, found, bounds, strict=True):
            ranking = measured(storage, candidates, queries[number], metric)
            values = values_of(ranking, metric)
            if num_fetched < len(positions) and not values[k - 1] < bound:
                unproved.append(number)
                continue
            # Whatever ties with the last belongs to the answer.
            last = np.searchsorted(values, values[min(k, len(values)) - 1], "right")
            chosen = _chosen(ranking, slice(int(last)))
            rankings[number] = dataclasses.replace(chosen, num_compared=len(positions))
        waiting, num_fetched = unproved, 4 * num_fetched
    return [rankings[number] for number in range(len(queries))]


def within_hamming(
    codes: NDArray[np.uint8], queries: NDArray[np.uint8], most: int, *, threads: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return which queries and codes differ in `most` bits or fewer, as two arrays of row numbers.

    Args:
        codes: (N, B) uint8, of 8 bits each.
        queries: (Q, B) uint8.
        most: bits.
        threads: that scan.
    """
    index = faiss.IndexBinaryFlat(8 * codes.shape[1])
    index.add(np.ascontiguousarray(codes))
    with threads_of_faiss(threads):
        limits, _, found = index.range_search(np.ascontiguousarray(queries), most + 1)
    counts = limits[1:].astype(np.int64) - limits[:-1].astype(np.int64)
    return np.repeat(np.arange(len(queries)), counts), found


def measured(
    storage: Storage, candidates: NDArray[np.int64], query: NDArray[np.float16], metric: Metric
) -> Ranking:
    """Measure `candidates` in float64 and sort them."""
    cosines, distances = [], []
    wide = query.astype(np.float64)
    for start in range(0, len(candidates), 1024):
        rows = storage.segments.take(candidates[start : start + 1024]).astype(np.float64)
        # Sums along the last axis, not matrix products, whose rounding depends on the
        # neighbouring rows: equal vectors must tie.
        squares = (rows * rows).sum(axis=1) * (wide * wide).sum()
        products = (rows * wide).sum(axis=1)
        cosines.append(np.divide(products, np.sqrt(squares), where=squares > 0, out=0 * products))
        distances.append(np.sqrt(((rows - wide) ** 2).sum(axis=1)))
    ranking = Ranking(
        positions=candidates,
        cosine_similarity=np.clip(np.concatenate(cosines), -1, 1),
        l2_distance=np.concatenate(distances),
        num_compared=len(candidates),
    )
    return _chosen(ranking, np.lexsort((candidates, values_of(ranking, metric))))


def values_of(ranking: Ranking, metric: Metric) -> NDArray[np.float64]:
    """Return what is ranked by, lower is nearer."""
    return ranking.l2_distance if metric == "l2" else -ranking.cosine_similarity


def _chosen(ranking: Ranking, which: NDArray[np.int64] | slice) -> Ranking:
    return dataclasses.replace(
        ranking,
        positions=ranking.positions[which],
        cosine_similarity=ranking.cosine_similarity[which],
        l2_distance=ranking.l2_distance[which],
    )
