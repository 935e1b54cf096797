"""The nearest of compressed vectors, by FAISS, which is given their codes in memory.

Q queries, N vectors of D numbers, K found.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.index.compressed_files import Compressed
from alexnet_deploy.index.faiss_library import faiss, threads_of_faiss

_SHARD_ROWS = 2**19
_REST_COSINE = 0.75
"""Taken for what the axes leave out of two near neighbours, where a lower bound has to take 1.

Of the nearest 10 in a million, the first 100 held .883, .947, .976, .996 and .985 with 0, .25, .5,
.75 and 1.
"""
_UNIT_ROUNDOFF = 2.0**-24
_ROUNDING = 2e-5
"""How far float32 moves two points: some 256 numbers, each by up to four roundings below 4."""
_Found: TypeAlias = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Distances, ascending, and row numbers, (Q, K) each; -1 where there are no more."""


class CompressedScan:
    """Ranks compressed vectors by FAISS, in shards that threads share.

    Attributes:
        compressed: the vectors.
        num_rows: of them.
    """

    def __init__(self, compressed: Compressed) -> None:
        self.compressed = compressed
        self.num_rows = len(compressed.positions)
        self._shards: dict[int, Any] = {}

    def nearest(
        self,
        points: NDArray[np.float32],
        k: int,
        threads: int,
        allowed: NDArray[np.bool_] | None = None,
    ) -> _Found:
        """Return squared distances and row numbers of the nearest points.

        Args:
            points: (Q, d + 1).
            k: how many; where there are fewer rows, the numbers of the rest are -1.
            threads: that scan.
            allowed: (N,), the rows that may be found; None for all.
        """

        def search(start: int) -> _Found:
            parameters = None
            if allowed is not None:
                bits = np.packbits(allowed[start : start + _SHARD_ROWS], bitorder="little")
                # Its stubs are of the classes below those that FAISS wraps for NumPy.
                selector = faiss.IDSelectorBitmap(bits)  # type: ignore[call-arg, arg-type]
                parameters = faiss.SearchParameters(sel=selector)  # type: ignore[call-arg]
            squares, numbers = self._shard(start).search(points, k, params=parameters)
            return squares, np.where(numbers < 0, numbers, numbers + start)

        return self._merged(search, len(points), k, threads)

    def first(
        self,
        queries: NDArray[np.float16],
        count: int,
        threads: int,
        allowed: NDArray[np.bool_] | None = None,
    ) -> list[NDArray[np.int64]]:
        """Return the row numbers of what is likely the nearest, by the binary codes if there are.

        Args:
            queries: (Q, D).
            count: how many for each; fewer where there are fewer.
            threads: that scan.
            allowed: as for `nearest`.
        """
        if self.compressed.coder is None:
            # Of rests r and s, the distance is r^2 + s^2 - 2 r s cos; r^2 is the same for all.
            points = self.compressed.compression.points(queries).coordinates
            points[:, -1] *= _REST_COSINE
            _, rows = self.nearest(points.astype(np.float32), count, threads, allowed)
        else:
            codes = self.compressed.coder.codes(queries)

            def search(start: int) -> _Found:
                some = self.compressed.bits[start : start + _SHARD_ROWS]
                numbers = np.arange(start, start + len(some))
                if allowed is not None:
                    numbers = np.flatnonzero(allowed[start : start + _SHARD_ROWS]) + start
                    some = some[numbers - start]
                distances, found = faiss.knn_hamming(codes, some, min(count, len(some)))
                return distances.astype(np.float32), numbers[found]

            _, rows = self._merged(search, len(queries), count, threads)
        return [some[some >= 0] for some in rows]

    def _merged(
        self, search: Callable[[int], _Found], num_queries: int, k: int, threads: int
    ) -> _Found:
        """Search all shards, and return the nearest of what they find."""
        with (
            ThreadPoolExecutor(
                threads, initializer=faiss.omp_set_num_threads, initargs=(1,)
            ) as executor,
            threads_of_faiss(1),
        ):
            heap = faiss.ResultHeap(num_queries, k)
            for squares, numbers in executor.map(search, range(0, self.num_rows, _SHARD_ROWS)):
                heap.add_result(squares, numbers)
            heap.finalize()
        return heap.D, heap.I

    def _shard(self, start: int) -> Any:
        """Return FAISS's index of a shard, made when it is first searched."""
        if start not in self._shards:
            codes = self.compressed.codes[start : start + _SHARD_ROWS]
            self._shards[start] = _faiss_index(self.compressed, np.ascontiguousarray(codes))
        return self._shards[start]

    def bounds(self, squares: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return lower bounds of the distances of vectors from squared ones of their points."""
        compression = self.compressed.compression
        # Higham 2002, section 3.1: of the sum; doubled for the roundings before it.
        error = 2 * (self.compressed.codes.shape[1] + 4) * _UNIT_ROUNDOFF
        distances: NDArray[np.float64] = np.sqrt(squares.astype(np.float64) * (1 - error))
        return np.maximum(0, distances - compression.error - _ROUNDING)


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
