"""How far forward a ranking puts the photographs of the query's class.

Each of N photographs is the query once, against all the others; those of its class are relevant.
Distances that are equal, as many of short codes are, have no order: every figure is its mean over
all orders of what ties (McSherry and Najork 2008, "Computing information retrieval performance
measures efficiently in the presence of tied scores"), so none is won or lost by chance.

B queries at a time.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Distances = Callable[[NDArray[np.int64]], NDArray[np.float32]]
"""From the numbers of B queries to what ranks all N for them, (B, N), finite, lower is nearer.

Distances, or what a query's differ from by a constant or a square; its own is not looked at. Taken
in float64 and rounded to float32, so that equal vectors tie."""

FIGURES = ("map", "precision_at_1", "precision_at_10", "recall_at_10", "recall_at_100")
"""Of one query, `map` is the average precision: of the ranks of all relevant ones."""

_BLOCK = 2**22
"""Distances that are ranked at once, some 400 MB."""


def figures_of(distances: Distances, labels: NDArray[np.int32]) -> NDArray[np.float64]:
    """Return the figures of every query.

    Args:
        distances: of the photographs.
        labels: (N,), the class of each.

    Returns:
        (N, 5), in the order of `FIGURES`, 0..1. A photograph that is alone in its class has nothing
        to find: its row is NaN.
    """
    num_photographs = len(labels)
    found = np.empty((num_photographs, len(FIGURES)))
    rows = max(1, _BLOCK // num_photographs)
    for start in range(0, num_photographs, rows):
        queries = np.arange(start, min(start + rows, num_photographs))
        given = distances(queries).copy()
        given[queries - start, queries] = np.inf  # the last of the ranking, and not relevant
        is_relevant = labels == labels[queries, np.newaxis]
        is_relevant[queries - start, queries] = False
        found[queries] = _ranked(given, is_relevant)
    found[is_alone(labels)] = np.nan
    return found


def is_alone(labels: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return which photographs are the only ones of their class, (N,)."""
    _, numbers, counts = np.unique(labels, return_inverse=True, return_counts=True)
    alone: NDArray[np.bool_] = counts[numbers] == 1
    return alone


def _ranked(distances: NDArray[np.float32], is_relevant: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the figures of some queries, (B, 5); both arguments are (B, N)."""
    order = np.argsort(distances, axis=1)
    distances = np.take_along_axis(distances, order, axis=1)
    hits = np.take_along_axis(is_relevant, order, axis=1).cumsum(axis=1)
    first, last = _tied(distances)
    # Relevant ones before, and among, those that tie with each rank.
    before = np.where(first > 0, np.take_along_axis(hits, first - 1, axis=1), 0)
    among = np.take_along_axis(hits, last, axis=1) - before
    size, total = last - first + 1, hits[:, -1:]
    ranks = np.arange(1, distances.shape[1] + 1)
    share = among / size  # how likely a relevant one has the rank
    others = (ranks - 1 - first) * (among - 1) / np.maximum(size - 1, 1)  # then, tied before it
    some = np.maximum(total, 1)
    precision = (share * (before + 1 + others) / ranks).sum(axis=1, keepdims=True) / some
    expected = before + share * (ranks - first)  # relevant ones up to each rank

    def up_to(k: int) -> Any:
        return expected[:, min(k, len(ranks)) - 1, np.newaxis]

    return np.hstack([precision, up_to(1), up_to(10) / 10, up_to(10) / some, up_to(100) / some])


def _tied(distances: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first and the last that each ties with; all are (B, N), distances ascending."""
    places = np.arange(distances.shape[1])
    is_new = np.diff(distances, axis=1, prepend=-np.inf) > 0
    is_last = np.roll(is_new, -1, axis=1)  # before one that is new; the first is
    first = np.maximum.accumulate(np.where(is_new, places, 0), axis=1)
    backwards = np.where(is_last, places, places[-1])[:, ::-1]
    return first, np.minimum.accumulate(backwards, axis=1)[:, ::-1]
