import pytest
import torch

from alexnet_deploy.model.spec import preset_spec
from tests.support.plain_network import relative_difference
from training.exchange import Exchange, receive
from training.towers import TwoTowers

META = torch.device("meta")
"""Tensors without numbers: shapes and bytes of the whole network at no cost."""

FLOATS_A_PHOTOGRAPH = {"conv3": 21_632, "fc6": 4_608, "fc7": 2_048, "fc8": 2_048}
"""Half of pool2, pool5, fc6 and fc7: 128 x 13 x 13, 128 x 6 x 6, 2048, 2048."""


@pytest.fixture
def network() -> TwoTowers:
    with META:
        return TwoTowers(preset_spec("paper"), (META, META))


def test_a_batch_of_128_crosses_into_four_layers_only(network: TwoTowers) -> None:
    logits = network(torch.empty(128, 3, 224, 224, device=META))
    sent = {
        (layer, tower): 128 * 4 * floats
        for layer, floats in FLOATS_A_PHOTOGRAPH.items()
        for tower in ((1,) if layer == "fc8" else (0, 1))
    }
    assert dict(network.exchange.forward_bytes) == sent
    assert [round(sent[layer, 1] / 1e6, 2) for layer in FLOATS_A_PHOTOGRAPH] == [
        *(11.08, 2.36, 1.05, 1.05)
    ]
    assert not network.exchange.backward_bytes
    torch.autograd.backward(logits.sum())
    assert dict(network.exchange.backward_bytes) == sent
    assert dict(network.exchange.forward_bytes) == sent


def test_nothing_comes_back_where_nothing_is_learnt(network: TwoTowers) -> None:
    with torch.no_grad():
        network(torch.empty(1, 3, 224, 224, device=META))
    assert network.exchange.forward_bytes["conv3", 0] == 4 * 21_632
    assert not network.exchange.backward_bytes


def test_counts_add_up(network: TwoTowers) -> None:
    for _ in range(2):
        network(torch.empty(1, 3, 224, 224, device=META)).sum().backward()
    assert network.exchange.forward_bytes["fc8", 1] == 2 * 4 * 2_048
    assert network.exchange.backward_bytes["fc8", 1] == 2 * 4 * 2_048


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_sent_arrives_and_its_gradient_returns(dtype: torch.dtype) -> None:
    cpu = torch.device("cpu")
    exchange = Exchange()
    x = torch.arange(6.0).to(dtype).view(2, 3).requires_grad_()
    arrived = receive(exchange.send("conv3", 1, x * 1, cpu))
    assert torch.equal(arrived, x)
    assert arrived.dtype == dtype
    teacher = torch.arange(6.0).to(dtype).view(2, 3) - 2
    torch.autograd.backward(arrived, teacher)
    assert x.grad is not None
    assert torch.equal(x.grad, teacher)
    num_bytes = 6 * (4 if dtype == torch.float32 else 2)
    assert exchange.forward_bytes == exchange.backward_bytes == {("conv3", 1): num_bytes}


@pytest.mark.gpu("torch", 2)
def test_copies_between_gpus_wait_for_what_they_copy() -> None:
    here, there = torch.device("cuda:0"), torch.device("cuda:1")
    exchange = Exchange()
    for repetition in range(20):
        x = torch.randn(2_000, 2_000, device=here, requires_grad=True)
        y = x
        for _ in range(20):  # work that must be over before the copy begins
            y = y @ x / 2_000**0.5
        arrived = exchange.send("conv3", 0, y, there)
        busy = torch.randn(2_000, 2_000, device=there) @ torch.randn(2_000, 2_000, device=there)
        total = (receive(arrived) + 0 * busy).square().sum()
        torch.autograd.backward(total)
        assert x.grad is not None
        expected = x.detach().clone().requires_grad_()
        z = expected
        for _ in range(20):
            z = z @ expected / 2_000**0.5
        torch.autograd.backward(z.square().sum())
        assert expected.grad is not None
        # float32, sums in any order; memory that was read too early holds something else
        assert relative_difference(x.grad, expected.grad) < 1e-4, repetition
