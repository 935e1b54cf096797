"""What ranks the vectors of an index, whatever kind of index it is.

Q queries, K vectors found, D numbers in each.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.choices import Metric


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ranking:
    """The nearest vectors of one query, the nearest first, ties by position.

    Attributes:
        positions: (K,) int64, where the vectors are.
        cosine_similarity: (K,) float64, -1..1; 0 where a vector is all zeros.
        l2_distance: (K,) float64.
        num_compared: vectors that were read for it.
    """

    positions: NDArray[np.int64]
    cosine_similarity: NDArray[np.float64]
    l2_distance: NDArray[np.float64]
    num_compared: int


class Ranker(Protocol):
    """One way to find, among the vectors that photographs have, the nearest."""

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
        """Rank the vectors for each query; the caller holds a snapshot of the ledger.

        Args:
            queries: (Q, D) float16, rounded as stored vectors are: a copy is at distance 0.
            k: how many; all that tie with the last are returned, too, and fewer where the index
                has fewer.
            metric: "cosine" or "l2".
            threads: that compute.
            among: (N,) positions, ascending, of the only vectors to rank; None for all that
                photographs have.
            effort: of the vectors that have a compressed form, compare only so many, those whose
                forms are the nearest; None for as many as prove that no nearer one was missed.
        """
