"""The network that trains: the paper's two towers, or any other on one device."""

import re
from typing import Literal

from alexnet_deploy.model.spec import ModelSpec
from training.plain_network import PlainNetwork
from training.towers import Devices, TwoTowers, has_two_towers

Network = TwoTowers | PlainNetwork
Trained = Literal["all", "head"]
"""Which layers learn; the head is fc8."""
_LAYER = re.compile(r"conv\d|fc\d")


def network_of(spec: ModelSpec, devices: Devices) -> Network:
    """Return a network to fill with weights: in two towers if it has them, else on one device.

    Args:
        spec: any, with a head.
        devices: of the two towers; a network without them is on the first.
    """
    return TwoTowers(spec, devices) if has_two_towers(spec) else PlainNetwork(spec, devices[0])


def layer_of(parameter: str) -> str:
    """Return the layer of a network's parameter: fc8 of `towers.0.fc8.own.weight`."""
    found = _LAYER.search(parameter)
    assert found is not None
    return found[0]


def set_trained(network: Network, trained: Trained) -> None:
    """Fix all layers but those that learn; nothing is stored for the gradients of the others."""
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(trained == "all" or layer_of(name) == "fc8")
