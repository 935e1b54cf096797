import dataclasses
import math

import numpy as np
import pytest
import torch

from alexnet_deploy.model.spec import preset_spec
from tests.support.plain_network import small_spec
from training.augmentation import Augmentation, ColourComponents
from training.initialization import initial_weights
from training.optimizers import optimizer_of
from training.photographs import PhotographBatch
from training.recipes import MODERN, PAPER, Recipe
from training.towers import TwoTowers
from training.trainer import Trainer
from training.weights import split

CPU = torch.device("cpu")

# The 2012 code's initW and initB (layers-145.cfg).
STDS_2012 = {
    **dict.fromkeys(("conv1", "conv2", "fc6", "fc7", "fc8"), 0.01),
    **dict.fromkeys(("conv3", "conv4", "conv5"), 0.03),
}
BIASES_2012 = {
    **dict.fromkeys(("conv1", "conv3", "fc8"), 0.0),
    **dict.fromkeys(("conv2", "conv4", "conv5", "fc6", "fc7"), 1.0),
}
# sqrt(2 / inputs of a kernel), for the small network's 8, 16, 12, 12, 8 kernels in two towers;
# normalized small activations are multiplied by 2^-.75. fc6 to fc8: see `initialization`.
STDS_HE = {
    "conv1": math.sqrt(2 / (3 * 121)),
    "conv2": math.sqrt(2 / (4 * 25)) * 2**0.75,
    "conv3": math.sqrt(2 / (16 * 9)) * 2**0.75,
    "conv4": math.sqrt(2 / (6 * 9)),
    "conv5": math.sqrt(2 / (6 * 9)),
    "fc6": 0.005,
    "fc7": 0.005,
    "fc8": 0.01,
}


@pytest.mark.parametrize(
    ("recipe", "stds", "biases"),
    [(PAPER, STDS_2012, BIASES_2012), (MODERN, STDS_HE, dict.fromkeys(STDS_HE, 0.0))],
    ids=["paper", "modern"],
)
def test_weights_are_gaussian_and_biases_constant(
    recipe: Recipe, stds: dict[str, float], biases: dict[str, float]
) -> None:
    weights = initial_weights(small_spec(num_classes=101), recipe, seed=0)
    assert {name: tuple(one.shape) for name, one in weights.items()} == small_spec(
        num_classes=101
    ).array_shapes()
    for layer, std in stds.items():
        assert (weights[f"{layer}.bias"] == biases[layer]).all(), layer
        drawn = weights[f"{layer}.weight"].double() / std
        count = drawn.numel()
        # Five standard deviations of the first four moments of as many Gaussian numbers.
        assert abs(drawn.mean()) < 5 / count**0.5, layer
        assert abs(drawn.square().mean() - 1) < 5 * (2 / count) ** 0.5, layer
        assert abs((drawn**4).mean() - 3) < 5 * (96 / count) ** 0.5, layer


def test_kernels_that_see_raw_pixels_are_as_much_smaller() -> None:
    usual = initial_weights(small_spec(), MODERN, seed=0)
    raw = initial_weights(small_spec(), MODERN.with_options({"input_std": 1.0}), seed=0)
    for name, tensor in usual.items():
        factor = 58 if name == "conv1.weight" else 1
        torch.testing.assert_close(raw[name] * factor, tensor)


@pytest.mark.parametrize("recipe", [PAPER, MODERN], ids=["paper", "modern"])
def test_the_first_loss_is_that_of_guessing(recipe: Recipe) -> None:
    """At full size, on noise, each class once.

    By the 2012 constants biases of 1 alone spread the logits by 0.4, the same for all photographs,
    and the mean loss is about ln K + 0.4^2 / 2.
    """
    classes = 4
    spec = preset_spec("paper", num_classes=classes)
    preprocessing = dataclasses.replace(spec.preprocessing, std=(recipe.input_std,) * 3)
    spec = dataclasses.replace(spec, preprocessing=preprocessing)
    network = TwoTowers(spec, (CPU, CPU))
    network.load_state_dict(split(initial_weights(spec, recipe, seed=0)))
    components = ColourComponents(vectors=torch.eye(3), stds=torch.ones(3))
    trainer = Trainer(
        network,
        recipe,
        optimizer_of(network, recipe, frozenset(), 1.0),
        Augmentation(spec, recipe, components, None, CPU),
        precision="fp32",
        seed=0,
    )
    random = np.random.default_rng(0)
    images = torch.from_numpy(random.integers(0, 256, (classes, 256, 256, 3), np.uint8))
    batch = PhotographBatch(images=images, labels=torch.arange(classes))
    assert trainer.validate([batch]).loss == pytest.approx(math.log(classes), abs=0.2)
