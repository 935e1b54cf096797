import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from alexnet_deploy.model.spec import LrnSpec, preset_spec
from tests.support.plain_network import relative_difference
from training.normalization import rectify_and_normalize

SAME = 1e-12
"""In float64: two square roots and a matrix product in place of a power and a pooling."""


def _lrn() -> LrnSpec:
    lrn = preset_spec("paper").lrn
    assert lrn is not None
    return dataclasses.replace(lrn, towers=1)


def _plain(z: torch.Tensor, lrn: LrnSpec) -> torch.Tensor:
    towers = torch.relu(z).chunk(lrn.towers, dim=1)
    normalized = [F.local_response_norm(a, lrn.size, lrn.alpha, lrn.beta, lrn.k) for a in towers]
    return torch.cat(normalized, dim=1)


def _random(*shape: int, dtype: torch.dtype = torch.float64, std: float = 100.0) -> torch.Tensor:
    """Pre-activations of which half are below 0; at 100 the normalization counts."""
    generator = torch.Generator().manual_seed(3)
    return torch.randn(*shape, dtype=torch.float64, generator=generator).mul(std).to(dtype)


def _with_gradients(
    z: torch.Tensor, lrn: LrnSpec, teacher: torch.Tensor
) -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    results = []
    for function in (rectify_and_normalize, _plain):
        leaf = z.clone().requires_grad_()
        y = function(leaf, lrn)
        torch.autograd.backward(y, teacher)
        assert leaf.grad is not None
        results.append((y.detach(), leaf.grad))
    return results[0], results[1]


@pytest.mark.parametrize(("channels", "towers"), [(1, 1), (4, 1), (4, 2), (5, 1), (48, 2), (48, 3)])
@pytest.mark.parametrize(("size", "beta"), [(1, 0.75), (3, 0.75), (5, 0.75), (5, 0.5), (5, 1.2)])
def test_values_and_gradients_are_those_of_torchs_own_chain(
    channels: int, towers: int, size: int, beta: float
) -> None:
    lrn = dataclasses.replace(_lrn(), size=size, alpha=3e-4, k=1.5, towers=towers, beta=beta)
    z, teacher = _random(2, channels, 6, 7), _random(2, channels, 6, 7, std=1).flip(0)
    (y, gradient), (expected, expected_gradient) = _with_gradients(z, lrn, teacher)
    assert relative_difference(y, expected) < SAME
    assert relative_difference(gradient, expected_gradient) < SAME


def test_more_pixels_than_one_part_holds_give_the_same() -> None:
    """3,200 + 3,200 pixels; parts of 3,072 end within a photograph, and the last is short."""
    z, teacher = _random(2, 6, 64, 50), _random(2, 6, 64, 50, std=1).flip(1)
    (y, gradient), (expected, expected_gradient) = _with_gradients(z, _lrn(), teacher)
    assert relative_difference(y, expected) < SAME
    assert relative_difference(gradient, expected_gradient) < SAME


def test_numerical_derivatives_agree() -> None:
    # Away from 0, where the ReLU has no derivative; small, so that all of them are compared.
    z = _random(2, 7, 1, 2)
    z = (z.sign() * (z.abs() + 1)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: rectify_and_normalize(x, _lrn()), (z,))


@pytest.mark.parametrize(
    ("num_channels", "expected"), [(3, 48.839363), (4, 46.198883), (5, 43.869134)]
)
def test_equal_activations_of_100_shrink_as_in_the_2012_code(
    num_channels: int, expected: float
) -> None:
    """By hand: 100 / (2 + 1e-4 / 5 * n * 100^2)^0.75 for n channels in the window."""
    y = rectify_and_normalize(torch.full((1, 48, 1, 1), 100.0, dtype=torch.float64), _lrn())
    channels = {3: [0, 47], 4: [1, 46], 5: list(range(2, 46))}[num_channels]
    assert y[0, channels, 0, 0].numpy() == pytest.approx(expected, rel=1e-7)  # its digits


def test_any_layout_of_memory_gives_the_same_and_comes_out_channels_last() -> None:
    z = _random(2, 5, 6, 4, dtype=torch.float32)
    expected = rectify_and_normalize(z.contiguous(memory_format=torch.channels_last), _lrn())
    strided = _random(2, 5, 6, 8, dtype=torch.float32)[..., ::2].copy_(z)
    for layout in (z, strided, z.mT.contiguous().mT):
        y = rectify_and_normalize(layout, _lrn())
        assert torch.equal(y, expected)
        assert y.is_contiguous(memory_format=torch.channels_last)


def test_gradients_of_any_layout_are_taken() -> None:
    z = _random(2, 5, 3, 4).requires_grad_()
    (y,) = torch.autograd.grad(rectify_and_normalize(z, _lrn()).sum(), z)  # an expanded 1
    ones = torch.ones(2, 5, 3, 4, dtype=torch.float64)
    (expected,) = torch.autograd.grad(rectify_and_normalize(z, _lrn()), z, ones)
    assert torch.equal(y, expected)


@pytest.mark.parametrize("under_autocast", [False, True])
def test_bfloat16_is_rounded_at_the_ends_only(under_autocast: bool) -> None:
    """Sums of squares are float32: bfloat16 holds 3 digits, and s = 2 + 2e-5 a^2 needs more."""
    z, teacher = _random(2, 48, 4, 4).bfloat16(), _random(2, 48, 4, 4, std=1).bfloat16()
    leaf = z.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=under_autocast):
        y = rectify_and_normalize(leaf, _lrn())
    torch.autograd.backward(y, teacher)
    assert y.dtype == torch.bfloat16
    assert leaf.grad is not None
    exact = z.float().requires_grad_()
    expected = _plain(exact, _lrn())
    torch.autograd.backward(expected, teacher.float())
    assert exact.grad is not None
    half_step = 2**-8  # what rounding once to 8 bits changes at most
    np.testing.assert_allclose(y.detach().float(), expected.detach(), rtol=1.01 * half_step, atol=0)
    scale = exact.grad.abs().max().item()
    np.testing.assert_allclose(
        leaf.grad.float(), exact.grad, rtol=1.01 * half_step, atol=1e-6 * scale
    )


def test_zeros_and_negatives_give_zeros_and_no_gradient() -> None:
    z = torch.tensor([0.0, -0.0, -5.0, -1e30]).view(1, 4, 1, 1).requires_grad_()
    y = rectify_and_normalize(z, _lrn())
    torch.autograd.backward(y.sum())
    assert z.grad is not None
    assert not y.any()
    assert not z.grad.any()


def test_what_is_no_number_stays_none() -> None:
    z = torch.tensor([1.0, torch.nan, 1.0]).view(1, 3, 1, 1)
    assert rectify_and_normalize(z, _lrn()).isnan().all()  # all windows hold it


def test_no_photographs_give_none() -> None:
    z = torch.empty(0, 5, 3, 3, requires_grad=True)
    y = rectify_and_normalize(z, _lrn())
    torch.autograd.backward(y.sum())
    assert y.shape == (0, 5, 3, 3)


def test_second_derivatives_are_refused() -> None:
    z = _random(1, 5, 1, 1).requires_grad_()
    energy = rectify_and_normalize(z, _lrn()).square().sum()
    (gradient,) = torch.autograd.grad(energy, z, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        torch.autograd.backward(gradient.sum())
