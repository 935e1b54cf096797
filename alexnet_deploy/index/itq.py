"""Short binary codes of vectors: iterative quantization (Gong and Lazebnik 2011).

A vector scaled to length 1 is turned onto the principal axes of a sample, and these are turned
among themselves until the sample lies as near as it can to the corners of a cube. A code names the
corner, in a bit for each axis; two codes are as far apart as bits in them differ. This is what
section 6.1 of Krizhevsky et al. 2012 asks for, without an auto-encoder.

N vectors, D numbers in each.
"""

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy import arguments
from alexnet_deploy.errors import ArgumentError
from alexnet_deploy.index.binary_codes import BinaryCoder
from alexnet_deploy.index.compression import (
    has_direction,
    points_of,
    principal_axes,
    unit_vectors,
)

_ITERATIONS = 50  # as in the paper, section 2.2


def fit_itq(sample: NDArray[np.float16], bits: int) -> BinaryCoder:
    """Fit codes to a sample; the same one always gives the same.

    Args:
        sample: (N, D) vectors, of which more than `bits` have a direction; 20,000 are plenty.
        bits: of a code, a multiple of 8, at most D.

    Returns:
        A coder of one layer: the axes, orthonormal, and minus the sample's mean on each.

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
    axes = turn.T @ axes
    bias = -axes @ mean
    return BinaryCoder(weights=(axes.astype(np.float32),), biases=(bias.astype(np.float32),))
