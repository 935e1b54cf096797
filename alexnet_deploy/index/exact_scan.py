"""One pass over the vectors of an index, by FAISS, on the CPU or on a GPU.

Q queries, N vectors, D numbers in each, K found. Vectors are stored as float16 and mapped into
memory; blocks of them become float32 for FAISS.
"""

import functools
import itertools
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.choices import Metric
from alexnet_deploy.errors import Argument, DeviceError, IncompatibleFileError
from alexnet_deploy.index.faiss_library import faiss, threads_of_faiss
from alexnet_deploy.index.storage import Storage

_BLOCK_BYTES = 2**22
"""Of float32: small enough to stay in a core's cache while FAISS reads what was converted."""
_QUERIES_PER_CALL = 16
"""Below 20 FAISS sums differences; from 20 on it expands the square, which loses digits."""
_UNIT_ROUNDOFF = 2.0**-24
_GPU_BLOCK_BYTES = 2**27
"""Of float32; up to three are in memory: one that is scanned, and those that are converted."""
_NUM_TRIED = 3
"""Blocks that a GPU scans before it is compared with the CPU; the first also loads its kernels."""

_Part: TypeAlias = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Scores and indices into `positions` of a block's nearest, (Q, k)."""
_Converting: TypeAlias = tuple[int, NDArray[np.float32], list[Future[None]]]
"""Where a block begins in `positions`, its vectors, and the conversions still to be awaited."""


def gpu_resources() -> Any:
    """Return what FAISS scans on a GPU with; None where it is a build for CPUs, or finds none."""
    if not hasattr(faiss, "StandardGpuResources") or not faiss.get_num_gpus():
        return None
    return faiss.StandardGpuResources()


class Scan:
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
        scan = self._on_cpu if self._gpu is None else self._on_the_faster
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

    def _blocks(
        self, block_bytes: int, begin: int = 0, end: int | None = None
    ) -> Iterator[tuple[int, int]]:
        """Yield ranges of `positions`, each within a segment and so many bytes of float32.

        Args:
            block_bytes: at most, but for one row.
            begin: of `positions`.
            end: of `positions`; None for all.
        """
        manifest, positions = self._storage.manifest, self._positions[begin:end]
        block_rows = max(1, block_bytes // (4 * manifest.space.dimension))
        firsts = np.flatnonzero(np.diff(positions // manifest.segment_rows)) + 1
        for first, last in itertools.pairwise([0, *firsts.tolist(), len(positions)]):
            for start in range(first, last, block_rows):
                yield begin + start, begin + min(start + block_rows, last)

    def _on_cpu(
        self,
        queries: NDArray[np.float32],
        executor: ThreadPoolExecutor,
        begin: int = 0,
        end: int | None = None,
    ) -> Iterator[_Part]:
        """Yield what is nearest in each block, which one thread converts and scans."""
        blocks = self._blocks(_BLOCK_BYTES, begin, end)
        return executor.map(functools.partial(self._search, queries), blocks)

    def _on_the_faster(
        self, queries: NDArray[np.float32], executor: ThreadPoolExecutor
    ) -> Iterator[_Part]:
        """Yield what is nearest in each block: after some by each, by what takes less a vector.

        Which that is depends on cores, bus, GPU and queries; to find out, nothing is scanned twice.
        """
        ends = [end for _, end in self._blocks(_GPU_BLOCK_BYTES)]
        if len(ends) <= _NUM_TRIED + 1:
            yield from self._on_gpu(queries, executor, 0, None)
            return
        first, tried, compared = ends[0], ends[_NUM_TRIED - 1], ends[_NUM_TRIED]
        times = []
        for part in self._on_gpu(queries, executor, 0, tried):
            times.append(time.perf_counter())
            yield part
        gpu_s = (times[-1] - times[0]) / (tried - first)
        start = time.perf_counter()
        yield from list(self._on_cpu(queries, executor, tried, compared))
        cpu_s = (time.perf_counter() - start) / (compared - tried)
        scan = self._on_gpu if gpu_s < cpu_s else self._on_cpu
        yield from scan(queries, executor, compared, None)

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
        self,
        queries: NDArray[np.float32],
        executor: ThreadPoolExecutor,
        begin: int,
        end: int | None,
    ) -> Iterator[_Part]:
        """Yield what is nearest in each block, which all threads convert and the GPU scans.

        It is called in this thread alone: FAISS's resources of a GPU are for one. It takes float16,
        too, but of queries as well, and unit vectors in it would not bear the proof.
        """
        ranges = self._blocks(_GPU_BLOCK_BYTES, begin, end)
        blocks = (self._converting(block, executor) for block in ranges)
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
