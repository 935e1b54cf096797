import dataclasses
from collections.abc import Callable, Mapping
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
from training.devices import use_precision
from training.towers import Devices, TwoTowers, has_two_towers
from training.weights import merge, split

CPU = torch.device("cpu")
SAME = 1e-9
"""In float64, where sums in another order differ by 1e-15 each."""
# Largest relative error of the logits, and of one layer's gradient. float64 shows that both compute
# the same function. In the others a ReLU or a pool that flips after rounding changes gradients by
# far more than the rounding itself: on a CPU 4e-3 in fp32, 0.28 in bf16, whose logits are 7e-3 off.
ROUNDING: Mapping[str, tuple[float, float]] = {
    "fp64": (SAME, SAME),
    "fp32": (1e-5, 1e-2),
    "tf32": (0.1, 0.3),
    "bf16": (0.1, 0.6),
}


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


def _compare(
    spec: ModelSpec,
    count: int,
    *,
    dropout: bool = False,
    devices: Devices = (CPU, CPU),
    precision: str = "fp64",
) -> Compared:
    weights = random_weights(spec, torch.float64)
    images = inputs_from(noise(spec, count), spec, torch.float64)
    # Not all the same, or classes that are equally wrong would hide a mistake in fc8.
    teacher = torch.linspace(-1, 1, count * spec.num_classes, dtype=torch.float64)
    teacher = teacher.view(count, spec.num_classes)
    masks = _mask(spec, count) if dropout else None

    def drop(hidden: torch.Tensor, layer: str, tower: int) -> torch.Tensor:
        return hidden * _mask(spec, count)[layer].chunk(2, dim=1)[tower]

    dtype = torch.float64 if precision == "fp64" else torch.float32
    network = TwoTowers(spec, devices).to(dtype)
    network.load_state_dict(split(weights))
    inputs = images.to(devices[0], dtype).clone().requires_grad_()
    with torch.autocast(devices[0].type, torch.bfloat16, enabled=precision == "bf16"):
        logits = network(inputs, drop if dropout else None)
    torch.autograd.backward((logits * teacher.to(logits)).sum())
    gradients = merge({name: _gradient(one) for name, one in network.named_parameters()})

    leaves = {name: tensor.requires_grad_() for name, tensor in weights.items()}
    plain_inputs = images.clone().requires_grad_()
    expected = plain_logits(leaves, spec, plain_inputs, masks)
    torch.autograd.backward((expected * teacher).sum())
    return Compared(
        logits=logits.double().cpu(),
        expected_logits=expected,
        gradients={name: tensor.double().cpu() for name, tensor in gradients.items()},
        expected_gradients={name: _gradient(tensor) for name, tensor in leaves.items()},
        input_gradient=_gradient(inputs).double().cpu(),
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


@pytest.mark.parametrize(
    ("spec", "devices", "precision"),
    [
        pytest.param(small_spec(), (CPU, CPU), "fp32", id="cpu-fp32"),
        *(
            pytest.param(
                preset_spec("paper", num_classes=100),
                (torch.device("cuda", 0), torch.device("cuda", number - 1)),
                precision,
                id=f"{number}-gpu-{precision}",
                marks=pytest.mark.gpu("torch", number),
            )
            for number in (1, 2)
            for precision in ROUNDING
        ),
    ],
)
def test_up_to_rounding_they_are_the_same(
    spec: ModelSpec,
    devices: Devices,
    precision: str,
    record_property: Callable[[str, object], None],
) -> None:
    use_precision("tf32" if precision == "tf32" else "fp32", devices)
    compared = _compare(spec, 4, devices=devices, precision=precision)
    logits = relative_difference(compared.logits, compared.expected_logits)
    errors = {
        name: relative_difference(compared.gradients[name], expected)
        for name, expected in compared.expected_gradients.items()
    }
    layer = max(errors, key=errors.__getitem__)
    record_property("errors", {"logits": logits, "gradient": errors[layer], "layer": layer})
    allowed_logits, allowed_gradient = ROUNDING[precision]
    assert logits <= allowed_logits
    assert errors[layer] <= allowed_gradient, layer


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
