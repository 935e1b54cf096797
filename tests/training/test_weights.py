import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet_deploy.model.checkpoints import Checkpoint
from alexnet_deploy.model.reference import Reference
from tests.support.networks import noise
from tests.support.plain_network import inputs_from, random_weights, relative_difference, small_spec
from training.towers import TwoTowers
from training.weights import AFTER_DROPOUT, deployable, merge, split, trainable

CPU = torch.device("cpu")


def test_a_network_gives_back_what_it_was_given() -> None:
    spec = small_spec()
    weights = random_weights(spec, torch.float32)
    network = TwoTowers(spec, (CPU, CPU))
    network.load_state_dict(split(weights))
    merged = merge(dict(network.named_parameters()))
    assert list(merged) == list(weights)
    for name, tensor in weights.items():
        assert torch.equal(merged[name], tensor), name
        assert merged[name].is_contiguous()
        assert not merged[name].requires_grad
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    assert all(torch.equal(merged[name], tensor) for name, tensor in weights.items())


def test_rows_and_columns_of_a_matrix_go_to_the_towers_in_order() -> None:
    """fc7[row, column] = 4096 * row + column: where each quarter lies can be read off it."""
    weights = random_weights(small_spec(), torch.float32)
    numbers = torch.arange(4096 * 4096, dtype=torch.float64).view(4096, 4096)
    parts = split(weights | {"fc7.weight": numbers})
    corners = {
        name: part[0, 0].item()
        for name, part in parts.items()
        if ".fc7." in name and part.dim() == 2
    }
    half = 2048
    assert corners == {
        "towers.0.fc7.own.weight": 0,
        "towers.0.fc7.other.weight": half,
        "towers.1.fc7.own.weight": half * 4096 + half,
        "towers.1.fc7.other.weight": half * 4096,
    }


@settings(max_examples=25)
@given(rate=st.sampled_from([0.5, 0.75, 0.0]), seed=st.integers(0, 2**31))
def test_deployable_and_trainable_undo_each_other_where_the_scale_is_a_power_of_two(
    rate: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    merged = {
        name: torch.from_numpy(random.standard_normal((4, 3), np.float32))
        for name in ("conv1.weight", "fc6.weight", "fc7.weight", "fc7.bias", "fc8.weight")
    }
    arrays = deployable(merged, 1 - rate, AFTER_DROPOUT)
    back = trainable(arrays, 1 - rate, AFTER_DROPOUT)
    assert list(back) == list(merged)
    for name, tensor in merged.items():
        assert torch.equal(back[name], tensor), name
        scaled = name in ("fc7.weight", "fc8.weight")
        assert np.array_equal(arrays[name], tensor.numpy() * np.float32(1 - rate if scaled else 1))
        assert arrays[name].dtype == np.float32


def test_trainable_weights_share_no_memory_with_the_checkpoint() -> None:
    arrays = {
        "conv1.weight": np.ones((2, 2), np.float32),
        "fc8.weight": np.ones((2, 2), np.float32),
    }
    for array in arrays.values():
        array.flags.writeable = False  # as arrays of a mapped file are
    for tensor in trainable(arrays, 1.0, AFTER_DROPOUT).values():
        tensor.zero_()
    assert all(array.all() for array in arrays.values())


@pytest.mark.parametrize("dropout_scale", [0.5, 1.0])
def test_halved_outputs_in_use_are_the_package_network_with_the_stored_matrices(
    dropout_scale: float,
) -> None:
    """Section 4.2's form for use against the package, which scales nothing: the conversion."""
    spec = small_spec()
    trained = random_weights(spec, torch.float32)
    network = TwoTowers(spec, (CPU, CPU)).double()
    network.load_state_dict(split(trained))
    images = noise(spec, 2)
    with torch.no_grad():
        logits = network(
            inputs_from(images, spec, torch.float64),
            lambda hidden, layer, tower: hidden * dropout_scale,
        )
    stored = Checkpoint(spec=spec, arrays=deployable(trained, dropout_scale, AFTER_DROPOUT))
    expected = Reference(stored, np.float64).run(images, "logits")["logits"]
    # float64 sums in another order, 1e-15 each
    assert relative_difference(logits, torch.from_numpy(expected)) < 1e-9
