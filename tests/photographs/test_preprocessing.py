"""Resize and crop against the plain way: resize the whole photograph, crop the result."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from alexnet_deploy.model.spec import PRESETS, ModelSpec
from alexnet_deploy.photographs import preprocessing
from alexnet_deploy.photographs.preprocessing import preprocess

PAPER, TORCHVISION, CAFFE = PRESETS["paper"], PRESETS["torchvision"], PRESETS["caffe"]
SPECS = [PAPER, TORCHVISION, CAFFE]


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """Return an image in which any pixel that moves or changes shows."""
    grey_levels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(grey_levels)


def plain_way(photograph: Image.Image, spec: ModelSpec) -> NDArray[np.uint8]:
    """Do what torchvision's functional `resize` and `center_crop` do with a Pillow image.

    Written from `torchvision/transforms/functional.py` (`_compute_resized_output_size`,
    `center_crop`); torchvision's own code ends in the same two calls of Pillow.
    """
    width, height = photograph.size
    target, crop = spec.preprocessing.resize_to, spec.input_size
    if spec.preprocessing.resize == "squash":
        new_width, new_height = target, target
    else:
        short, long = (width, height) if width <= height else (height, width)
        new_short, new_long = target, int(target * long / short)
        new_width, new_height = (new_short, new_long) if width <= height else (new_long, new_short)
    bicubic = spec.preprocessing.filter == "bicubic"
    resample = Image.Resampling.BICUBIC if bicubic else Image.Resampling.BILINEAR
    resized = photograph.resize((new_width, new_height), resample)
    top = round((new_height - crop) / 2.0)
    left = round((new_width - crop) / 2.0)
    return np.asarray(resized.crop((left, top, left + crop, top + crop)))


@settings(max_examples=150)
@given(
    width=st.integers(1, 700),
    height=st.integers(1, 700),
    spec=st.sampled_from(SPECS),
    seed=st.integers(0, 9),
)
def test_every_pixel_equals_a_whole_resize_and_a_crop(
    width: int, height: int, spec: ModelSpec, seed: int
) -> None:
    if max(width, height) > 60 * min(width, height):  # the oracle would need too long
        width, height = max(width, height // 60), max(height, width // 60)
    photograph = noise(width, height, seed)
    np.testing.assert_array_equal(preprocess(photograph, spec), plain_way(photograph, spec))


@settings(max_examples=60)
@given(
    numerator=st.integers(1, 8),
    denominator=st.sampled_from([1, 2, 3, 4, 5, 7, 8, 16]),
    other=st.integers(100, 600),
    upright=st.booleans(),
    spec=st.sampled_from(SPECS),
)
def test_ratios_with_ties_give_equal_pixels(
    numerator: int, denominator: int, other: int, upright: bool, spec: ModelSpec
) -> None:
    side = max(1, 256 * numerator // denominator)
    photograph = noise(side, other) if upright else noise(other, side)
    np.testing.assert_array_equal(preprocess(photograph, spec), plain_way(photograph, spec))


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: str(spec.preset))
@pytest.mark.parametrize(
    "size",
    # 422x848 is one that Pillow 13 resizes vertically first; 1600x1200 exceeds _SMALL_PIXELS.
    [(1, 1), (1, 2), (256, 256), (300, 200), (200, 300), (422, 848), (1600, 1200), (90, 2000)],
)
def test_chosen_sizes_give_equal_pixels(size: tuple[int, int], spec: ModelSpec) -> None:
    photograph = noise(*size)
    np.testing.assert_array_equal(preprocess(photograph, spec), plain_way(photograph, spec))


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: str(spec.preset))
@pytest.mark.parametrize("size", [(20_000, 1), (1, 20_000), (1, 1), (65_000, 2)])
def test_extreme_shapes_come_out_at_the_input_size(size: tuple[int, int], spec: ModelSpec) -> None:
    pixels = preprocess(noise(*size), spec)
    assert pixels.shape == (spec.input_size, spec.input_size, 3)
    assert pixels.dtype == np.uint8


@pytest.mark.parametrize("spec", [PAPER, TORCHVISION], ids=lambda spec: str(spec.preset))
@pytest.mark.parametrize("size", [(3000, 11), (11, 3000), (4000, 300), (300, 4000), (977, 31)])
def test_computing_the_part_only_is_within_one_grey_level(
    size: tuple[int, int], spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    photograph = noise(*size)
    expected = plain_way(photograph, spec).astype(int)
    monkeypatch.setattr(preprocessing, "_MAX_RESIZED_PIXELS", 0)
    # One level: Pillow keeps a box's corners in single precision.
    assert np.abs(preprocess(photograph, spec) - expected).max() <= 1


def test_a_line_of_20000_px_shows_its_middle() -> None:
    line = np.zeros((1, 20_000, 3), np.uint8)
    line[:, 9_999:10_001] = 200  # each px becomes 256 wide, so these two fill the crop
    bilinear = dataclasses.replace(
        PAPER, preprocessing=dataclasses.replace(PAPER.preprocessing, filter="bilinear")
    )
    assert (preprocess(Image.fromarray(line), bilinear) == 200).all()


def test_squash_ignores_the_aspect_ratio() -> None:
    halves = np.zeros((40, 400, 3), np.uint8)
    halves[:, 200:] = 255
    pixels = preprocess(Image.fromarray(halves), CAFFE)
    assert pixels.shape == (227, 227, 3)
    assert pixels[:, :100].max() == 0
    assert pixels[:, 130:].min() == 255
