"""The nearest vectors of an index, exactly, without reading most of them.

FAISS ranks the compressed vectors. The first of them are measured, which tells how near the
nearest are at most; every other whose lower bound is beyond that need not be read. So the answer is
that of `exact_search`, ties included. With an effort R, only the first R are measured: the answer
is then what they hold, and how often that is the true one was measured when the index was made.

Q queries, N compressed vectors of d + 1 numbers, K found.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.choices import Metric
from alexnet_deploy.errors import IncompatibleFileError
from alexnet_deploy.index.compressed_files import read_compressed
from alexnet_deploy.index.compressed_record import compressed_record, record_stamp
from alexnet_deploy.index.compressed_scan import CompressedScan
from alexnet_deploy.index.compression import has_direction
from alexnet_deploy.index.exact_search import (
    are_live,
    live_positions,
    measured,
    nearest,
    values_of,
)
from alexnet_deploy.index.ranking import Ranker, Ranking
from alexnet_deploy.index.storage import Storage

_FEWEST = 1024
"""Points to rank first: for one query, FAISS keeps that many in the time of the scan alone."""
_FEW = 2048
"""Of filtered vectors: comparing all of them takes no longer."""
_MORE = 16
_PART = 256
"""Of the vectors, one in so many is ranked at first: in a million, about as many can be near."""
_GROWTH = 4
_LARGEST_SHARE = 0.25
"""Of the vectors: when more may be among the nearest, reading all in their order is faster."""


class CompressedRanker:
    """Ranks through the compressed vectors, where an index has them and few have to be read.

    Args:
        storage: of the index.
        exact: for all else; it compares every vector.
        notify: called with a line when the compressed vectors cannot be used.
    """

    def __init__(self, storage: Storage, exact: Ranker, notify: Callable[[str], None]) -> None:
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
        among: NDArray[np.int64] | None = None,
        effort: int | None = None,
    ) -> list[Ranking]:
        """Rank the vectors for each query; see `Ranker.rank`."""
        self._refresh()
        rankings: dict[int, Ranking] = {}
        if self._scan is not None and (among is None or len(among) > _FEW):
            search = Search(self._storage, self._scan, self._others, k, metric, threads, among)
            rankings = search.proved(queries) if effort is None else search.first(queries, effort)
        left = [number for number in range(len(queries)) if number not in rankings]
        if left:
            rest = self._exact.rank(queries[left], k, metric=metric, threads=threads, among=among)
            rankings |= dict(zip(left, rest, strict=True))
        return [rankings[number] for number in range(len(queries))]

    def account(self, counts: Sequence[int], effort: int | None) -> str | None:
        """Tell a person how many vectors were compared, of rankings; None if all, as without it."""
        if not counts:
            return None
        if self._scan is None:
            ignored = "no vectors are compressed: all were compared, whatever the effort"
            return None if effort is None else ignored
        mean = sum(counts) / len(counts)
        line = f"{mean:,.0f} of {self._scan.num_rows:,} vectors were compared for a query"
        if effort is None:
            return f"{line}: no other is nearer"
        recall = self._scan.compressed.record.recall_of(effort)
        return f"{line}: recall was " + (
            "not measured" if recall is None else f"measured {recall:.3f}"
        )

    def _refresh(self) -> None:
        """Read what has changed since the last search."""
        stamp = record_stamp(self._storage.directory)
        (version,) = self._storage.ledger.one("PRAGMA data_version")  # grows with others' commits
        try:
            if stamp != self._stamp:
                self._scan = self._version = None
                self._stamp = stamp
                compressed = read_compressed(self._storage)
                self._scan = None if compressed is None else CompressedScan(compressed)
            elif self._scan is not None and version != self._version:
                compressed_record(self._storage)  # which may be of none of this ledger's runs
        except IncompatibleFileError as error:
            self._scan = None
            self._notify(f"{error}; until then every vector is compared")
        if self._scan is not None and version != self._version:
            compressed = self._scan.compressed
            unbounded = compressed.positions[compressed.lengths == 0]
            unbounded = unbounded[are_live(self._storage, unbounded)]
            later = live_positions(self._storage, compressed.record.next_position)
            self._others = np.concatenate([unbounded, later])
            self._version = version


class Search:
    """One call of `Ranker.rank`, whose arguments are all that are not below.

    Args:
        storage: of the index.
        scan: of its compressed vectors.
        others: positions, ascending, that are compared in any case.
    """

    def __init__(
        self,
        storage: Storage,
        scan: CompressedScan,
        others: NDArray[np.int64],
        k: int,
        metric: Metric,
        threads: int,
        among: NDArray[np.int64] | None = None,
    ) -> None:
        self._storage = storage
        self._scan = scan
        self._others = others
        self._k = k
        self._metric: Metric = metric
        self._threads = threads
        self._allowed: NDArray[np.bool_] | None = None
        self._num_rows = scan.num_rows
        if among is not None:
            self._others = np.intersect1d(others, among)
            self._allowed = np.isin(scan.compressed.positions, among)
            self._num_rows = int(self._allowed.sum())

    def first(self, queries: NDArray[np.float16], effort: int) -> dict[int, Ranking]:
        """Rank for each query the first `effort`, and what has no point.

        Returns:
            As `proved`.
        """
        rankings: dict[int, Ranking] = {}
        waiting = np.flatnonzero(has_direction(queries)).tolist()
        num_fetched = effort
        while waiting and num_fetched <= self._most_fetched():
            found = self._scan.first(queries[waiting], num_fetched, self._threads, self._allowed)
            for number, rows in zip(waiting, found, strict=True):
                positions = self._scan.compressed.positions[rows]
                live = positions[self._are_live(positions)][:effort]
                if len(live) == effort or len(rows) < num_fetched:
                    rankings[number] = self._ranked(queries[number], live)
            waiting = [number for number in waiting if number not in rankings]
            num_fetched *= _GROWTH
        return rankings

    def proved(self, queries: NDArray[np.float16]) -> dict[int, Ranking]:
        """Rank for each query all that can be among its nearest.

        Returns:
            The rankings, by the number of the query, without those that have no direction, or for
            which so many can be that all have to be compared.
        """
        points = self._scan.compressed.compression.points(queries)
        rankings: dict[int, Ranking] = {}
        waiting = np.flatnonzero(points.lengths > 0).tolist()
        num_fetched = max(_FEWEST, 8 * self._k, self._num_rows // _PART)
        while waiting and num_fetched <= self._most_fetched():
            some = points.coordinates[waiting].astype(np.float32)
            found = self._scan.nearest(some, num_fetched, self._threads, self._allowed)
            for number, squares, rows in zip(waiting, *found, strict=True):
                length = float(points.lengths[number])
                candidates = self._candidates(queries[number], length, squares, rows)
                if candidates is not None:
                    rankings[number] = self._ranked(queries[number], candidates)
            waiting = [number for number in waiting if number not in rankings]
            num_fetched *= _GROWTH
        return rankings

    def _most_fetched(self) -> float:
        return max(_FEWEST, _LARGEST_SHARE * self._num_rows)

    def _are_live(self, positions: NDArray[np.int64]) -> NDArray[np.bool_]:
        if self._allowed is not None:  # photographs have whatever was selected
            return np.ones(len(positions), np.bool_)
        return are_live(self._storage, positions)

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
        is_all = bool(rows[-1] < 0) or len(rows) == self._num_rows
        squares, rows = squares[rows >= 0], rows[rows >= 0]
        positions = self._scan.compressed.positions[rows]
        first = self._first_live(positions)
        if len(first) < self._k:
            return first if is_all else None
        ranking = measured(self._storage, first, query, self._metric)
        kth = values_of(ranking, self._metric)[self._k - 1]
        bounds, bound_of_others = self._bounds(length, self._scan.bounds(squares), rows)
        if not (is_all or bound_of_others > kth):
            return None
        near = positions[bounds <= kth]
        # Those that were measured count as read, whatever their bounds.
        return np.union1d(first, near[self._are_live(near)])

    def _first_live(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the first of some vectors that photographs have, enough to measure."""
        num_wanted = self._k + _MORE
        some = positions[: 2 * num_wanted]  # rarely are more of them gone
        live = some[self._are_live(some)]
        if len(live) < num_wanted:
            live = positions[self._are_live(positions)]
        return live[:num_wanted]

    def _bounds(
        self, length: float, bounds: NDArray[np.float64], rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], float]:
        """Return lower bounds of what vectors are ranked by: of `rows`, and of all others.

        Args:
            length: of the query, m.
            bounds: (K,) of the distances of the vectors scaled to length 1, ascending.
            rows: (K,) their numbers.
        """
        if self._metric == "cosine":  # of two vectors of length 1, |u - v|^2 is 2 - 2 cos
            values = bounds**2 / 2 - 1 - 1e-12  # which is more than float64 rounds
            return values, float(values[-1])
        # |mu - nv|^2 is (m - n)^2 + mn |u - v|^2. Where n is not known it is at least (m sin)^2,
        # sin^2 being |u - v|^2 (1 - |u - v|^2 / 4) up to a right angle, and m^2 beyond.
        lengths = self._scan.compressed.lengths[rows].astype(np.float64)
        values = np.sqrt((length - lengths) ** 2 + length * lengths * bounds**2)
        values -= 1e-6 * (length + lengths)  # which are rounded to float32
        last = min(float(bounds[-1]), 2**0.5)
        return values, length * last * (1 - last**2 / 4) ** 0.5 * (1 - 1e-9)

    def _ranked(self, query: NDArray[np.float16], candidates: NDArray[np.int64]) -> Ranking:
        positions = np.union1d(candidates, self._others)
        (ranking,) = nearest(
            self._storage,
            positions,
            query[None],
            self._k,
            metric=self._metric,
            threads=self._threads,
        )
        return ranking
