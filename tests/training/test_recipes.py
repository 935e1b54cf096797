import dataclasses
import json
from typing import Any

import pytest

from alexnet_deploy.errors import UsageError
from alexnet_deploy.files.records import read_record
from training.recipes import MODERN, PAPER, RECIPES, Recipe


def test_the_papers_recipe_has_the_papers_constants() -> None:
    """Krizhevsky et al. 2012, sections 2, 4 and 5."""
    constants = {
        "num_epochs": 90,
        "batch_size": 128,
        "momentum": 0.9,
        "weight_decay": 0.0005,
        "learning_rate": 0.01,
        "num_divisions": 3,
        "dropout_rate": 0.5,
        "colour_std": 0.1,
        "input_std": 1.0,
        "subtract_mean_image": True,
        "update_rule": "paper",
        "bias_rate_factor": 2.0,  # of the 2012 code
        "label_smoothing": 0.0,
    }
    assert {name: getattr(PAPER, name) for name in constants} == constants
    assert (PAPER.initialization, PAPER.crop, PAPER.dropout, PAPER.schedule) == (
        *("gaussian_2012", "positions", "paper", "plateau"),
    )


def test_recipes_go_by_their_names() -> None:
    assert {name: recipe.name for name, recipe in RECIPES.items()} == {
        "paper": "paper",
        "modern": "modern",
    }


@pytest.mark.parametrize("recipe", [PAPER, MODERN])
def test_json_gives_the_same_recipe_back(recipe: Recipe) -> None:
    changed = recipe.with_options({"learning_rate": 0.1 + 0.2, "num_epochs": 3})
    text = json.dumps(dataclasses.asdict(changed))
    assert read_record(Recipe, text, "run.json", "begin again") == changed


def test_options_replace_fields_and_leave_the_others() -> None:
    changed = PAPER.with_options({"num_epochs": 2, "learning_rate": 1})
    assert changed == dataclasses.replace(PAPER, num_epochs=2, learning_rate=1.0)
    assert type(changed.learning_rate) is float
    assert PAPER.with_options({}) == PAPER


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("num_epochs", 0, "at least 1"),
        ("num_epochs", 1.5, "a whole number"),
        ("num_epochs", True, "a whole number"),
        ("batch_size", "many", "a whole number"),
        ("learning_rate", 0.0, "more than 0"),
        ("learning_rate", float("nan"), "a finite number"),
        ("learning_rate", float("inf"), "a finite number"),
        ("input_std", 0, "more than 0"),
        ("bias_rate_factor", 0, "more than 0"),
        ("weight_decay", -0.1, "at least 0"),
        ("momentum", 1.0, "less than 1"),
        ("dropout_rate", 1.0, "less than 1"),
        ("label_smoothing", -0.1, "at least 0"),
        ("min_crop_area", 0.0, "more than 0"),
        ("min_crop_area", 0.8, "at most 0.75"),
        ("crop", "anywhere", "one of positions, resized"),
        ("dropout", "some", "one of paper, inverted"),
        ("schedule", "never", "one of plateau, one_cycle"),
        ("initialization", "zeros", "one of gaussian_2012, he"),
        ("subtract_mean_image", 1, "true or false"),
        ("update_rule", "adam", "one of paper, adamw"),
        ("second_momentum", 1.0, "less than 1"),
    ],
)
def test_values_that_cannot_be_trained_with_are_refused(
    field: str, value: Any, expected: str
) -> None:
    with pytest.raises(UsageError, match=f"{field} is .*{expected}"):
        MODERN.with_options({field: value})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dropout_rate": 0.3}, "dropout_rate is 0.3, expected 0.5"),
        ({"patience": 0}, "patience is 0, expected 1 or more"),
    ],
)
def test_values_that_do_not_go_together_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PAPER.with_options(options)


@pytest.mark.parametrize(
    ("recipe", "changes", "message"),
    [
        (PAPER, {"max_rotation": 12}, "max_rotation has no effect with crop=positions.*crop=res"),
        (PAPER, {"min_crop_area": 0.3}, "min_crop_area has no effect with crop=positions"),
        (PAPER, {"warm_up_epochs": 1}, "warm_up_epochs has no effect with schedule=plateau"),
        (MODERN, {"patience": 3}, "patience has no effect with schedule=one_cycle"),
        (PAPER, {"update_rule": "adamw"}, "second_momentum is 0.0, expected more than 0"),
        (PAPER, {"second_momentum": 0.9}, "second_momentum has no effect with update_rule=paper"),
    ],
)
def test_what_would_be_ignored_is_refused(
    recipe: Recipe, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        recipe.with_options(changes)


def test_a_field_and_what_it_needs_are_taken_together() -> None:
    changed = PAPER.with_options({"crop": "resized", "max_rotation": 12, "min_crop_area": 0.3})
    assert changed.max_rotation == 12


def test_an_unknown_field_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"no field 'lr'; it has num_epochs, .*learning_rate"):
        PAPER.with_options({"lr": 0.1})
