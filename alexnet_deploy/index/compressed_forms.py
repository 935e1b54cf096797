"""The compressed forms that vectors may be judged in, from centred PCA to short binary codes.

All are of vectors scaled to length 1, and fitted to a sample. N vectors of D numbers.
"""

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.index import compression
from alexnet_deploy.index.compression import points_of
from alexnet_deploy.index.itq import fit_itq
from alexnet_deploy.inference.retrieval_figures import Distances
from alexnet_deploy.inference.retrieval_forms import FittedForm, Form, l2_distances


def hamming_distances(codes: NDArray[np.uint8]) -> Distances:
    """Rank by the number of bits in which codes differ, (N, b / 8)."""
    signs = 2 * np.unpackbits(codes, axis=1).astype(np.float32) - 1
    return lambda queries: (signs.shape[1] - signs[queries] @ signs.T) / 2


def _pca(num_axes: int) -> Form:
    """Keep the coordinates on the first principal axes."""

    def fit(sample: NDArray[np.float16]) -> FittedForm:
        mean, axes = _axes(sample, num_axes)
        return lambda vectors: l2_distances(points_of(vectors, mean, axes).coordinates[:, :-1])

    return Form(name=f"PCA {num_axes}", num_bytes=lambda _: 4 * num_axes, rank=num_axes, fit=fit)


def _pca_bytes(num_axes: int) -> Form:
    """Keep what an index does: a byte for each coordinate, and one for the length of the rest."""

    def fit(sample: NDArray[np.float16]) -> FittedForm:
        mean, axes = _axes(sample, num_axes)
        kept = compression.fit(points_of(sample, mean, axes), mean, axes)
        return lambda vectors: l2_distances(
            kept.decoded(kept.codes(kept.points(vectors).coordinates))
        )

    return Form(
        name=f"PCA {num_axes}, 8 bits",
        num_bytes=lambda _: num_axes + 1,
        rank=num_axes,
        fit=fit,
    )


def _itq(bits: int) -> Form:
    """Keep a bit for each axis."""

    def fit(sample: NDArray[np.float16]) -> FittedForm:
        coder = fit_itq(sample, bits)
        return lambda vectors: hamming_distances(coder.codes(vectors))

    return Form(name=f"ITQ {bits} bits", num_bytes=lambda _: bits // 8, rank=bits, fit=fit)


def _axes(
    sample: NDArray[np.float16], count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return compression.principal_axes(
        compression.unit_vectors(sample[compression.has_direction(sample)]), count
    )


COMPRESSED_FORMS = (
    *map(_pca, (64, 128)),
    *map(_pca_bytes, (64, 128)),
    *map(_itq, (64, 128, 256, 512)),
)
"""From 512 bytes a vector down to 8."""
