"""How many axes make a proved search cheapest: the more, the fewer vectors have to be read.

n vectors of a sample, d axes.
"""

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.index.compressed_record import NUM_NEAREST
from alexnet_deploy.index.compression import (
    Compression,
    Points,
    fit,
    points_of,
    principal_axes,
    unit_vectors,
)

AXES = (15, 31, 63, 127, 255)
"""With the length of the rest a multiple of 16, which FAISS compares in vector registers."""
NUM_QUERIES = 64
_ROW_COST = 30
"""Reading and measuring a number of a vector, in the time in which one of a code is scanned."""


def fit_cheapest(sample: NDArray[np.float16], num_vectors: int) -> Compression:
    """Fit the axes with which a proved search for the 10 nearest costs least.

    Some of the sample are the queries. How many of its vectors a proof would read is counted in all
    of it and in every fourth; as that number grows between the two, it is taken to grow on.

    Args:
        sample: (n, D), finite and not all zeros.
        num_vectors: of the index, n or more.
    """
    unit = unit_vectors(sample)
    fewest = min(AXES[0], unit.shape[1])
    allowed = [d for d in AXES if d < unit.shape[1] and 4 * d <= len(unit)] or [fewest]
    mean, axes = principal_axes(unit, max(allowed))
    points = points_of(sample, mean, axes)
    if len(allowed) == 1 or len(unit) < 16 * NUM_NEAREST:
        return fit(points, mean, axes)
    # Of every fourth vector, so that they are in both.
    queries = 4 * np.linspace(0, (len(unit) - 1) // 4, NUM_QUERIES).astype(np.intp)
    distances = np.sqrt(np.maximum(0, 2 - 2 * (unit[queries] @ unit.T)))
    costs = {}
    for num_axes in allowed:
        compression = fit(points.first(num_axes), mean, axes[:num_axes])
        bounds = _bounds(compression, points.first(num_axes), queries)
        num_read, of_fourth = (
            _num_read(distances[:, ::step], bounds[:, ::step]) for step in (1, 4)
        )
        growth = max(0.0, np.log(num_read / of_fourth) / np.log(4))
        num_read *= (num_vectors / len(unit)) ** growth
        costs[num_axes] = num_vectors * (num_axes + 1) + _ROW_COST * unit.shape[1] * num_read
    num_axes = min(costs, key=costs.__getitem__)
    return fit(points.first(num_axes), mean, axes[:num_axes])


def _bounds(
    compression: Compression, points: Points, queries: NDArray[np.intp]
) -> NDArray[np.float32]:
    """Return the lower bounds of the distances of some points from all, (Q, n)."""
    stored = compression.decoded(compression.codes(points.coordinates)).astype(np.float32)
    exact = points.coordinates[queries].astype(np.float32)
    distances = [np.sqrt(np.square(stored - one).sum(axis=1)) for one in exact]
    bounds: NDArray[np.float32] = np.stack(distances) - np.float32(compression.error)
    return bounds


def _num_read(distances: NDArray[np.float32], bounds: NDArray[np.float32]) -> float:
    """Return how many bounds are within the distance of the nearest, the mean of the queries."""
    farthest = np.partition(distances, NUM_NEAREST, axis=1)[:, NUM_NEAREST]  # it is its own nearest
    return float((bounds <= farthest[:, None]).sum(axis=1).mean())
