"""How an index of a certain size is searched, and what that costs: decided before the work."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from alexnet_deploy.choices import Ann
from alexnet_deploy.index.compression import Compression, row_type
from alexnet_deploy.index.exact_search import compared

INTERACTIVE_S = 0.2
"""A search that compares every vector may take as long before it is worth compressing them."""
_NUM_ROWS = 512
_NUM_AXES = 127


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What searching takes and compressing costs; times and sizes are estimates.

    Attributes:
        num_vectors: there will be.
        exact_s: seconds of a search that compares all of them, from memory.
        is_compressed: whether they are to be compressed.
        compressed_bytes: on disk, and about as much memory while an index is open.
        compressing_s: seconds that it takes.
    """

    num_vectors: int
    exact_s: float
    is_compressed: bool
    compressed_bytes: int
    compressing_s: float

    def line(self) -> str:
        """Say it to a person."""
        plan = (
            f"{self.num_vectors:,} vectors: comparing all takes about {self.exact_s:.2g} s a search"
        )
        if not self.is_compressed:
            return plan
        return (
            f"{plan}, so they are compressed as well: {self.compressed_bytes / 1e6:,.0f} MB, and "
            f"as much memory to search, in about {self.compressing_s:,.0f} s"
        )


def plan(num_vectors: int, dimension: int, choice: Ann, threads: int) -> Plan:
    """Plan an index by how fast this machine compares made vectors."""
    vectors = np.random.default_rng(0).standard_normal((_NUM_ROWS, dimension)).astype(np.float16)
    query, axes = vectors[:1].astype(np.float32), np.zeros((min(_NUM_AXES, dimension), dimension))
    numbers, mean = np.ones(len(axes) + 1, np.float32), np.zeros(dimension)
    compression = Compression(mean=mean, axes=axes, lows=numbers, steps=numbers, error=0)
    comparing_s = _seconds(lambda: compared(query, vectors.astype(np.float32), 10, "cosine"))
    pointing_s = _seconds(lambda: compression.points(vectors))
    exact_s = comparing_s * num_vectors / _NUM_ROWS / threads
    return Plan(
        num_vectors=num_vectors,
        exact_s=exact_s,
        is_compressed=choice == "compressed" or (choice == "auto" and exact_s > INTERACTIVE_S),
        compressed_bytes=num_vectors * row_type(len(axes)).itemsize,
        compressing_s=pointing_s * num_vectors / _NUM_ROWS,
    )


def _seconds(work: Callable[[], object]) -> float:
    """Return the least time of three: whatever else runs here only adds to it."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)
