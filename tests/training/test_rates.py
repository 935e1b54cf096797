import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.rates import Plateau, one_cycle
from training.recipes import MODERN, PAPER, Recipe


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
    """With the paper's initialization the network guesses for hundreds of steps."""
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
