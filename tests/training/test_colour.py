"""Mean image, covariance and components equal NumPy's own over all pixels at once, exactly."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from alexnet_deploy.errors import IncompatibleFileError
from training.colour import (
    MEAN_IMAGE_NAME,
    ColourStatistics,
    ColourSums,
    load_statistics,
    save_statistics,
)

SIZE = 5


def pictures(seed: int, count: int) -> NDArray[np.uint8]:
    """Return random pictures whose channels depend on each other."""
    random = np.random.default_rng(seed)
    grey = random.integers(0, 200, (count, SIZE, SIZE, 1))
    images: NDArray[np.uint8] = (grey + random.integers(0, 56, (count, SIZE, SIZE, 3))).astype(
        np.uint8
    )
    return images


def summed(*parts: NDArray[np.uint8]) -> ColourSums:
    sums = ColourSums(SIZE)
    for part in parts:
        sums.add(part)
    return sums


def assert_same(one: ColourStatistics, other: ColourStatistics) -> None:
    assert one.num_photographs == other.num_photographs
    np.testing.assert_array_equal(one.mean_image, other.mean_image)
    np.testing.assert_array_equal(one.covariance, other.covariance)


def test_statistics_are_numpys_mean_and_covariance() -> None:
    images = pictures(0, 7)
    statistics = summed(images).statistics()
    values = images.reshape(-1, 3).astype(np.float64)
    assert statistics.num_photographs == 7
    assert statistics.mean_image.dtype == np.float32
    np.testing.assert_array_equal(
        statistics.mean_image, images.astype(np.float64).mean(axis=0).astype(np.float32)
    )
    # np.cov rounds at each sum, ours only once: a few units of the 16th digit.
    np.testing.assert_allclose(
        statistics.covariance, np.cov(values, rowvar=False, ddof=0), rtol=1e-12
    )
    # The mean image is rounded to float32: half a unit of its 24th bit below 256.
    np.testing.assert_allclose(statistics.channel_mean, values.mean(axis=0), atol=2**-17)
    np.testing.assert_allclose(statistics.channel_std, values.std(axis=0), rtol=1e-12)


@given(
    cuts=st.lists(st.integers(0, 9), max_size=4),
    order=st.permutations(range(9)),
)
def test_neither_order_nor_grouping_changes_a_bit(cuts: list[int], order: list[int]) -> None:
    images = pictures(1, 9)
    parts = np.split(images[order], sorted(cuts))
    assert_same(summed(*parts).statistics(), summed(images).statistics())


def test_white_pictures_of_full_size_do_not_overflow() -> None:
    sums = ColourSums(256)
    sums.add(np.full((1, 256, 256, 3), 255, np.uint8))
    for name in ("num_photographs", "_pixels", "_products"):
        # As many pictures as ImageNet has.
        setattr(sums, name, getattr(sums, name) * 2**20)
    statistics = sums.statistics()
    assert statistics.num_photographs == 2**20
    assert (statistics.mean_image == 255).all()
    assert (statistics.covariance == 0).all()


def test_hundreds_of_white_pictures_at_once_do_not_overflow() -> None:
    statistics = summed(np.full((300, SIZE, SIZE, 3), 255, np.uint8)).statistics()
    assert (statistics.mean_image == 255).all()


def test_components_are_scaled_by_standard_deviations_in_grey_levels() -> None:
    # Along known directions, 3, 30 and 120 grey levels; trap 10: not 9, 900 and 14400.
    directions = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    deviations = np.array([3.0, 30.0, 120.0])
    statistics = ColourStatistics(
        mean_image=np.zeros((1, 1, 3), np.float32),
        covariance=directions @ np.diag(deviations**2) @ directions.T,
        num_photographs=1,
    )
    vectors, stds = statistics.principal_components()
    np.testing.assert_allclose(stds, deviations, rtol=1e-9)
    # A direction and its opposite are one component.
    np.testing.assert_allclose(np.abs(vectors.T @ directions), np.eye(3), atol=1e-9)


def test_shifts_drawn_along_the_components_have_the_colours_covariance() -> None:
    statistics = summed(pictures(2, 20)).statistics()
    vectors, stds = statistics.principal_components()
    factors = np.random.default_rng(3).normal(size=(200_000, 3))
    shifts = factors * stds @ vectors.T
    # 200,000 draws: a covariance is right to about 1 / sqrt(100,000) of the largest.
    np.testing.assert_allclose(
        np.cov(shifts, rowvar=False),
        statistics.covariance,
        atol=0.02 * statistics.covariance.max(),
    )


def test_grey_pictures_have_one_component_and_no_root_of_a_negative_number() -> None:
    greys = np.repeat(np.random.default_rng(4).integers(0, 256, (3, SIZE, SIZE, 1)), 3, axis=3)
    vectors, stds = summed(greys.astype(np.uint8)).statistics().principal_components()
    # The root of what rounding leaves of 0 in squared grey levels of some 10,000.
    np.testing.assert_allclose(stds[:2], 0, atol=1e-4)
    np.testing.assert_allclose(stds[2], greys.std() * np.sqrt(3), rtol=1e-9)
    np.testing.assert_allclose(np.abs(vectors[:, 2]), np.sqrt(1 / 3), rtol=1e-9)


def test_statistics_survive_their_files_which_numpy_opens(tmp_path: Path) -> None:
    statistics = summed(pictures(5, 3)).statistics()
    stored = save_statistics(statistics, tmp_path)
    assert_same(load_statistics(tmp_path, stored), statistics)
    opened = np.load(tmp_path / "mean_image.npy")
    assert (opened.shape, opened.dtype) == ((SIZE, SIZE, 3), np.float32)
    assert stored.channel_mean == tuple(statistics.channel_mean)
    assert stored.num_photographs == 3


def test_a_mean_image_with_one_bit_changed_or_missing_is_refused(tmp_path: Path) -> None:
    stored = save_statistics(summed(pictures(7, 2)).statistics(), tmp_path)
    path = tmp_path / MEAN_IMAGE_NAME
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(IncompatibleFileError, match=r"mean_image.npy: cannot be used \(its sha256"):
        load_statistics(tmp_path, stored)
    path.unlink()
    with pytest.raises(IncompatibleFileError, match="No such file"):
        load_statistics(tmp_path, stored)
