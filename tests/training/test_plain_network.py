"""The network of any spec on one device, against the package and against the two towers."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import pytest
import torch

from alexnet_deploy.model.checkpoints import Checkpoint
from alexnet_deploy.model.reference import Reference
from alexnet_deploy.model.spec import PRESETS, ModelSpec
from tests.support.networks import noise
from tests.support.plain_network import (
    inputs_from,
    plain_logits,
    random_weights,
    relative_difference,
    small_spec,
)
from training.networks import Network, network_of, set_trained
from training.plain_network import PlainNetwork
from training.towers import TwoTowers

CPU = torch.device("cpu")
WIDTH = 32  # of fc6 and fc7 in the small networks
SAME = 1e-9
"""In float64, where sums in another order differ by 1e-15 each."""


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("alexnet_deploy.model.spec", "training.towers"):
        monkeypatch.setattr(f"{module}.FC_WIDTH", WIDTH)


def small(preset: str) -> ModelSpec:
    """Return a preset of few kernels in which a pool's padding still adds a window."""
    return dataclasses.replace(
        PRESETS[preset], widths=(8, 16, 12, 12, 8), input_size=99, num_classes=7
    )


def drops(preset: str) -> dict[str, torch.Tensor]:
    """Return masks for two images, where the network's publishers have their dropout."""
    layers = ("pool5", "fc6") if preset == "torchvision" else ("fc6", "fc7")
    widths = {"pool5": int(np.prod(small(preset).layer_shapes()["pool5"]))}
    generator = torch.Generator().manual_seed(5)
    return {
        layer: torch.empty(2, widths.get(layer, WIDTH), dtype=torch.float64).bernoulli_(
            generator=generator
        )
        * 2
        for layer in layers
    }


def answers(
    network: Network, weights: Mapping[str, torch.Tensor], masks: Mapping[str, torch.Tensor]
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return a network's logits of two images and its gradients under the package's names."""

    def drop(x: torch.Tensor, layer: str, tower: int) -> torch.Tensor:
        return x * masks[layer].chunk(len(network.devices), dim=1)[tower]

    spec = network.spec
    network.double().load_state_dict(network.parts(weights))
    logits = network(inputs_from(noise(spec, 2), spec, torch.float64), drop)
    torch.autograd.backward((logits * teacher(logits)).sum())
    gradients = {name: one.grad for name, one in network.named_parameters() if one.grad is not None}
    return logits.detach(), network.merged(gradients)


def teacher(logits: torch.Tensor) -> torch.Tensor:
    """Return weights of the logits, not all the same, or a mistake in fc8 would not show."""
    return torch.linspace(-1, 1, logits.numel(), dtype=torch.float64).view_as(logits)


def assert_same_gradients(
    actual: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]
) -> None:
    assert list(actual) == list(expected)
    for name, gradient in expected.items():
        assert gradient.any(), name
        assert relative_difference(actual[name], gradient) < SAME, name


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("preset", PRESETS)
def test_logits_are_the_references(preset: str) -> None:
    spec = small(preset)
    weights = random_weights(spec, torch.float64)
    network = PlainNetwork(spec, CPU).double()
    network.load_state_dict(network.parts(weights))
    images = noise(spec, 2)
    with torch.no_grad():
        logits = network(inputs_from(images, spec, torch.float64))
    arrays = {name: tensor.numpy() for name, tensor in weights.items()}
    reference = Reference(Checkpoint(spec=spec, arrays=arrays), np.float64)
    expected = reference.run(images, "logits")["logits"]
    assert relative_difference(logits, torch.from_numpy(expected)) < SAME


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("preset", PRESETS)
def test_logits_and_gradients_are_those_of_torchs_own_functions(preset: str) -> None:
    """With dropout, which is where the network's publishers have it."""
    spec, masks = small(preset), drops(preset)
    weights = random_weights(spec, torch.float64)
    logits, gradients = answers(PlainNetwork(spec, CPU), weights, masks)
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in weights.items()}
    inputs = inputs_from(noise(spec, 2), spec, torch.float64)
    expected = plain_logits(leaves, spec, inputs, masks)
    wanted = torch.autograd.grad((expected * teacher(expected)).sum(), list(leaves.values()))
    assert relative_difference(logits, expected) < SAME
    assert_same_gradients(gradients, dict(zip(leaves, wanted, strict=True)))


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("preset", PRESETS)
def test_what_has_two_towers_trains_in_them_and_all_else_on_the_first_device(preset: str) -> None:
    meta = torch.device("meta")
    network = network_of(small(preset), (CPU, meta))
    assert isinstance(network, TwoTowers if preset == "paper" else PlainNetwork)
    devices = {parameter.device for parameter in network.parameters()}
    assert devices == ({CPU, meta} if preset == "paper" else {CPU})


def test_what_is_merged_is_contiguous_and_a_copy() -> None:
    network = PlainNetwork(small_spec(), CPU)
    merged = network.merged(dict(network.named_parameters()))
    shapes = {name: tuple(tensor.shape) for name, tensor in merged.items()}
    assert shapes == small_spec().array_shapes()
    before = {name: tensor.clone() for name, tensor in merged.items()}
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    for name, tensor in merged.items():
        assert tensor.is_contiguous()
        assert torch.equal(tensor, before[name]), name


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("preset", ["paper", "caffenet"])
def test_a_head_that_learns_alone_stores_nothing_for_other_layers(preset: str) -> None:
    network = network_of(small(preset), (CPU, CPU))
    set_trained(network, "head")
    inputs = inputs_from(noise(network.spec, 1), network.spec, torch.float32)
    assert not any(maps.requires_grad for maps in network.pool5(inputs))
    torch.autograd.backward(network(inputs).sum())
    learnt = {name for name, one in network.named_parameters() if one.grad is not None}
    assert learnt == {name for name, _ in network.named_parameters() if "fc8" in name}
