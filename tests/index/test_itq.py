"""Binary codes against what defines them: principal axes, signs, and no better turn nearby."""

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from alexnet_deploy.errors import ArgumentError
from alexnet_deploy.index.binary_codes import BinaryCoder
from alexnet_deploy.index.itq import fit_itq

BITS = 16


@pytest.fixture(scope="module")
def vectors() -> NDArray[np.float16]:
    """(600, 48), some numbers of which vary much more than others."""
    random = np.random.default_rng(5)
    spread = 2.0 ** -np.arange(0, 12, 0.25)
    return (random.standard_normal((600, 48)) * spread + random.random(48)).astype(np.float16)


@pytest.fixture(scope="module")
def itq(vectors: NDArray[np.float16]) -> BinaryCoder:
    return fit_itq(vectors, BITS)


def unit(vectors: NDArray[np.float16]) -> NDArray[np.float64]:
    wide = vectors.astype(np.float64)
    return np.asarray(wide / np.sqrt((wide**2).sum(axis=1, keepdims=True)))


def test_the_axes_are_the_principal_ones_of_the_unit_vectors_turned(
    vectors: NDArray[np.float16], itq: BinaryCoder
) -> None:
    centred = unit(vectors) - unit(vectors).mean(axis=0)
    principal = np.linalg.svd(centred)[2][:BITS]
    ((axes,), (bias,)) = itq.weights, itq.biases
    np.testing.assert_allclose(bias, -axes @ unit(vectors).mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(axes @ axes.T, np.eye(BITS), atol=1e-6)
    shared = np.linalg.svd(axes @ principal.T)[1]  # cosines of the angles between the spaces
    assert shared.min() > 0.9999


def test_a_bit_is_the_side_of_an_axis_the_lowest_bit_first(
    vectors: NDArray[np.float16], itq: BinaryCoder
) -> None:
    codes = itq.codes(vectors)
    assert codes.shape == (600, 2)
    for vector, code in zip(unit(vectors)[:50], codes.tolist(), strict=False):
        bits = [
            float(axis @ vector + bias) > 0
            for axis, bias in zip(itq.weights[0], itq.biases[0], strict=True)
        ]
        assert code == [sum(bit << n for n, bit in enumerate(bits[at : at + 8])) for at in (0, 8)]


def test_no_turn_brings_the_sample_nearer_to_the_corners(
    vectors: NDArray[np.float16], itq: BinaryCoder
) -> None:
    points = unit(vectors) @ itq.weights[0].T + itq.biases[0]
    # Points are as near to corners as the sum of their numbers' magnitudes is large.
    reached = np.abs(points).sum()
    for first, second in itertools.combinations(range(BITS), 2):
        for angle in (-0.05, 0.05):
            turned = points.copy()
            turned[:, first] = np.cos(angle) * points[:, first] - np.sin(angle) * points[:, second]
            turned[:, second] = np.sin(angle) * points[:, first] + np.cos(angle) * points[:, second]
            assert np.abs(turned).sum() < reached
    random = np.random.default_rng(1)
    for _ in range(50):
        turn = np.linalg.qr(random.standard_normal((BITS, BITS)))[0]
        assert np.abs(points @ turn).sum() < reached


def test_vectors_of_no_direction_change_nothing(
    vectors: NDArray[np.float16], itq: BinaryCoder
) -> None:
    assert fit_itq(np.vstack([vectors, np.zeros((3, 48), np.float16)]), BITS).is_same(itq)


def test_what_cannot_be_fitted_is_refused(vectors: NDArray[np.float16]) -> None:
    for bits, expected in ((12, "a multiple of 8"), (56, "1 to 48"), (0, "1 to 48")):
        with pytest.raises(ArgumentError, match=expected):
            fit_itq(vectors, bits)
    with pytest.raises(ArgumentError, match="more than 16 vectors"):
        fit_itq(vectors[:16], BITS)
