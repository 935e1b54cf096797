"""The NumPy network against published LRN vectors and a torch network."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from alexnet_deploy.model.checkpoints import Checkpoint
from alexnet_deploy.model.reference import Reference, crop, local_response_norm
from alexnet_deploy.model.spec import PRESET_NAMES, PRESETS
from tests.support.networks import noise, random_checkpoint, relative_error

# Output for a pixel that is 100 in every channel, by how many channels lie in the window.
LRN_OF_100 = {
    "paper": {3: 48.839363, 4: 46.198883, 5: 43.869134},
    "caffe": {3: 70.292666, 4: 64.349566, 5: 59.460356},
}


@pytest.mark.parametrize(("preset", "channels"), [("paper", 96), ("paper", 256), ("caffe", 96)])
def test_lrn_gives_the_published_values_up_to_the_edge_of_each_tower(
    preset: str, channels: int
) -> None:
    lrn = PRESETS[preset].lrn
    assert lrn is not None
    values = local_response_norm(np.full((channels, 1, 1), 100.0), lrn)[:, 0, 0]
    width = channels // lrn.towers
    edge = [3, 4, *[5] * (width - 4), 4, 3]
    expected = [LRN_OF_100[preset][count] for count in edge * lrn.towers]
    np.testing.assert_allclose(values, expected, rtol=1e-7)  # the vectors have eight digits


def test_channels_at_the_inner_edges_of_the_towers_see_three_and_four_neighbours() -> None:
    lrn = PRESETS["paper"].lrn
    assert lrn is not None
    for channels, middle in ((96, 48), (256, 128)):
        values = local_response_norm(np.full((channels, 1, 1), 100.0), lrn)[:, 0, 0]
        expected = [46.198883, 48.839363, 48.839363, 46.198883]
        np.testing.assert_allclose(values[middle - 2 : middle + 2], expected, rtol=1e-7)


@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_every_layer_equals_torch_in_float64(preset: str) -> None:
    torch = pytest.importorskip("torch", reason="the second oracle needs torch")
    from tests.support.torch_network import torch_layers

    checkpoint = random_checkpoint(preset)
    images = noise(checkpoint.spec, 2)
    actual = Reference(checkpoint, np.float64).run(images)
    expected = torch_layers(checkpoint, images, torch.float64)
    assert list(actual) == list(expected) == list(checkpoint.spec.layer_shapes())
    assert expected["conv1"].max() > 80  # LRN's squares must count
    for name, shape in checkpoint.spec.layer_shapes().items():
        assert actual[name].shape == (2, *shape)
        # Both sum float64 in other orders: 1e-16 a term, some thousand terms, eight layers.
        assert relative_error(actual[name], expected[name]) < 1e-12, name


def test_float32_stays_within_its_rounding_of_float64() -> None:
    checkpoint = random_checkpoint("paper")
    images = noise(checkpoint.spec, 1)
    single, double = (
        Reference(checkpoint, dtype).run(images) for dtype in (np.float32, np.float64)
    )
    assert single["logits"].dtype == np.float32
    assert relative_error(single["logits"], double["logits"]) < 1e-5


def test_a_mean_image_is_centred_on_the_crop() -> None:
    checkpoint = random_checkpoint("paper")
    rng = np.random.default_rng(3)
    mean_image = rng.uniform(0, 255, (3, 256, 256)).astype(np.float32)
    with_image = Checkpoint(
        spec=checkpoint.spec, arrays=dict(checkpoint.arrays) | {"mean_image": mean_image}
    )
    np.testing.assert_array_equal(with_image.mean(), mean_image[:, 16:240, 16:240])
    images = noise(checkpoint.spec, 1)
    centre = mean_image[:, 16:240, 16:240].transpose(1, 2, 0)
    shifted = dataclasses.replace(
        checkpoint.spec,
        preprocessing=dataclasses.replace(checkpoint.spec.preprocessing, mean=(0.0, 0.0, 0.0)),
    )
    raw = Reference(Checkpoint(spec=shifted, arrays=checkpoint.arrays), np.float64)
    by_hand = dict(raw._layers(images[0] - centre.astype(np.float64)))
    actual = Reference(with_image, np.float64).run(images)
    np.testing.assert_allclose(actual["logits"][0], by_hand["logits"], rtol=1e-9)


@pytest.mark.parametrize(
    ("preset", "size", "resized"),
    [
        ("paper", (300, 200), (384, 256)),
        ("paper", (200, 301), (256, 385)),
        ("torchvision", (500, 375), (341, 256)),
        ("caffe", (300, 200), (256, 256)),
    ],
)
def test_crop_is_the_centre_of_the_resized_photograph(
    preset: str, size: tuple[int, int], resized: tuple[int, int]
) -> None:
    spec = PRESETS[preset]
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    photograph = Image.fromarray(pixels)
    filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    whole = photograph.resize(resized, filters[spec.preprocessing.filter])
    left = round((resized[0] - spec.input_size) / 2)
    top = round((resized[1] - spec.input_size) / 2)
    box = (left, top, left + spec.input_size, top + spec.input_size)
    np.testing.assert_array_equal(crop(photograph, spec), np.asarray(whole.crop(box)))


def test_stopping_early_gives_the_same_layers_up_to_there() -> None:
    checkpoint = random_checkpoint("paper")
    images = noise(checkpoint.spec, 2)
    whole, part = Reference(checkpoint).run(images), Reference(checkpoint).run(images, "norm2")
    assert list(part) == ["conv1_pre", "conv1", "norm1", "pool1", "conv2_pre", "conv2", "norm2"]
    for name, activations in part.items():
        np.testing.assert_array_equal(activations, whole[name])
