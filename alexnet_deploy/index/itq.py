"""Short binary codes of vectors: iterative quantization (Gong and Lazebnik 2011).

A vector scaled to length 1 is turned onto the principal axes of a sample, and these are turned
among themselves until the sample lies as near as it can to the corners of a cube. A code names the
corner, in a bit for each axis; two codes are as far apart as bits in them differ. This is what
section 6.1 of Krizhevsky et al. 2012 asks for, without an auto-encoder.

N vectors, D numbers in each, b bits.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy import arguments
from alexnet_deploy.errors import ArgumentError
from alexnet_deploy.index.compression import (
    has_direction,
    points_of,
    principal_axes,
    unit_vectors,
)

_ITERATIONS = 50  # as in the paper, section 2.2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Itq:
    """What turns vectors into codes.

    Attributes:
        mean: (D,) float64, of the sample's vectors of length 1.
        axes: (b, D) float64, orthonormal rows.
    """

    mean: NDArray[np.float64]
    axes: NDArray[np.float64]

    def codes(self, vectors: NDArray[np.float16]) -> NDArray[np.uint8]:
        """Return the codes of (N, D) vectors, (N, b / 8).

        Bit n is in byte n // 8, the lowest first, as FAISS's binary indexes have it, and
        `numpy.unpackbits` with `bitorder="little"`. Memory: 8 b bytes a vector.
        """
        coordinates = points_of(vectors, self.mean, self.axes).coordinates[:, :-1]
        return np.packbits(coordinates > 0, axis=1, bitorder="little")


def fit_itq(sample: NDArray[np.float16], bits: int) -> Itq:
    """Fit codes to a sample; the same one always gives the same.

    Args:
        sample: (N, D) vectors, of which more than `bits` have a direction; 20,000 are plenty.
        bits: of a code, a multiple of 8, at most D.

    Raises:
        ArgumentError: another number of bits, or too few vectors for them.
    """
    if arguments.count("bits", bits, sample.shape[1]) % 8:
        raise ArgumentError("bits", bits, "a multiple of 8")
    sample = sample[has_direction(sample)]
    if len(sample) <= bits:
        raise ArgumentError(
            "sample", sample.shape, f"more than {bits} vectors to find as many axes"
        )
    mean, axes = principal_axes(unit_vectors(sample), bits)
    points = points_of(sample, mean, axes).coordinates[:, :-1].astype(np.float32)
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((bits, bits)))[0]
    for _ in range(_ITERATIONS):
        corners = np.where(points @ turn.astype(np.float32) > 0, np.float32(1), np.float32(-1))
        # The turn that brings the points nearest to these corners (orthogonal Procrustes).
        left, _, right = np.linalg.svd((points.T @ corners).astype(np.float64))
        turn = left @ right
    return Itq(mean=mean, axes=np.ascontiguousarray(turn.T @ axes))
