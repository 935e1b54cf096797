import dataclasses

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from alexnet_deploy.model.spec import ModelSpec, preset_spec
from alexnet_deploy.photographs.preprocessing import preprocess
from training.augmentation import Augmentation, ColourComponents
from training.pictures import PAPER_FORM, square_picture
from training.recipes import MODERN, PAPER, Recipe

CPU = torch.device("cpu")
SEED = 7
IMAGENET = ColourComponents(
    vectors=torch.tensor(
        [
            [0.41796, -0.71258, -0.56351],
            [-0.81698, -0.02354, -0.57618],
            [0.39731, 0.70120, -0.59200],
        ]
    ),
    stds=torch.tensor([19.7208, 37.0939, 121.7801]),
)
"""As stored with cuda-convnet2's ImageNet batches: eigenvectors in columns, grey levels."""

PLAIN = dataclasses.replace(PAPER, colour_std=0.0)
WINDOWS = dataclasses.replace(MODERN, colour_std=0.0, colour_jitter=0.0, max_rotation=0.0)


def _spec(size: int, *, mean: float = 0.0, std: float = 1.0) -> ModelSpec:
    """Return a network whose inputs are, unless told otherwise, the pixels themselves."""
    spec = preset_spec("paper", num_classes=2)
    preprocessing = dataclasses.replace(spec.preprocessing, mean=(mean,) * 3, std=(std,) * 3)
    return dataclasses.replace(spec, input_size=size, preprocessing=preprocessing)


def _augmentation(
    size: int, recipe: Recipe, mean_image: torch.Tensor | None = None
) -> Augmentation:
    return Augmentation(_spec(size), recipe, IMAGENET, mean_image, CPU)


def _train(augmentation: Augmentation, pictures: torch.Tensor, seed: int = SEED) -> torch.Tensor:
    """Return the inputs as (N, I, I, 3)."""
    inputs = augmentation.for_training(pictures, torch.Generator().manual_seed(seed))
    return inputs.permute(0, 2, 3, 1)


def _noise(count: int, side: int) -> torch.Tensor:
    random = np.random.default_rng(1)
    return torch.from_numpy(random.integers(0, 256, (count, side, side, 3), np.uint8))


def _coordinates(count: int, side: int) -> torch.Tensor:
    """Return pictures whose red says the column, green the row, blue the picture (mod 256)."""
    picture = torch.empty(count, side, side, 3, dtype=torch.uint8)
    picture[..., 0] = torch.arange(side, dtype=torch.uint8)
    picture[..., 1] = torch.arange(side, dtype=torch.uint8)[:, None]
    picture[..., 2] = torch.arange(count)[:, None, None] % 256
    return picture


def test_each_crop_is_one_window_of_33_by_33_or_its_mirror() -> None:
    pictures = _noise(3, 256)
    crops = _train(_augmentation(224, PLAIN), pictures).to(torch.uint8)
    for picture, crop in zip(pictures, crops, strict=True):
        found = []
        for mirrored in (False, True):
            wanted = crop.flip(1) if mirrored else crop
            for top in range(33):
                for left in range(33):
                    window = picture[top : top + 224, left : left + 224]
                    # Most are out after 8 pixels.
                    if torch.equal(window[0, :8], wanted[0, :8]) and torch.equal(window, wanted):
                        found.append((top, left, mirrored))
        assert len(found) == 1


def test_all_places_and_both_mirrors_are_equally_likely() -> None:
    count, side = 1_500, 67
    crops = _train(_augmentation(side, PLAIN), _coordinates(count, side + 32)).long()
    tops, columns = crops[:, 0, 0, 1], crops[:, 0, :, 0]
    mirrored = columns[:, 0] > columns[:, -1]
    lefts = torch.minimum(columns[:, 0], columns[:, -1])
    steps = torch.arange(side)
    expected_columns = lefts[:, None] + torch.where(mirrored[:, None], steps.flip(0), steps)
    assert torch.equal(crops[..., 0], expected_columns[:, None, :].expand(-1, side, -1))
    expected_rows = tops[:, None] + steps
    assert torch.equal(crops[..., 1], expected_rows[:, :, None].expand(-1, -1, side))
    assert torch.equal(crops[:, 5, 5, 2], torch.arange(count) % 256)  # its own picture's
    for places in (tops, lefts):
        counts = torch.bincount(places, minlength=33)
        assert len(counts) == 33
        assert counts.all()
        # Chi-square with 32 degrees of freedom: mean 32, standard deviation 8.
        assert ((counts - count / 33) ** 2 / (count / 33)).sum() < 32 + 5 * 8
    # Five standard deviations of a fair coin, and of the correlation of what is independent.
    assert abs(int(mirrored.sum()) - count / 2) < 5 * count**0.5 / 2
    together = np.corrcoef(torch.stack([tops, lefts, mirrored.long()]).numpy())
    assert np.abs(together - np.eye(3)).max() < 5 / count**0.5


def test_colour_shifts_are_the_same_for_all_pixels_of_a_picture() -> None:
    pictures = _noise(8, 99)
    plain = _train(_augmentation(67, PLAIN), pictures)
    shifts = _train(_augmentation(67, PAPER), pictures) - plain
    # float32 near 255 is exact to 1.5e-5
    assert (shifts.amax((1, 2)) - shifts.amin((1, 2))).max() < 1e-4
    assert len({round(shift, 2) for shift in shifts[:, 0, 0, 0].tolist()}) > 4


def test_colour_shifts_have_a_hundredth_of_the_pixels_covariance() -> None:
    """Section 4.1 with square roots: shifts have the covariance 0.1^2 sum of lambda p p^T."""
    count = 4_000
    grey = torch.full((count, 67, 67, 3), 128, dtype=torch.uint8)
    parts = [
        _train(_augmentation(67, PAPER), part, seed)[:, 0, 0] - 128
        for seed, part in enumerate(grey.chunk(8))
    ]
    shifts = torch.cat(parts).double().numpy()
    vectors, stds = IMAGENET.vectors.double().numpy(), IMAGENET.stds.double().numpy()
    expected = 0.01 * (vectors * stds**2) @ vectors.T
    diagonal = expected.diagonal()
    # Of a Gaussian's sample covariance, five standard deviations; the mean likewise.
    bound = 5 * np.sqrt((np.outer(diagonal, diagonal) + expected**2) / count)
    assert (np.abs(np.cov(shifts.T) - expected) < bound).all()
    assert (np.abs(shifts.mean(0)) < 5 * np.sqrt(diagonal / count)).all()
    assert np.std(shifts @ vectors[:, 2]) == pytest.approx(12.178, rel=0.06)  # of 121.78


def _windows(crops: NDArray[np.float64], axis: int) -> tuple[NDArray[np.float64], ...]:
    """Return start and length, px of the picture, of windows in `_coordinates`, along an axis.

    Sample j of I lies at start + (j + 1/2) length / I - 1/2, since pixel 0 spans 0..1; a mirrored
    window has a length below 0. Those that a filter would take beyond the outermost pixels'
    centres stay there.
    """
    size = crops.shape[1]
    lines = crops[:, size // 2, :, 0] if axis == 1 else crops[:, :, size // 2, 1]
    step = (lines[:, -10] - lines[:, 9]) / (size - 19)
    start = lines[:, 9] - 9.5 * step + 0.5
    return start, step * size


def test_resized_windows_lie_inside_and_have_the_areas_and_shapes_asked_for() -> None:
    count, size, side = 300, 112, 128
    crops = _train(_augmentation(size, WINDOWS), _coordinates(count, side)).double().numpy()
    (left, width), (top, height) = _windows(crops, 1), _windows(crops, 0)
    steps = np.arange(size) + 0.5
    # float32 places in -1..1 are exact to 1e-5 px, grey levels as well
    columns = left[:, None] + steps * width[:, None] / size - 0.5
    rows = top[:, None] + steps * height[:, None] / size - 0.5
    assert np.abs(crops[..., 0] - np.clip(columns, 0, side - 1)[:, None, :]).max() < 2e-3
    assert np.abs(crops[..., 1] - np.clip(rows, 0, side - 1)[:, :, None]).max() < 2e-3
    for start, length in ((left, width), (top, height)):
        ends = np.stack([start, start + length])
        assert ends.min() > -2e-3
        assert ends.max() < side + 2e-3
    area, aspect = np.abs(width) * height / side**2, np.abs(width) / height
    assert MODERN.min_crop_area - 1e-4 < area.min() < MODERN.min_crop_area + 0.03
    assert 0.95 < area.max() < 1 + 1e-4
    assert 0.75 - 1e-4 < aspect.min() < 0.78
    assert 1.30 < aspect.max() < 4 / 3 + 1e-4
    assert (height > 0).all()
    assert abs((width < 0).mean() - 0.5) < 5 * 0.5 / count**0.5
    # Where a window is narrow it is anywhere: its centre is spread evenly over what is left.
    places = (left + width / 2 - np.abs(width) / 2) / (side - np.abs(width))
    narrow = places[np.abs(width) < 0.9 * side]
    assert abs(narrow.mean() - 0.5) < 5 / (12 * len(narrow)) ** 0.5


def test_turned_windows_keep_their_right_angles_and_turn_as_far_as_asked_for() -> None:
    """Seen in the middle, where red and green grow evenly: how the window's axes lie."""
    count, size, side, degrees = 300, 112, 128, 20.0
    turned = dataclasses.replace(WINDOWS, max_rotation=degrees, min_crop_area=0.25)
    crops = _train(_augmentation(size, turned), _coordinates(count, side)).double().numpy()
    near, far = size // 2 - 8, size // 2 + 8
    across = crops[:, size // 2, far, :2] - crops[:, size // 2, near, :2]
    down = crops[:, far, size // 2, :2] - crops[:, near, size // 2, :2]
    # 16 steps of half a pixel or more, exact to 1e-3 px of 128
    np.testing.assert_allclose((across * down).sum(1), 0, atol=0.05)
    angles = np.degrees(np.arctan2(-down[:, 0], down[:, 1]))
    assert -degrees - 0.1 < angles.min() < -0.9 * degrees
    assert 0.9 * degrees < angles.max() < degrees + 0.1
    assert abs(angles.mean()) < 5 * degrees / (3 * count) ** 0.5
    area = np.linalg.norm(across, axis=1) * np.linalg.norm(down, axis=1) * (size / 16 / side) ** 2
    assert 0.25 - 1e-3 < area.min() < 0.29
    assert 0.95 < area.max() < 1 + 1e-3
    assert crops[..., :2].min() >= 0  # beyond the edges is the picture again, nothing else
    assert crops[..., :2].max() <= side - 1


def test_jitter_scales_saturation_contrast_and_brightness() -> None:
    count, most = 400, 0.4
    jittered = dataclasses.replace(PLAIN, colour_jitter=most)
    picture = torch.zeros(count, 64, 64, 3, dtype=torch.uint8)
    picture[:, :, :32] = torch.tensor([120, 60, 90], dtype=torch.uint8)  # grey 90
    picture[:, :, 32:] = torch.tensor([30, 30, 30], dtype=torch.uint8)
    crops = _train(_augmentation(64, jittered), picture).double().numpy()
    dark_first = crops[:, 0, 0, 0] == crops[:, 0, 0, 1]
    left, right = crops[:, 0, 0], crops[:, 0, -1]
    colour = np.where(dark_first[:, None], right, left)
    dark = np.where(dark_first[:, None], left, right)
    contrast = (colour.mean(1) - dark.mean(1)) / 60
    saturation = (colour[:, 0] - colour[:, 1]) / 60 / contrast
    brightness = (colour.mean(1) + dark.mean(1)) / 120
    for factors in (saturation, contrast, brightness):
        assert 1 - most - 1e-4 < factors.min() < 1 - 0.9 * most
        assert 1 + 0.9 * most < factors.max() < 1 + most + 1e-4
    # Each is drawn by itself, and for each picture.
    correlations = np.corrcoef([saturation, contrast, brightness])
    assert np.abs(correlations - np.eye(3)).max() < 5 / count**0.5


def test_resized_pixels_are_bilinear() -> None:
    """Under the same seed the windows are those that `_coordinates` shows."""
    count, size, side = 6, 112, 128
    augmentation = _augmentation(size, WINDOWS)
    crops = _train(augmentation, _coordinates(count, side)).double().numpy()
    pictures = _noise(count, side)
    actual = _train(augmentation, pictures).double().numpy()
    for picture, crop, pixels in zip(pictures.double().numpy(), crops, actual, strict=True):
        x, y = crop[size // 2, :, 0], crop[:, size // 2, 1]
        left, top = np.minimum(x.astype(int), side - 2), np.minimum(y.astype(int), side - 2)
        right_share, low_share = (x - left)[None, :, None], (y - top)[:, None, None]
        upper = picture[top][:, left] * (1 - right_share) + picture[top][:, left + 1] * right_share
        lower = (
            picture[top + 1][:, left] * (1 - right_share)
            + picture[top + 1][:, left + 1] * right_share
        )
        expected = upper * (1 - low_share) + lower * low_share
        # Places are known to 1e-5 px of 128, and neighbours differ by up to 255 grey levels.
        np.testing.assert_allclose(pixels, expected, rtol=0, atol=0.02)


@pytest.mark.parametrize("size", [(256, 256), (400, 300), (301, 467), (300, 1001), (513, 300)])
def test_validation_sees_what_the_package_would_show_the_network(size: tuple[int, int]) -> None:
    random = np.random.default_rng(2)
    photograph = Image.fromarray(random.integers(0, 256, (size[1], size[0], 3), np.uint8))
    picture = torch.from_numpy(square_picture(photograph, PAPER_FORM).copy())
    inputs = _augmentation(224, PLAIN).for_validation(picture[None])
    expected = preprocess(photograph, _spec(224))
    assert np.array_equal(inputs[0].permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("recipe", [PLAIN, WINDOWS])
def test_mean_and_std_of_the_spec_make_the_input(recipe: Recipe) -> None:
    pictures = _noise(2, 99)
    spec = _spec(67, mean=100.0, std=50.0)
    augmentation = Augmentation(spec, recipe, IMAGENET, None, CPU)
    plain = _augmentation(67, recipe)
    # float32 of numbers up to 255, a few roundings
    torch.testing.assert_close(
        _train(augmentation, pictures), (_train(plain, pictures) - 100) / 50, rtol=0, atol=1e-5
    )
    torch.testing.assert_close(
        augmentation.for_validation(pictures), (plain.for_validation(pictures) - 100) / 50
    )


@pytest.mark.parametrize("recipe", [PLAIN, WINDOWS])
def test_the_centre_of_the_mean_image_is_subtracted_wherever_the_crop_lies(
    recipe: Recipe,
) -> None:
    pictures = _noise(4, 99)
    mean_image = torch.rand(99, 99, 3, generator=torch.Generator().manual_seed(0)) * 255
    augmentation, plain = _augmentation(67, recipe, mean_image), _augmentation(67, recipe)
    expected = mean_image[16:83, 16:83].expand(4, -1, -1, -1)
    taken = _train(plain, pictures) - _train(augmentation, pictures)
    assert (taken - expected).abs().max() < 1e-4  # float32 of numbers up to 255
    whole = plain.for_validation(pictures) - augmentation.for_validation(pictures)
    assert (whole.permute(0, 2, 3, 1) - expected).abs().max() < 1e-4


@pytest.mark.parametrize("recipe", [PAPER, MODERN])
def test_a_seed_gives_the_same_inputs_and_another_seed_others(recipe: Recipe) -> None:
    pictures = _noise(4, 99)
    before = pictures.clone()
    augmentation = _augmentation(67, recipe)
    first = _train(augmentation, pictures)
    augmentation.for_validation(pictures)
    assert torch.equal(_train(augmentation, pictures), first)
    assert not torch.equal(_train(augmentation, pictures, SEED + 1), first)
    assert torch.equal(pictures, before)


@pytest.mark.parametrize("recipe", [PAPER, MODERN])
def test_inputs_are_channels_last(recipe: Recipe) -> None:
    augmentation = _augmentation(67, recipe)
    pictures = _noise(2, 99)
    for inputs in (
        augmentation.for_training(pictures, torch.Generator()),
        augmentation.for_validation(pictures),
    ):
        assert inputs.shape == (2, 3, 67, 67)
        assert inputs.dtype == torch.float32
        assert inputs.is_contiguous(memory_format=torch.channels_last)
