"""How an index of a certain size is to be searched, and what that costs: decided before the work.

N vectors, D numbers in each.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alexnet_deploy.choices import Ann
from alexnet_deploy.index.compression import points_of, row_type

INTERACTIVE_S = 0.2
"""A search that compares every vector may take as long before they are worth compressing."""
_FEW_NUMBERS = 2**22
"""Any machine compares them in no time, and measuring takes some."""
_NUM_NUMBERS = 2**19
_NUM_AXES = 127


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What searching takes and compressing costs; times and sizes are estimates.

    Attributes:
        num_vectors: N.
        exact_s: seconds of a search that compares all of them, from memory.
        is_compressed: whether they are to be compressed.
        compressed_bytes: on disk, and about as much memory while the index is open.
        compressing_s: seconds that compressing all of them takes.
    """

    num_vectors: int
    exact_s: float
    is_compressed: bool
    compressed_bytes: int
    compressing_s: float

    def line(self) -> str:
        """Say it to a person."""
        why = "so they" if self.exact_s > INTERACTIVE_S else "and they"
        return (
            f"{self.num_vectors:,} vectors: a search that compares all takes about "
            f"{self.exact_s:.1g} s, {why} will be compressed as well, in about "
            f"{self.compressing_s:,.0f} s, to {self.compressed_bytes / 1e6:,.1f} MB"
        )


def plan(num_vectors: int, dimension: int, choice: Ann | int | Path, threads: int) -> Plan:
    """Plan an index of (N, D) vectors by how fast this machine reads and multiplies made ones."""
    if choice in ("auto", "exact") and num_vectors * dimension < _FEW_NUMBERS:
        return Plan(
            num_vectors=num_vectors,
            exact_s=0,
            is_compressed=False,
            compressed_bytes=0,
            compressing_s=0,
        )
    num_made = max(1, _NUM_NUMBERS // dimension)
    vectors = np.random.default_rng(0).random((num_made, dimension)).astype(np.float16)
    query, mean = vectors[0].astype(np.float32), np.zeros(dimension)
    axes = np.zeros((min(_NUM_AXES, dimension), dimension))

    def compare() -> None:
        wide = vectors.astype(np.float32)
        wide /= np.sqrt(np.einsum("nd,nd->n", wide, wide))[:, None]
        np.einsum("nd,d->n", wide, query)  # which, unlike a matrix product, stays in this thread

    code_bytes = choice // 8 if isinstance(choice, int) else 0
    exact_s = _least_s(compare) * num_vectors / num_made / threads
    return Plan(
        num_vectors=num_vectors,
        exact_s=exact_s,
        is_compressed=choice not in ("auto", "exact")
        or (choice == "auto" and exact_s > INTERACTIVE_S),
        compressed_bytes=num_vectors * (row_type(len(axes)).itemsize + code_bytes),
        compressing_s=_least_s(lambda: points_of(vectors, mean, axes)) * num_vectors / num_made,
    )


def _least_s(work: Callable[[], object]) -> float:
    """Return the least time of three: whatever else the machine does only adds to it."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)
