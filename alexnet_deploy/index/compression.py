"""Vectors compressed to a byte for each of a few numbers, and how near two can be at least.

A vector scaled to length 1, u, is turned onto the principal axes of a sample. Kept are its
coordinates a on the first d axes and the length r of what is left. Squared distances add up over
the two parts, and two rests are at least as far apart as their lengths differ, so

    |u - v|^2  >=  |a_u - a_v|^2 + (r_u - r_v)^2

which is the squared distance of two points of d + 1 numbers. These are stored in 8 bits each, and
how far the stored point lies from the true one is measured, not estimated. So the distance between
a query's point and a stored one, less that error, is a lower bound of the distance of the vectors:
what it excludes need not be read.

N vectors, D numbers in each, d axes.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_MARGIN = 0.05  # of the sample's range, on either side: others reach a little farther
_ERROR_MARGIN = 1.25
_OVERSAMPLING = 16
_ITERATIONS = 4
_BLOCK_BYTES = 2**25  # of float64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Points:
    """Vectors of length 1 as points, before they are rounded.

    Attributes:
        coordinates: (N, d + 1) float64, the last of them the length of the rest.
        lengths: (N,) float64, of the vectors themselves; where 0, the point says nothing.
    """

    coordinates: NDArray[np.float64]
    lengths: NDArray[np.float64]

    def first(self, num_axes: int) -> "Points":
        """Return the points on the first axes alone."""
        rest = np.sqrt(np.square(self.coordinates[:, num_axes:]).sum(axis=1))
        coordinates = np.column_stack([self.coordinates[:, :num_axes], rest])
        return Points(coordinates=coordinates, lengths=self.lengths)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Compression:
    """What turns vectors into points and codes; see the module.

    Attributes:
        mean: (D,) float64, of the sample's vectors of length 1.
        axes: (d, D) float64, orthonormal rows.
        lows: (d + 1,) float32, where the first step of each number begins.
        steps: (d + 1,) float32, more than 0, the width of one of 256 steps.
        error: how far the stored point of a bounded row may lie from its own.
    """

    mean: NDArray[np.float64]
    axes: NDArray[np.float64]
    lows: NDArray[np.float32]
    steps: NDArray[np.float32]
    error: float

    def points(self, vectors: NDArray[np.float16]) -> Points:
        """Return the points of (N, D) vectors."""
        return points_of(vectors, self.mean, self.axes)

    def rows(self, positions: NDArray[np.int64], points: Points) -> NDArray[np.void]:
        """Return what is stored of the points of the vectors at `positions`, of `row_type`."""
        rows = np.zeros(len(positions), row_type(len(self.axes)))
        rows["position"] = positions
        rows["code"] = self.codes(points.coordinates)
        errors = points.coordinates - self.decoded(rows["code"])
        # A comparison with what is not a number is false, too.
        is_near = np.sqrt((errors * errors).sum(axis=1)) <= self.error
        rows["length"] = np.where(is_near, points.lengths, 0)
        return rows

    def codes(self, coordinates: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Return the numbers of the steps of (N, d + 1) coordinates, the nearest where none is."""
        with np.errstate(invalid="ignore"):  # of vectors that are not finite
            return np.clip((coordinates - self.lows) / self.steps, 0, 255).astype(np.uint8)

    def decoded(self, codes: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return the stored points of (N, d + 1) codes: the middles of their steps."""
        return self.lows + (codes + 0.5) * self.steps.astype(np.float64)


def row_type(num_axes: int) -> np.dtype[np.void]:
    """Return the type of what is stored of a vector.

    Its position; its length, 0 where the code bounds nothing, because its point is too far away or
    it has no direction; and its code.
    """
    return np.dtype([("position", "<i8"), ("length", "<f4"), ("code", "u1", (num_axes + 1,))])


def fit(points: Points, mean: NDArray[np.float64], axes: NDArray[np.float64]) -> Compression:
    """Return what rounds such points as those of a sample by `mean`, (D,), and `axes`, (d, D)."""
    coordinates = points.coordinates
    low, high = coordinates.min(axis=0), coordinates.max(axis=0)
    margin = _MARGIN * (high - low) + 1e-6
    lows = (low - margin).astype(np.float32)
    steps = ((high - low + 2 * margin) / 256).astype(np.float32)
    rough = Compression(mean=mean, axes=axes, lows=lows, steps=steps, error=np.inf)
    errors = coordinates - rough.decoded(rough.codes(coordinates))
    error = _ERROR_MARGIN * float(np.sqrt((errors * errors).sum(axis=1)).max())
    return Compression(mean=mean, axes=axes, lows=lows, steps=steps, error=error)


def points_of(
    vectors: NDArray[np.float16], mean: NDArray[np.float64], axes: NDArray[np.float64]
) -> Points:
    """Return the points of (N, D) vectors, computed in float64; see `Compression`."""
    parts = [_points(vectors[start:stop], mean, axes) for start, stop in _blocks(vectors)]
    return Points(
        coordinates=np.concatenate([part.coordinates for part in parts]),
        lengths=np.concatenate([part.lengths for part in parts]),
    )


def principal_axes(
    unit: NDArray[np.float32], count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean, (D,), and the first axes, (count, D), of (N, D) vectors of length 1.

    By randomised subspace iteration (Halko, Martinsson and Tropp 2011, algorithm 4.4), in a tenth
    of the time of all axes: any orthonormal axes keep the bound, better ones make it closer.
    """
    mean = unit.mean(axis=0, dtype=np.float64)
    centred = unit - mean.astype(np.float32)
    width = min(count + _OVERSAMPLING, unit.shape[1])
    basis = np.random.default_rng(0).standard_normal((unit.shape[1], width), np.float32)
    for _ in range(_ITERATIONS):
        basis = np.linalg.qr(centred.T @ (centred @ basis))[0]
    kept = (centred @ basis).astype(np.float64)
    _, turn = np.linalg.eigh(kept.T @ kept)
    axes = basis.astype(np.float64) @ turn[:, ::-1][:, :count]
    return mean, np.ascontiguousarray(np.linalg.qr(axes)[0].T)  # orthonormal in float64, too


def has_direction(vectors: NDArray[np.float16]) -> NDArray[np.bool_]:
    """Return which of (N, D) vectors are finite and not all zeros."""
    return np.logical_and(np.isfinite(vectors).all(axis=1), vectors.any(axis=1))


def unit_vectors(vectors: NDArray[np.float16]) -> NDArray[np.float32]:
    """Return (N, D) vectors that have a direction scaled to length 1."""
    unit = vectors.astype(np.float32)
    unit /= np.sqrt(np.einsum("nd,nd->n", unit, unit))[:, None]
    return unit


def _points(
    vectors: NDArray[np.float16], mean: NDArray[np.float64], axes: NDArray[np.float64]
) -> Points:
    with np.errstate(invalid="ignore"):  # of vectors that are not finite
        wide = vectors.astype(np.float64)
        lengths = np.sqrt(np.einsum("nd,nd->n", wide, wide))
        wide /= np.where(lengths > 0, lengths, 1)[:, None]
        wide -= mean
        kept = wide @ axes.T
        rest = np.einsum("nd,nd->n", wide, wide) - np.einsum("nd,nd->n", kept, kept)
        coordinates = np.column_stack([kept, np.sqrt(np.maximum(rest, 0))])
    return Points(coordinates=coordinates, lengths=lengths)


def _blocks(vectors: NDArray[np.float16]) -> Iterator[tuple[int, int]]:
    num_rows = max(1, _BLOCK_BYTES // (8 * vectors.shape[1]))
    for start in range(0, len(vectors), num_rows):
        yield start, min(start + num_rows, len(vectors))
