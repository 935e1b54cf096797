"""Networks that could overflow are refused, and those that are not do not overflow."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from alexnet_deploy.errors import IncompatibleFileError
from alexnet_deploy.model.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from alexnet_deploy.model.ranges import check_range, largest_sum, magnitude
from alexnet_deploy.model.reference import Reference
from tests.support.networks import noise, random_checkpoint


def scaled(checkpoint: Checkpoint, name: str, factor: float) -> Checkpoint:
    most = np.finfo(np.float32).max
    array = np.clip(checkpoint.arrays[name] * np.float64(factor), -most, most).astype(np.float32)
    return dataclasses.replace(checkpoint, arrays={**checkpoint.arrays, name: array})


def is_accepted(checkpoint: Checkpoint) -> bool:
    sums = {
        name: largest_sum(magnitude(array), array.shape)
        for name, array in checkpoint.arrays.items()
    }
    try:
        check_range(checkpoint.spec, sums, magnitude(checkpoint.mean()), "it")
    except IncompatibleFileError:
        return False
    return True


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("conv1.weight", "conv1"),
        ("conv2.bias", "conv2"),
        ("conv5.weight", "conv5"),
        ("fc6.weight.left", "fc6"),
        ("fc7.weight.right", "fc7"),
        ("fc8.weight", "fc8"),
    ],
)
def test_a_checkpoint_that_could_overflow_is_refused_with_its_layer(
    name: str, layer: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.safetensors"
    save_checkpoint(scaled(random_checkpoint("paper"), name, 1e33), path)
    with pytest.raises(IncompatibleFileError, match=rf"a\.safetensors: the numbers of {layer} "):
        load_checkpoint(path)


@pytest.mark.parametrize("beta", [0.75, -1.5, 20.0])
@pytest.mark.parametrize("k", [1e-3, 2.0])
def test_no_normalization_of_an_accepted_network_overflows(beta: float, k: float) -> None:
    checkpoint = random_checkpoint("paper")
    assert checkpoint.spec.lrn is not None
    lrn = dataclasses.replace(checkpoint.spec.lrn, beta=beta, k=k)
    spec = dataclasses.replace(checkpoint.spec, lrn=lrn)
    checkpoint = dataclasses.replace(checkpoint, spec=spec)
    images = noise(spec, 1)
    verdicts = set()
    for exponent in range(-2, 26, 3):
        network = scaled(checkpoint, "conv1.weight", 10.0**exponent)
        verdicts.add(is_accepted(network))
        if is_accepted(network):
            norm1 = Reference(network).run(images, last="norm1")["norm1"]
            exact = Reference(network, np.float64).run(images, last="norm1")["norm1"]
            assert np.linalg.norm(norm1 - exact) <= 1e-4 * np.linalg.norm(exact)
    assert False in verdicts


def test_an_ordinary_network_may_be_a_thousand_times_as_large() -> None:
    """Guard the tests above: far more than training does is accepted."""
    for preset in ("paper", "torchvision", "caffe", "caffenet"):
        checkpoint = random_checkpoint(preset)
        for name in ("conv1.weight", "conv3.weight", "fc8.weight"):
            checkpoint = scaled(checkpoint, name, 1e3)
        assert is_accepted(checkpoint)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_magnitude_is_that_of_the_largest_number_of_either_sign(dtype: type) -> None:
    assert magnitude(np.array([[0.5, -7.0], [3.0, 0.0]], dtype)) == 7
    assert magnitude(np.array([0.5, 6e4], dtype)) == np.array(6e4, dtype)
    assert magnitude(np.array([-np.inf, 0.0], dtype)) == np.inf
    assert np.isnan(magnitude(np.array([np.inf, np.nan, -1.0], dtype)))
