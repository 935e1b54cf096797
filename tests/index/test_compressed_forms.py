"""What the compressed forms rank by, against plain arithmetic on all axes."""

import numpy as np
import pytest
from numpy.typing import NDArray

from alexnet_deploy.index.compressed_forms import COMPRESSED_FORMS, hamming_distances
from alexnet_deploy.inference.retrieval_forms import Form

FORMS = {form.name: form for form in COMPRESSED_FORMS}
NUM_VECTORS, DIMENSION = 600, 520
EVERY = np.arange(NUM_VECTORS)


@pytest.fixture(scope="module")
def vectors() -> NDArray[np.float16]:
    """Positive, as FC7 is, and one of zeros."""
    random = np.random.default_rng(11)
    spread = 0.97 ** np.arange(DIMENSION)
    rows = np.maximum(random.standard_normal((NUM_VECTORS, DIMENSION)) * spread + 0.1, 0)
    rows[9] = 0
    return rows.astype(np.float16)


@pytest.fixture(scope="module")
def points(vectors: NDArray[np.float16]) -> NDArray[np.float64]:
    """Return the unit vectors on all principal axes, the first one first."""
    wide = vectors.astype(np.float64)
    lengths = np.sqrt((wide**2).sum(axis=1, keepdims=True))
    unit = wide / np.where(lengths > 0, lengths, 1)
    sample = unit[lengths[:, 0] > 0]
    axes = np.linalg.svd(sample - sample.mean(axis=0), full_matrices=False)[2]
    return np.asarray((unit - sample.mean(axis=0)) @ axes.T)


def squared(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the squares of all distances, less what is the same for a query's."""
    squares = (rows**2).sum(axis=1)
    return np.asarray(squares - 2 * rows @ rows.T)


@pytest.mark.parametrize("num_axes", [64, 128])
def test_pca_ranks_by_the_first_principal_axes(
    vectors: NDArray[np.float16], points: NDArray[np.float64], num_axes: int
) -> None:
    form, first = FORMS[f"PCA {num_axes}"], points[:, :num_axes]
    found = form.fit(vectors)(vectors)(EVERY)
    assert np.abs(found - squared(first)).max() < 0.02
    assert form.num_bytes(DIMENSION) == 4 * num_axes == 4 * form.rank


def test_8_bits_rank_as_the_whole_vectors_within_their_steps(
    vectors: NDArray[np.float16], points: NDArray[np.float64]
) -> None:
    form = FORMS["PCA 128, 8 bits"]
    rest = np.sqrt((points[:, 128:] ** 2).sum(axis=1))
    found = form.fit(vectors)(vectors)(EVERY)
    assert np.abs(found - squared(np.column_stack([points[:, :128], rest]))).max() < 0.05
    assert form.num_bytes(DIMENSION) == 129


def test_codes_are_near_where_vectors_are(
    vectors: NDArray[np.float16], points: NDArray[np.float64]
) -> None:
    found = FORMS["ITQ 64 bits"].fit(vectors)(vectors)(EVERY)
    assert set(np.unique(found)) <= set(range(65))
    apart = squared(points)
    assert np.corrcoef(found[0, 1:], apart[0, 1:])[0, 1] > 0.5
    codes = {name: form for name, form in FORMS.items() if name.startswith("ITQ")}
    assert [form.num_bytes(DIMENSION) for form in codes.values()] == [8, 16, 32, 64]


def test_hamming_distances_are_counted() -> None:
    codes = np.random.default_rng(2).integers(256, size=(30, 5), dtype=np.uint8)
    found = hamming_distances(codes)(np.array([3, 7]))
    for row, query in zip(found, (3, 7), strict=True):
        pairs = [zip(codes[query].tolist(), code.tolist(), strict=True) for code in codes]
        assert row.tolist() == [sum((a ^ b).bit_count() for a, b in pair) for pair in pairs]


@pytest.mark.parametrize("form", [form for form in COMPRESSED_FORMS if form.rank == 64])
def test_a_form_is_fitted_by_one_vector_more_than_its_axes(
    vectors: NDArray[np.float16], form: Form
) -> None:
    fitted = form.fit(vectors[10 : 11 + form.rank])
    assert fitted(vectors[:3])(np.arange(2)).shape == (2, 3)
