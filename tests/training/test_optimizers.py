import dataclasses

import numpy as np
import pytest
import torch

from tests.support.plain_network import random_weights, small_spec
from training.optimizers import AdamW, Optimizer, PaperSGD, memory_of, optimizer_of, set_memory
from training.recipes import MODERN, PAPER, Recipe
from training.towers import TwoTowers
from training.weights import merge, split

RATES = [0.01] * 8 + [0.001] * 9 + [0.0001] * 3 + [0.02] * 10
"""Down by ten, twice, and up, which the paper's code did as well."""


def _gradients(count: int, shape: tuple[int, ...]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(11)
    return [torch.randn(shape, dtype=torch.float64, generator=generator) for _ in range(count)]


def _run(
    recipe: Recipe, groups: list[dict[str, object]], parameter: torch.nn.Parameter
) -> list[torch.Tensor]:
    rule = AdamW if recipe.update_rule == "adamw" else PaperSGD
    optimizer = rule(groups, recipe)
    weights = []
    for rate, gradient in zip(RATES, _gradients(len(RATES), (3, 4)), strict=True):
        optimizer.set_rate(rate)
        parameter.grad = gradient.clone()
        optimizer.step()
        weights.append(parameter.detach().clone())
    return weights


@pytest.mark.parametrize(("rate_factor", "decay"), [(1.0, 0.0005), (2.0, 0.0), (0.2, 0.05)])
def test_weights_move_by_the_papers_formula_while_the_rate_changes(
    rate_factor: float, decay: float
) -> None:
    """Section 5: v <- .9 v - decay e w - e g; w <- w + v, with the rate e inside v."""
    start = torch.linspace(-1, 1, 12, dtype=torch.float64).view(3, 4)
    parameter = torch.nn.Parameter(start.clone())
    group = {"params": [parameter], "weight_decay": decay, "rate_factor": rate_factor}
    actual = _run(PAPER, [group], parameter)
    w, v = start.numpy(), np.zeros((3, 4))
    for rate, gradient, weights in zip(RATES, _gradients(len(RATES), (3, 4)), actual, strict=True):
        e = rate * rate_factor
        v = 0.9 * v - decay * e * w - e * gradient.numpy()
        w = w + v
        # float64: each step rounds at 1e-16, and 30 of them add up
        np.testing.assert_allclose(weights.numpy(), w, rtol=0, atol=1e-13)


def test_the_velocity_outlives_a_division_of_the_rate() -> None:
    """One push at rate 1, then none: the way goes on as 1, .9, .81, whatever the rate is now."""
    parameter = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    recipe = dataclasses.replace(PAPER, learning_rate=1.0)
    group = {"params": [parameter], "weight_decay": 0.0, "rate_factor": 1.0}
    optimizer = PaperSGD([group], recipe)
    moved = []
    for rate, gradient in [(1.0, -1.0), (0.1, 0.0), (0.01, 0.0)]:
        before = parameter.item()
        optimizer.set_rate(rate)
        parameter.grad = torch.full((1,), gradient, dtype=torch.float64)
        optimizer.step()
        moved.append(parameter.item() - before)
    assert moved == pytest.approx([1, 0.9, 0.81], rel=1e-12)  # float64


def test_the_other_rule_is_adam_with_decay_apart_from_the_gradient() -> None:
    """Loshchilov and Hutter 2019, algorithm 2, written out."""
    start = torch.linspace(-1, 1, 12, dtype=torch.float64).view(3, 4)
    parameter = torch.nn.Parameter(start.clone())
    group = {"params": [parameter], "weight_decay": 0.01, "rate_factor": 0.5}
    actual = _run(MODERN, [group], parameter)
    w, m, s = start.numpy(), np.zeros((3, 4)), np.zeros((3, 4))
    gradients = _gradients(len(RATES), (3, 4))
    for t, (rate, gradient) in enumerate(zip(RATES, gradients, strict=True), start=1):
        e, g = 0.5 * rate, gradient.numpy()
        m, s = 0.9 * m + 0.1 * g, 0.99 * s + 0.01 * g**2
        step = (m / (1 - 0.9**t)) / (np.sqrt(s / (1 - 0.99**t)) + 1e-8)
        w = w - e * 0.01 * w - e * step
        # float64, as above; the two square roots are taken in another order
        np.testing.assert_allclose(actual[t - 1].numpy(), w, rtol=0, atol=1e-9)


def _network(seed: int = 0) -> TwoTowers:
    spec = small_spec()
    network = TwoTowers(spec, (torch.device("cpu"), torch.device("cpu")))
    network.load_state_dict(split(random_weights(spec, torch.float32, seed)))
    return network


def _step(network: TwoTowers, optimizer: Optimizer, step: int, rate: float) -> None:
    optimizer.set_rate(rate)
    for parameter in network.parameters():
        parameter.grad = parameter.detach() * (1.3 - step)
    optimizer.step()


@pytest.mark.parametrize(("recipe", "next_rate"), [(PAPER, 0.01), (PAPER, 0.001), (MODERN, 0.001)])
def test_a_memory_set_again_goes_on_to_the_same_bits(recipe: Recipe, next_rate: float) -> None:
    """Also where the rate is divided at the very step after; biases have a rate of their own."""
    network = _network()
    optimizer = optimizer_of(network, recipe, frozenset({"conv1"}), 0.1)
    assert memory_of(network, optimizer) == {}
    for step in range(2):
        _step(network, optimizer, step, 0.01)
    memory = {name: one.clone() for name, one in memory_of(network, optimizer).items()}
    resumed = _network(seed=1)
    resumed.load_state_dict(split(merge(dict(network.named_parameters()))))
    other = optimizer_of(resumed, recipe, frozenset({"conv1"}), 0.1)
    set_memory(resumed, other, memory)
    for one, its_optimizer in ((network, optimizer), (resumed, other)):
        _step(one, its_optimizer, 2, next_rate)
    for (name, expected), actual in zip(
        network.named_parameters(), resumed.parameters(), strict=True
    ):
        assert torch.equal(actual, expected), name


@pytest.mark.parametrize(
    ("recipe", "kinds"),
    [(PAPER, ("momentum_buffer",)), (MODERN, ("exp_avg", "exp_avg_sq"))],
    ids=["paper", "modern"],
)
def test_what_an_optimizer_remembers_is_merged_as_weights_are(
    recipe: Recipe, kinds: tuple[str, ...]
) -> None:
    network = _network()
    optimizer = optimizer_of(network, recipe, frozenset(), 1.0)
    set_memory(network, optimizer, {})
    assert memory_of(network, optimizer) == {}
    _step(network, optimizer, 0, 0.01)
    memory = memory_of(network, optimizer)
    assert memory.pop("rate").item() == 0.01
    assert (memory.pop("step", None) is None) == (recipe is PAPER)
    assert {name: tuple(tensor.shape) for name, tensor in memory.items()} == {
        f"{kind}.{name}": shape
        for kind in kinds
        for name, shape in small_spec().array_shapes().items()
    }


def test_biases_have_their_own_rate_and_no_decay_and_old_layers_a_lower_rate() -> None:
    network = _network()
    optimizer = optimizer_of(network, PAPER, frozenset({"conv1", "fc7"}), 0.1)
    settings = {
        id(parameter): (group["rate_factor"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    for name, parameter in network.named_parameters():
        factor = 0.1 if ".conv1." in name or ".fc7." in name else 1.0
        expected = (2 * factor, 0.0) if name.endswith("bias") else (factor, 0.0005)
        assert settings[id(parameter)] == pytest.approx(expected, rel=1e-12), name
    optimizer.set_rate(0.5)
    assert sorted({group["lr"] for group in optimizer.param_groups}) == [0.05, 0.1, 0.5, 1.0]
    assert optimizer.rate == 0.5
