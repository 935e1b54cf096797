"""Expected results of the LRN kernel, by the NumPy reference, and tolerances."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.model.reference import local_response_norm, max_pool, relu
from alexnet_deploy.model.spec import LrnSpec
from alexnet_deploy.trt.kernel import Scalar, TowerLrnKernel

DTYPES: dict[Scalar, str] = {"float": "float32", "half": "float16"}
"""As named by NumPy and torch."""
# Rounding of the sums, two roots good to 2^-23 and two products; one more rounding to half.
TOLERANCES: dict[Scalar, float] = {"float": 2e-6, "half": 2**-11 + 2e-6}


def formula(kernel: TowerLrnKernel, x: NDArray[Any]) -> NDArray[np.float64]:
    """Return the NumPy reference's outputs for (N, C, H, W) inputs, in float64."""
    lrn = LrnSpec(
        size=kernel.size,
        alpha=kernel.alpha,
        beta=kernel.beta,
        k=kernel.k,
        towers=kernel.towers,
        position="before_pool",
    )
    images = []
    with np.errstate(invalid="ignore", over="ignore"):  # inf / inf
        for image in x.astype(np.float64):
            normalized = local_response_norm(relu(image) if kernel.fused else image, lrn)
            images.append(max_pool(normalized) if kernel.fused else normalized)
    return np.stack(images)


def largest_error(actual: NDArray[Any], expected: NDArray[np.float64]) -> float:
    """Return the largest error, relative to the value or to the type's smallest normal number.

    Infinity if one of them is not finite and the other differs.
    """
    finite = np.isfinite(expected)
    if not np.array_equal(actual[~finite], expected[~finite], equal_nan=True):
        return np.inf
    smallest = float(np.finfo(actual.dtype).tiny)
    difference = np.abs(actual[finite].astype(np.float64) - expected[finite])
    relative = difference / np.maximum(np.abs(expected[finite]), smallest)
    # A NaN counts as an infinite error.
    return float(np.nan_to_num(relative, nan=np.inf, posinf=np.inf).max(initial=0.0))
