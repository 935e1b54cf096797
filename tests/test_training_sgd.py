import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from plain_network import random_weights, small_spec

from training.recipes import MODERN, PAPER, Recipe
from training.sgd import SGD, Plateau, one_cycle, optimizer_of, set_velocity, velocity_of
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
    optimizer = SGD(groups, recipe)
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
    optimizer = SGD([group], recipe)
    moved = []
    for rate, gradient in [(1.0, -1.0), (0.1, 0.0), (0.01, 0.0)]:
        before = parameter.item()
        optimizer.set_rate(rate)
        parameter.grad = torch.full((1,), gradient, dtype=torch.float64)
        optimizer.step()
        moved.append(parameter.item() - before)
    assert moved == pytest.approx([1, 0.9, 0.81], rel=1e-12)  # float64


@pytest.mark.parametrize("nesterov", [True, False])
def test_the_other_rule_is_torchs_own(nesterov: bool) -> None:
    recipe = dataclasses.replace(MODERN, nesterov=nesterov)
    start = torch.linspace(-1, 1, 12, dtype=torch.float64).view(3, 4)
    parameter, plain = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    group = {"params": [parameter], "weight_decay": 0.01, "rate_factor": 1.0}
    actual = _run(recipe, [group], parameter)
    optimizer = torch.optim.SGD(
        [plain], lr=1.0, momentum=0.9, weight_decay=0.01, nesterov=nesterov, foreach=False
    )
    for rate, gradient, weights in zip(RATES, _gradients(len(RATES), (3, 4)), actual, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        plain.grad = gradient
        optimizer.step()
        torch.testing.assert_close(weights, plain.detach(), rtol=0, atol=1e-13)  # as above


def _network(seed: int = 0) -> TwoTowers:
    spec = small_spec()
    network = TwoTowers(spec, (torch.device("cpu"), torch.device("cpu")))
    network.load_state_dict(split(random_weights(spec, torch.float32, seed)))
    return network


def _step(network: TwoTowers, optimizer: SGD, step: int, rate: float) -> None:
    optimizer.set_rate(rate)
    for parameter in network.parameters():
        parameter.grad = parameter.detach() * (1.3 - step)
    optimizer.step()


@pytest.mark.parametrize(("recipe", "next_rate"), [(PAPER, 0.01), (PAPER, 0.001), (MODERN, 0.001)])
def test_a_velocity_set_again_goes_on_to_the_same_bits(recipe: Recipe, next_rate: float) -> None:
    """Also where the rate is divided at the very step after; biases have a rate of their own."""
    network = _network()
    optimizer = optimizer_of(network, recipe, frozenset({"conv1"}), 0.1)
    assert velocity_of(network, optimizer) == {}
    for step in range(2):
        _step(network, optimizer, step, 0.01)
    velocity = {name: one.clone() for name, one in velocity_of(network, optimizer).items()}
    resumed = _network(seed=1)
    resumed.load_state_dict(split(merge(dict(network.named_parameters()))))
    other = optimizer_of(resumed, recipe, frozenset({"conv1"}), 0.1)
    set_velocity(resumed, other, velocity)
    for one, its_optimizer in ((network, optimizer), (resumed, other)):
        _step(one, its_optimizer, 2, next_rate)
    for (name, expected), actual in zip(
        network.named_parameters(), resumed.parameters(), strict=True
    ):
        assert torch.equal(actual, expected), name


def test_velocity_is_merged_as_weights_are() -> None:
    network = _network()
    optimizer = optimizer_of(network, PAPER, frozenset(), 1.0)
    set_velocity(network, optimizer, {})
    assert velocity_of(network, optimizer) == {}
    _step(network, optimizer, 0, 0.01)
    velocity = velocity_of(network, optimizer)
    assert velocity.pop("rate").item() == 0.01
    shapes = {name: tuple(tensor.shape) for name, tensor in velocity.items()}
    assert shapes == small_spec().array_shapes()


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


def test_one_cycle_goes_up_a_line_and_down_a_cosine() -> None:
    recipe = dataclasses.replace(MODERN, num_epochs=10, learning_rate=0.4, warm_up_epochs=3.0)
    rates = [one_cycle(recipe, step, 7) for step in range(70)]
    peak = rates.index(0.4)
    assert peak == 21  # after 3 epochs of 7 steps
    assert np.diff(rates[: peak + 1]) == pytest.approx(0.4 / 22)
    assert (np.diff(rates[peak:]) < 0).all()
    # From the peak at 21 to 0 at 70: half at 45.5, a quarter of the way down the angle at 33.25.
    assert (rates[45] + rates[46]) / 2 == pytest.approx(0.2, rel=1e-3)
    assert rates[35] == pytest.approx(0.2 * (1 + np.cos(np.pi * 14 / 49)))
    assert 0 < rates[-1] < 0.001


@pytest.mark.parametrize("warm_up_epochs", [0.0, 0.5, 9.0])
def test_one_cycle_always_has_its_peak_in_the_first_half(warm_up_epochs: float) -> None:
    recipe = dataclasses.replace(MODERN, num_epochs=2, warm_up_epochs=warm_up_epochs)
    rates = [one_cycle(recipe, step, 5) for step in range(10)]
    assert rates.index(max(rates)) <= 5
    assert min(rates) > 0
    assert max(rates) <= recipe.learning_rate
    if warm_up_epochs == 0:
        assert rates[0] == recipe.learning_rate


def _plain_rates(errors: list[float], guessing: float, recipe: Recipe) -> list[float]:
    """Look back over all epochs again after each one."""
    rates, divided_at = [recipe.learning_rate], [-1]
    for last in range(len(errors)):
        lowest = [min([1.0, *errors[: epoch + 1]]) for epoch in range(last + 1)]
        improved = max([e for e in range(last + 1) if errors[e] < min([1.0, *errors[:e]])] or [-1])
        since = max(improved, divided_at[-1])
        stalls = [e for e in range(since + 1, last + 1) if lowest[e] < guessing]
        if len(stalls) >= recipe.patience and len(divided_at) <= recipe.num_divisions:
            divided_at.append(last)
        rates.append(recipe.learning_rate * 10.0 ** -(len(divided_at) - 1))
    return rates


@given(
    errors=st.lists(st.integers(0, 12).map(lambda twelfths: twelfths / 12), max_size=40),
    guessing=st.sampled_from([0.5, 0.75, 1.0]),
    patience=st.integers(1, 4),
    num_divisions=st.integers(0, 3),
)
def test_the_rate_is_divided_when_the_error_stalls(
    errors: list[float], guessing: float, patience: int, num_divisions: int
) -> None:
    recipe = dataclasses.replace(PAPER, patience=patience, num_divisions=num_divisions)
    plateau = Plateau()
    rates = [plateau.rate(recipe)]
    for error in errors:
        plateau.update(error, guessing, recipe)
        rates.append(plateau.rate(recipe))
        plateau = Plateau(**dataclasses.asdict(plateau))  # its fields are all of its state
    assert rates == pytest.approx(_plain_rates(errors, guessing, recipe))


def test_a_flat_start_does_not_count_as_a_stall() -> None:
    """With the paper's initialisation the network guesses for hundreds of steps."""
    recipe, plateau = dataclasses.replace(PAPER, patience=2), Plateau()
    for _ in range(20):
        plateau.update(0.9, 0.9, recipe)
    assert plateau.rate(recipe) == 0.01
    plateau.update(0.8, 0.9, recipe)
    rates = []
    for _ in range(9):
        plateau.update(0.8, 0.9, recipe)
        rates.append(plateau.rate(recipe))
    assert rates == pytest.approx([0.01, *[1e-3] * 2, *[1e-4] * 2, *[1e-5] * 4])
