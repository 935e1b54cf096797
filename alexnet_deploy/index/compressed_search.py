"""The nearest vectors of an index, exactly, without reading most of them.

FAISS ranks the compressed vectors. The first of them are measured, which tells how near the
nearest are at most; every other whose lower bound is beyond that need not be read. So the answer is
that of `exact_search`, ties included. With an effort R, only the first R are measured: the answer
is then what they hold, and how often that is the true one was measured when the index was made.

Q queries, N compressed vectors of d + 1 numbers, K found.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.choices import Metric
from alexnet_deploy.errors import IncompatibleFileError
from alexnet_deploy.index.compressed_files import Compressed, read_compressed, record_stamp
from alexnet_deploy.index.exact_search import (
    ExactRanker,
    are_live,
    live_positions,
    measured,
    nearest,
    one_thread_of_faiss,
    values_of,
)
from alexnet_deploy.index.faiss_library import faiss
from alexnet_deploy.index.ranking import Ranking
from alexnet_deploy.index.storage import Storage

_SHARD_ROWS = 2**17
_FEWEST = 1024
"""Points to rank first: for one query, FAISS keeps that many in the time of the scan alone."""
_MORE = 16
_GROWTH = 8
_LARGEST_SHARE = 0.25
"""Of the vectors: when more may be among the nearest, reading all in their order is faster."""
_UNIT_ROUNDOFF = 2.0**-24
_ROUNDING = 2e-5
"""Of a point and its distance, each below 4, in float32."""


class CompressedScan:
    """Ranks compressed vectors by FAISS, in shards that threads share.

    Attributes:
        compressed: the vectors.
        num_rows: of them.
    """

    def __init__(self, compressed: Compressed) -> None:
        self.compressed = compressed
        self.num_rows = len(compressed.positions)
        self._shards = []
        for start in range(0, self.num_rows, _SHARD_ROWS):
            codes = np.ascontiguousarray(compressed.codes[start : start + _SHARD_ROWS])
            self._shards.append((start, _faiss_index(compressed, codes)))

    def nearest(
        self, points: NDArray[np.float32], k: int, threads: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return squared distances, ascending, and row numbers of the nearest, (Q, K) each.

        Args:
            points: (Q, d + 1).
            k: how many; where there are fewer rows, the numbers of the rest are -1.
            threads: that scan.
        """
        with (
            ThreadPoolExecutor(
                threads, initializer=faiss.omp_set_num_threads, initargs=(1,)
            ) as executor,
            one_thread_of_faiss(),
        ):
            heap = faiss.ResultHeap(len(points), k)
            parts = executor.map(
                lambda shard: (shard[0], *shard[1].search(points, k)), self._shards
            )
            for start, squares, numbers in parts:
                heap.add_result(squares, np.where(numbers < 0, numbers, numbers + start))
            heap.finalize()
        return heap.D, heap.I

    def bounds(self, squares: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return lower bounds of the distances of vectors from squared ones of their points."""
        compression = self.compressed.compression
        # Higham 2002, section 3.1: of the sum; doubled for the roundings before it.
        error = 2 * (self.compressed.codes.shape[1] + 4) * _UNIT_ROUNDOFF
        distances: NDArray[np.float64] = np.sqrt(squares.astype(np.float64) * (1 - error))
        return np.maximum(0, distances - compression.error - _ROUNDING)


class CompressedRanker:
    """Ranks as `ExactRanker` does, through the compressed vectors where an index has them.

    Args:
        storage: of the index.
        exact: for what has to be compared anyway.
        notify: called with a line when the compressed vectors cannot be used.
    """

    def __init__(self, storage: Storage, exact: ExactRanker, notify: Callable[[str], None]) -> None:
        self._storage = storage
        self._exact = exact
        self._notify = notify
        self._stamp: object = None
        self._scan: CompressedScan | None = None
        self._version: int | None = None
        self._others: NDArray[np.int64] = np.empty(0, np.int64)

    def rank(
        self,
        queries: NDArray[np.float16],
        k: int,
        *,
        metric: Metric,
        threads: int,
        effort: int | None = None,
    ) -> list[Ranking]:
        """Rank the vectors for each query; see `Ranker.rank`."""
        self._refresh()
        if self._scan is None:
            return self._exact.rank(queries, k, metric=metric, threads=threads)
        search = Search(self._storage, self._scan, self._others, k, metric, threads)
        if effort is not None and 2 * k <= effort:
            return search.first(queries, effort)
        found = search.proved(queries)
        left = [number for number in range(len(queries)) if number not in found]
        if left:
            rest = self._exact.rank(queries[left], k, metric=metric, threads=threads)
            found |= dict(zip(left, rest, strict=True))
        return [found[number] for number in range(len(queries))]

    def _refresh(self) -> None:
        """Read what has changed since the last search."""
        stamp = record_stamp(self._storage.directory)
        if stamp != self._stamp:
            self._scan = self._version = None
            self._stamp = stamp
            try:
                compressed = read_compressed(self._storage)
            except IncompatibleFileError as error:
                self._notify(f"{error}; until then every vector is compared")
            else:
                self._scan = None if compressed is None else CompressedScan(compressed)
        (version,) = self._storage.ledger.one("PRAGMA data_version")  # grows with others' commits
        if self._scan is not None and version != self._version:
            compressed = self._scan.compressed
            unbounded = compressed.positions[compressed.lengths == 0]
            unbounded = unbounded[are_live(self._storage, unbounded)]
            later = live_positions(self._storage, compressed.record.next_position)
            self._others = np.concatenate([unbounded, later])
            self._version = version


@dataclass(frozen=True, slots=True, eq=False)
class Search:
    """One call of `CompressedRanker.rank`.

    Attributes:
        storage: of the index.
        scan: of its compressed vectors.
        others: positions, ascending, that are compared in any case.
        k: as of `Ranker.rank`, and so are metric and threads.
        metric: see k.
        threads: see k.
    """

    storage: Storage
    scan: CompressedScan
    others: NDArray[np.int64]
    k: int
    metric: Metric
    threads: int

    def first(self, queries: NDArray[np.float16], effort: int) -> list[Ranking]:
        """Rank for each query what has the `effort` nearest points, and what has none."""
        points = self.scan.compressed.compression.points(queries)
        _, rows = self.scan.nearest(points.coordinates.astype(np.float32), effort, self.threads)
        rankings = []
        for query, some in zip(queries, rows, strict=True):
            positions = self.scan.compressed.positions[some[some >= 0]]
            live = are_live(self.storage, positions)
            rankings.append(self._ranked(query, positions[live]))
        return rankings

    def proved(self, queries: NDArray[np.float16]) -> dict[int, Ranking]:
        """Rank for each query all that can be among its nearest.

        Returns:
            The rankings, by the number of the query, without those for which so many can be that
            all have to be compared.
        """
        points = self.scan.compressed.compression.points(queries)
        coordinates = points.coordinates.astype(np.float32)
        rankings: dict[int, Ranking] = {}
        waiting = np.flatnonzero(points.lengths > 0).tolist()
        num_rows, num_fetched = self.scan.num_rows, max(_FEWEST, 8 * self.k)
        while waiting and num_fetched <= max(_FEWEST, _LARGEST_SHARE * num_rows):
            squares, rows = self.scan.nearest(coordinates[waiting], num_fetched, self.threads)
            for number, some_squares, some_rows in zip(waiting, squares, rows, strict=True):
                length = float(points.lengths[number])
                candidates = self._candidates(queries[number], length, some_squares, some_rows)
                if candidates is not None:
                    rankings[number] = self._ranked(queries[number], candidates)
            waiting = [number for number in waiting if number not in rankings]
            num_fetched *= _GROWTH
        return rankings

    def _candidates(
        self,
        query: NDArray[np.float16],
        length: float,
        squares: NDArray[np.float32],
        rows: NDArray[np.int64],
    ) -> NDArray[np.int64] | None:
        """Return the positions of all vectors that can be among the nearest, but `others`.

        Args:
            query: (D,).
            length: its own.
            squares: (K,) of the distances of the nearest points.
            rows: (K,) their numbers, -1 where there are no more.

        Returns:
            None where more points have to be looked at.
        """
        is_all = rows[-1] < 0 or len(rows) == self.scan.num_rows
        squares, rows = squares[rows >= 0], rows[rows >= 0]
        positions = self.scan.compressed.positions[rows]
        live = np.flatnonzero(are_live(self.storage, positions))
        if len(live) < self.k:
            return positions[live] if is_all else None
        nearest_points = measured(
            self.storage, positions[live[: self.k + _MORE]], query, self.metric
        )
        kth = values_of(nearest_points, self.metric)[self.k - 1]
        bounds, bound_of_others = self._bounds(length, self.scan.bounds(squares), rows)
        if not (is_all or bound_of_others > kth):
            return None
        candidates: NDArray[np.int64] = positions[live[bounds[live] <= kth]]
        return candidates

    def _bounds(
        self, length: float, bounds: NDArray[np.float64], rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], float]:
        """Return lower bounds of what vectors are ranked by: of `rows`, and of all others.

        Args:
            length: of the query, m.
            bounds: (K,) of the distances of the vectors scaled to length 1, ascending.
            rows: (K,) their numbers.
        """
        if self.metric == "cosine":  # of two vectors of length 1, |u - v|^2 is 2 - 2 cos
            values = bounds**2 / 2 - 1
            return values - 1e-12, float(values[-1])
        # |mu - nv|^2 is (m - n)^2 + mn |u - v|^2, and at least (m sin)^2 for every n.
        lengths = self.scan.compressed.lengths[rows].astype(np.float64)
        values = np.sqrt((length - lengths) ** 2 + length * lengths * bounds**2)
        cosine = max(0.0, 1 - bounds[-1] ** 2 / 2)
        return values - 1e-6 * (length + lengths), length * float(np.sqrt(1 - cosine**2)) * (
            1 - 1e-9
        )

    def _ranked(self, query: NDArray[np.float16], candidates: NDArray[np.int64]) -> Ranking:
        positions = np.union1d(candidates, self.others)
        (ranking,) = nearest(
            self.storage,
            positions,
            query[None],
            self.k,
            metric=self.metric,
            threads=self.threads,
        )
        return ranking


def _faiss_index(compressed: Compressed, codes: NDArray[np.uint8]) -> Any:
    """Return a FAISS index of codes, made in memory."""
    compression = compressed.compression
    index = faiss.IndexScalarQuantizer(
        codes.shape[1], faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_L2
    )
    trained = np.concatenate([compression.lows, 255 * compression.steps])  # see its decoder
    faiss.copy_array_to_vector(trained.astype(np.float32), index.sq.trained)
    index.is_trained = True
    index.add_sa_codes(codes)
    return index
