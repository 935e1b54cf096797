"""What counts as equal: the measures of a comparison, each beside what it allows."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from alexnet_deploy.graph.report import Check
from alexnet_deploy.model.checkpoints import Checkpoint, load_checkpoint
from alexnet_deploy.model.default import bundled_checkpoint
from alexnet_deploy.model.reference import Reference
from alexnet_deploy.verification.comparison import TOLERANCES, Comparison, largest_activation
from tests.support.networks import noise, random_checkpoint

LAYERS = ("fc7", "logits")


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return random_checkpoint("paper")


def row(layers: Mapping[str, NDArray[Any]], index: int = 0) -> dict[str, NDArray[Any]]:
    return {name: layers[name][index] for name in LAYERS}


def named(checks: list[Check], start: str) -> Check:
    (check,) = (check for check in checks if check.name.startswith(start))
    return check


def with_margin(logits: NDArray[Any], relative: float, *, flipped: bool) -> NDArray[Any]:
    """Return logits whose first two classes an error of just `relative` would exchange."""
    changed = np.zeros_like(logits)
    changed[0] = 10
    changed[1] = 10 * (1 - 2 * relative)
    if flipped:
        changed[:2] = changed[1::-1]
    return changed


@pytest.mark.parametrize(("num_flips", "passed"), [(2, True), (3, False)])
def test_int8_may_change_two_sure_classes_in_a_hundred(num_flips: int, passed: bool) -> None:
    comparison = Comparison(_Sure(), LAYERS, "int8")  # type: ignore[arg-type]
    image = np.zeros((1, 1, 3), np.uint8)
    for number in range(100):
        logits = with_margin(np.zeros(9), 6e-3, flipped=number < num_flips)
        comparison.add(image, image, {"fc7": np.ones(4), "logits": logits})
    flips = named(comparison.checks(), "top-1 flips")
    assert (flips.measured, flips.allowed) == (f"{num_flips} of 100", "2")
    assert flips.passed is passed


class _Sure:
    """A reference that is always equally sure: its logits are 6e-3 from another class."""

    def run(self, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        logits = with_margin(np.zeros(9), 6e-3, flipped=False)
        return {"fc7": np.ones((1, 4)), "logits": logits[np.newaxis]}


def test_where_the_reference_is_sure_of_nothing_nothing_is_allowed(checkpoint: Checkpoint) -> None:
    flat = dict(checkpoint.arrays) | {
        name: np.zeros_like(checkpoint.arrays[name]) for name in ("fc8.weight", "fc8.bias")
    }
    reference = Reference(Checkpoint(spec=checkpoint.spec, arrays=flat))
    crop = noise(checkpoint.spec, 1)[0]
    comparison = Comparison(reference, LAYERS, "fp32")
    comparison.add(crop, crop, row(reference.run(crop[np.newaxis])))
    flips = named(comparison.checks(), "top-1 flips")
    assert (flips.measured, flips.allowed) == ("0 of 0", "-")


def test_the_mean_cosine_is_checked_beside_the_lowest() -> None:
    """All vectors a little off: none is too far, and together they are."""
    allowed = TOLERANCES["int8"]
    angle = np.arccos((allowed.cosine + allowed.mean_cosine) / 2)
    comparison = Comparison(_Sure(), LAYERS, "int8")  # type: ignore[arg-type]
    image = np.zeros((1, 1, 3), np.uint8)
    ones, aside = np.ones(4), np.array([1, -1, 1, -1])
    fc7 = ones * np.cos(angle) + aside * np.sin(angle)
    for _ in range(3):
        logits = with_margin(np.zeros(9), 6e-3, flipped=False)
        comparison.add(image, image, {"fc7": fc7, "logits": logits})
    assert not named(comparison.checks(), "FC7 cosine").passed


@pytest.mark.parametrize(("factor", "passed"), [(1, True), (20_000, False)])
def test_activations_that_float16_cannot_hold_are_found_without_it(
    factor: int, passed: bool
) -> None:
    """CPUs compute an fp16 file in float32, where nothing overflows; a GPU would not."""
    bundled = load_checkpoint(bundled_checkpoint())
    arrays = dict(bundled.arrays)
    for name in ("fc6.weight.left", "fc6.bias"):
        arrays[name] = arrays[name].astype(np.float32) * factor
    arrays["fc7.weight.right"] = arrays["fc7.weight.right"].astype(np.float32) / factor
    reference = Reference(Checkpoint(spec=bundled.spec, arrays=arrays))
    crop = noise(bundled.spec, 1)[0]
    comparison = Comparison(reference, LAYERS, "fp16")
    comparison.add(crop, crop, row(reference.run(crop[np.newaxis])))
    checks = comparison.checks()
    assert named(checks, "largest activation").passed is passed
    assert all(check.passed for check in checks if not check.name.startswith("largest"))


@pytest.mark.parametrize(("layer", "before"), [("fc6", "pool5"), ("fc7", "fc6")])
def test_what_lies_between_two_factors_counts(
    checkpoint: Checkpoint, layer: str, before: str
) -> None:
    bundled = load_checkpoint(bundled_checkpoint())
    layers = Reference(bundled).run(noise(bundled.spec, 1))
    plain = largest_activation(checkpoint, layers)  # has no factors
    arrays = dict(bundled.arrays)
    name = f"{layer}.weight.right"
    arrays[name] = arrays[name].astype(np.float32) * 1e6
    factored = dataclasses.replace(bundled, arrays=arrays)
    expected = np.abs(arrays[name] @ layers[before].ravel()).max()
    assert largest_activation(factored, layers) == pytest.approx(expected, rel=1e-5)
    assert plain == max(np.abs(values).max() for values in layers.values())
