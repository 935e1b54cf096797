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
import functools
import itertools
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.choices import Metric
from alexnet_deploy.errors import Argument, DeviceError, IncompatibleFileError
from alexnet_deploy.index.faiss_library import faiss, threads_of_faiss
from alexnet_deploy.index.ledger import INTEGER, NUM_PARAMETERS
from alexnet_deploy.index.ranking import Ranking
from alexnet_deploy.index.storage import Storage

_BLOCK_BYTES = 2**22
"""Of float32: small enough to stay in a core's cache while FAISS reads what was converted."""
_QUERIES_PER_CALL = 16
"""Below 20 FAISS sums differences; from 20 on it expands the square, which loses digits."""
_MORE = 16
_UNIT_ROUNDOFF = 2.0**-24
_GPU_BLOCK_BYTES = 2**27
"""Of float32; up to three are in memory: one that is scanned, and those that are converted."""
_FEWEST_FOR_GPU = 16
"""Queries: for fewer, the vectors are read no faster than they could be carried to a GPU."""
_MOST_ON_GPU = 2048
"""Neighbours: asked for more there, FAISS ends the process (its GPU_MAX_SELECTION_K)."""


_Part: TypeAlias = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Scores and indices into `positions` of a block's nearest, (Q, k)."""
_Converting: TypeAlias = tuple[int, NDArray[np.float32], list[Future[None]]]
"""Where a block begins in `positions`, its vectors, and the conversions still to be awaited."""


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
        scan = _Scan(
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


def gpu_resources() -> Any:
    """Return what FAISS scans on a GPU with; None where it is a build for CPUs, or finds none."""
    if not hasattr(faiss, "StandardGpuResources") or not faiss.get_num_gpus():
        return None
    return faiss.StandardGpuResources()


class _Scan:
    """One pass over the vectors: the `num_fetched` nearest in float32."""

    def __init__(
        self,
        storage: Storage,
        positions: NDArray[np.int64],
        metric: Metric,
        num_fetched: int,
        threads: int,
        gpu: Any,
    ) -> None:
        self._storage = storage
        self._positions = positions
        self._metric = metric
        self._num_fetched = num_fetched
        self._threads = threads
        self._gpu = gpu

    def run(self, queries: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the positions found, (Q, K), and for each query what all others are beyond."""
        num_queries, dimension = queries.shape
        is_cosine = self._metric == "cosine"
        if is_cosine:
            queries = queries.copy()
            faiss.normalize_L2(queries)
        # The parallelism is here, over blocks: FAISS's own is over queries, often a single one.
        scan = self._on_cpu if self._gpu is None else self._on_gpu
        with (
            ThreadPoolExecutor(
                self._threads, initializer=faiss.omp_set_num_threads, initargs=(1,)
            ) as executor,
            # In this thread alone, too: for so little FAISS's own only wait for each other.
            threads_of_faiss(1),
        ):
            heap = faiss.ResultHeap(num_queries, self._num_fetched, keep_max=is_cosine)
            for scores, indices in scan(queries, executor):
                heap.add_result(scores, indices)
            heap.finalize()
        worst = heap.D[:, -1].astype(np.float64)
        # Higham 2002, section 3.1: the sum; doubled for the norms, 4 for the other roundings.
        error = 2 * (dimension + 4) * _UNIT_ROUNDOFF
        bounds = -worst - error if is_cosine else np.sqrt(worst * max(0.0, 1 - error))
        return self._positions[heap.I], bounds

    def _blocks(self, block_bytes: int) -> Iterator[tuple[int, int]]:
        """Yield ranges of `positions`, each within a segment and so many bytes of float32."""
        manifest = self._storage.manifest
        block_rows = max(1, block_bytes // (4 * manifest.space.dimension))
        firsts = np.flatnonzero(np.diff(self._positions // manifest.segment_rows)) + 1
        for first, last in itertools.pairwise([0, *firsts.tolist(), len(self._positions)]):
            for start in range(first, last, block_rows):
                yield start, min(start + block_rows, last)

    def _on_cpu(
        self, queries: NDArray[np.float32], executor: ThreadPoolExecutor
    ) -> Iterator[_Part]:
        """Yield what is nearest in each block, which one thread converts and scans."""
        return executor.map(functools.partial(self._search, queries), self._blocks(_BLOCK_BYTES))

    def _search(self, queries: NDArray[np.float32], block: tuple[int, int]) -> _Part:
        start, stop = block
        vectors = np.empty((stop - start, queries.shape[1]), np.float32)
        self._convert(start, vectors)
        is_cosine = self._metric == "cosine"
        metric = faiss.METRIC_INNER_PRODUCT if is_cosine else faiss.METRIC_L2
        k = min(self._num_fetched, stop - start)
        parts = [
            faiss.knn(queries[first : first + _QUERIES_PER_CALL], vectors, k, metric)
            for first in range(0, len(queries), _QUERIES_PER_CALL)
        ]
        scores = np.concatenate([part[0] for part in parts])
        return scores, np.concatenate([part[1] for part in parts]) + start

    def _on_gpu(
        self, queries: NDArray[np.float32], executor: ThreadPoolExecutor
    ) -> Iterator[_Part]:
        """Yield what is nearest in each block, which all threads convert and the GPU scans.

        It is called in this thread alone: FAISS's resources of a GPU are for one. It takes float16,
        too, but of queries as well, and unit vectors in it would not bear the proof.
        """
        blocks = (self._converting(block, executor) for block in self._blocks(_GPU_BLOCK_BYTES))
        # In pairs: the next block is being converted while this one is scanned.
        for block, _ in itertools.pairwise(itertools.chain(blocks, [None])):
            assert block is not None
            start, vectors, pieces = block
            for piece in pieces:
                piece.result()
            k = min(self._num_fetched, len(vectors))
            scores, indices = _products_on_gpu(self._gpu, queries, vectors, k)
            yield scores, indices + start

    def _converting(self, block: tuple[int, int], executor: ThreadPoolExecutor) -> _Converting:
        """Let the threads convert a block, in pieces that stay in a core's cache."""
        start, stop = block
        dimension = self._storage.manifest.space.dimension
        vectors = np.empty((stop - start, dimension), np.float32)
        piece_rows = max(1, _BLOCK_BYTES // (4 * dimension))
        pieces = [
            executor.submit(self._convert, start + first, vectors[first : first + piece_rows])
            for first in range(0, len(vectors), piece_rows)
        ]
        return start, vectors, pieces

    def _convert(self, start: int, vectors: NDArray[np.float32]) -> None:
        """Fill in the vectors from `start` on, for cosine similarity each of length 1.

        Raises:
            IncompatibleFileError: one is not finite.
        """
        vectors[:] = self._rows(self._positions[start : start + len(vectors)])
        if not np.isfinite(np.vdot(vectors, vectors)):  # it would be in no result, without a word
            finite = np.isfinite(vectors).all(axis=1)
            raise IncompatibleFileError(
                f"index {self._storage.directory}: damaged (the vector at position "
                f"{self._positions[start + int(finite.argmin())]} is not finite); restore it from "
                "a copy, or index with ",
                Argument("repair", True),
                " to embed its photograph again",
            )
        if self._metric == "cosine":
            faiss.normalize_L2(vectors)

    def _rows(self, positions: NDArray[np.int64]) -> NDArray[np.float16]:
        """Return rows of one segment: without a copy where none is left out."""
        segment, first = divmod(int(positions[0]), self._storage.manifest.segment_rows)
        num_rows = int(positions[-1] - positions[0]) + 1
        rows = self._storage.segments.rows(segment, first + num_rows)[first:]
        return rows if num_rows == len(positions) else rows[positions - positions[0]]


def _products_on_gpu(
    gpu: Any, queries: NDArray[np.float32], vectors: NDArray[np.float32], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the k largest products of each query and their indices, (Q, k).

    Raises:
        DeviceError: they are off by more than float32 can be, as products in TF32 would be: the
            proof that nothing nearer was missed would not hold.
    """
    scores, indices = faiss.knn_gpu(gpu, queries, vectors, k, metric=faiss.METRIC_INNER_PRODUCT)
    exact = (queries.astype(np.float64) * vectors[indices[:, 0]]).sum(axis=1)
    off = float(np.abs(exact - scores[:, 0]).max())
    allowed = (queries.shape[1] + 4) * _UNIT_ROUNDOFF
    if not off <= allowed:
        raise DeviceError(
            f"FAISS {faiss.__version__} on the GPU: a cosine similarity is {off:.1e} off, float32 "
            f"allows {allowed:.1e}; search with ",
            Argument("device", "cpu"),
        )
    return scores, indices


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
