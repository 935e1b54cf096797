"""Retrieval as one would write it down: every query, every rank, every order of what ties."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray


def orders(distances: Sequence[float]) -> Iterator[list[int]]:
    """Yield every order of the results, nearest first: one, or more where some tie."""
    groups = [
        [n for n, distance in enumerate(distances) if distance == value]
        for value in sorted(set(distances))
    ]
    for choice in itertools.product(*(itertools.permutations(group) for group in groups)):
        yield [n for group in choice for n in group]


def figures_of_order(is_relevant: Sequence[bool]) -> list[float]:
    """Return average precision, precision at 1 and 10, recall at 10 and 100, of one ranking."""
    total = sum(is_relevant)
    precisions = [
        sum(is_relevant[: rank + 1]) / (rank + 1)
        for rank, is_one in enumerate(is_relevant)
        if is_one
    ]
    hits = [sum(is_relevant[:k]) for k in (1, 10, 100)]
    return [sum(precisions) / total, hits[0], hits[1] / 10, hits[1] / total, hits[2] / total]


def plain_figures(distances: NDArray[np.floating], labels: Sequence[int]) -> NDArray[np.float64]:
    """Return the figures of each query, (N, 5), from all distances, (N, N)."""
    rows = []
    for query, own in enumerate(labels):
        others = [n for n in range(len(labels)) if n != query]
        if own not in [labels[n] for n in others]:
            rows.append([np.nan] * 5)
            continue
        each = [
            figures_of_order([labels[others[n]] == own for n in order])
            for order in orders([float(distances[query, n]) for n in others])
        ]
        rows.append(np.mean(each, axis=0).tolist())
    return np.array(rows)
