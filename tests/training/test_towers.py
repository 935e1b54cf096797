import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
import torch

from alexnet_deploy.model.spec import PRESETS, ModelSpec, preset_spec
from tests.support.networks import noise
from tests.support.plain_network import (
    inputs_from,
    plain_logits,
    random_weights,
    relative_difference,
    small_spec,
)
from training import exchange, towers
from training.towers import TwoTowers, has_two_towers
from training.weights import merge, split

CPU = torch.device("cpu")
SAME = 1e-9
"""In float64, where sums in another order differ by 1e-15 each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What two towers and the one plain network make of the same photographs and weights."""

    logits: torch.Tensor
    expected_logits: torch.Tensor
    gradients: Mapping[str, torch.Tensor]
    expected_gradients: Mapping[str, torch.Tensor]
    input_gradient: torch.Tensor
    expected_input_gradient: torch.Tensor


def _mask(spec: ModelSpec, count: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return {
        layer: 2 * torch.empty(count, 4096, dtype=torch.float64).bernoulli_(generator=generator)
        for layer in ("fc6", "fc7")
    }


def _compare(spec: ModelSpec, count: int, *, dropout: bool) -> Compared:
    weights = random_weights(spec, torch.float64)
    images = inputs_from(noise(spec, count), spec, torch.float64)
    # Not all the same, or classes that are equally wrong would hide a mistake in fc8.
    teacher = torch.linspace(-1, 1, count * spec.num_classes, dtype=torch.float64)
    teacher = teacher.view(count, spec.num_classes)
    masks = _mask(spec, count) if dropout else None

    def drop(hidden: torch.Tensor, layer: str, tower: int) -> torch.Tensor:
        return hidden * _mask(spec, count)[layer].chunk(2, dim=1)[tower]

    network = TwoTowers(spec, (CPU, CPU)).double()
    network.load_state_dict(split(weights))
    inputs = images.clone().requires_grad_()
    logits = network(inputs, drop if dropout else None)
    torch.autograd.backward((logits * teacher).sum())
    gradients = merge({name: _gradient(one) for name, one in network.named_parameters()})

    leaves = {name: tensor.requires_grad_() for name, tensor in weights.items()}
    plain_inputs = images.clone().requires_grad_()
    expected = plain_logits(leaves, spec, plain_inputs, masks)
    torch.autograd.backward((expected * teacher).sum())
    return Compared(
        logits=logits,
        expected_logits=expected,
        gradients=gradients,
        expected_gradients={name: _gradient(tensor) for name, tensor in leaves.items()},
        input_gradient=_gradient(inputs),
        expected_input_gradient=_gradient(plain_inputs),
    )


def _gradient(tensor: torch.Tensor) -> torch.Tensor:
    assert tensor.grad is not None
    return tensor.grad


def _assert_same(compared: Compared) -> None:
    assert relative_difference(compared.logits, compared.expected_logits) < SAME
    assert relative_difference(compared.input_gradient, compared.expected_input_gradient) < SAME
    assert set(compared.gradients) == set(compared.expected_gradients)
    for name, expected in compared.expected_gradients.items():
        assert compared.gradients[name].shape == expected.shape, name
        assert expected.any(), name
        assert relative_difference(compared.gradients[name], expected) < SAME, name


@pytest.mark.parametrize("dropout", [False, True])
def test_logits_and_every_gradient_are_the_merged_networks(dropout: bool) -> None:
    _assert_same(_compare(small_spec(), 3, dropout=dropout))


def test_logits_and_every_gradient_are_the_merged_networks_at_full_size() -> None:
    _assert_same(_compare(preset_spec("paper", num_classes=5), 1, dropout=False))


def test_features_then_classifier_are_the_whole_network() -> None:
    spec = small_spec()
    network = TwoTowers(spec, (CPU, CPU))
    inputs = inputs_from(noise(spec, 2), spec, torch.float32)
    with torch.no_grad():
        halves = network.pool5(inputs)
        channels, height, width = spec.layer_shapes()["pool5"]
        assert [tuple(half.shape) for half in halves] == [(2, channels * height * width // 2)] * 2
        assert torch.equal(network.classify(halves), network(inputs))


def test_the_second_device_holds_half_of_all_but_fc8() -> None:
    """Of the paper's 60,965,224 parameters; fc8 has 4,097,000 of them."""
    with torch.device("meta"):
        network = TwoTowers(preset_spec("paper"), (torch.device("meta"), torch.device("meta")))
    counts = [sum(one.numel() for one in tower.parameters()) for tower in network.towers]
    assert counts == [28_434_112 + 4_097_000, 28_434_112]


def test_operands_meet_on_one_device_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors of device "meta" have no numbers, and torch refuses to mix them with the CPU's."""
    for module in (exchange, towers):
        monkeypatch.setattr(
            module, "start_copy", lambda tensor, to: torch.zeros_like(tensor, device=to)
        )
    devices = (CPU, torch.device("meta"))
    spec = small_spec()
    network = TwoTowers(spec, devices)
    logits = network(inputs_from(noise(spec, 2), spec, torch.float32))
    torch.autograd.backward(logits.sum())
    assert logits.device == CPU
    for tower, device in zip(network.towers, devices, strict=True):
        for parameter in tower.parameters():
            assert parameter.device == _gradient(parameter).device == device


def test_towers_have_no_way_to_each_other_but_the_exchange(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        exchange.Exchange, "send", lambda self, layer, tower, tensor, to: torch.zeros_like(tensor)
    )
    spec = small_spec()
    network = TwoTowers(spec, (CPU, CPU))
    torch.autograd.backward(network(inputs_from(noise(spec, 2), spec, torch.float32)).sum())
    own = [name for name, one in network.named_parameters() if one.grad is not None]
    reached = [name for name in own if network.get_parameter(name).grad.any()]  # type: ignore[union-attr]
    # What the first tower computes from nothing has no gradient, and the second is not heard.
    expected = [
        name
        for name, _ in network.named_parameters()
        if name.startswith("towers.0") and ".other." not in name
    ]
    assert reached == expected


def test_the_papers_network_alone_has_two_towers() -> None:
    small = small_spec()
    assert small.lrn is not None
    assert has_two_towers(small)
    assert [name for name, spec in PRESETS.items() if has_two_towers(spec)] == ["paper"]
    late = dataclasses.replace(small.lrn, position="after_pool")
    assert not has_two_towers(dataclasses.replace(small, lrn=late))
    assert not has_two_towers(dataclasses.replace(small, pool_padding=(0, 0, 1)))
