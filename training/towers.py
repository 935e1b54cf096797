"""The network on two devices, as in the paper's Figure 2.

Each device holds half of the kernels of every layer except fc8, which is entirely on the first
device, as in the 2012 code. Layers 2, 4 and 5 see only the maps of their own tower; conv3, fc6,
fc7 and fc8 see those of both (section 3.5). The latter are sums of two products, so that one is
computed from the local maps while the other tower's are in transit.

    N photographs, K classes; maps (N, C, H, W) float, channels last in memory
"""

import dataclasses
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import nn

from alexnet_deploy.model.spec import FC_WIDTH, ModelSpec
from training.exchange import Exchange, receive, start_copy
from training.normalization import rectify_and_normalize
from training.weights import AFTER_DROPOUT, after_dropout, merge, split

Devices = tuple[torch.device, torch.device]
Dropout = Callable[[torch.Tensor, str, int], torch.Tensor]
"""From a layer's outputs, the layer's name and the tower's number to the masked outputs."""


class SeesBothTowers(nn.Module):
    """A layer of one tower over the inputs of both: `own(x) + other(y)`; `own` has the bias."""

    def __init__(self, own: nn.Module, other: nn.Module) -> None:
        super().__init__()
        self.own = own
        self.other = other


class Tower(nn.Module):
    """One device's half of the network."""

    def __init__(self, spec: ModelSpec, *, owns_fc8: bool) -> None:
        super().__init__()
        c1, c2, c3, c4, c5 = (width // 2 for width in spec.widths)
        channels, height, width = spec.layer_shapes()["pool5"]
        pool5, hidden = channels // 2 * height * width, FC_WIDTH // 2
        assert spec.lrn is not None
        self.padding = spec.conv1_padding
        self.lrn = dataclasses.replace(spec.lrn, towers=1)
        self.conv1 = nn.Conv2d(3, c1, 11, stride=4)
        self.conv2 = nn.Conv2d(c1, c2, 5, padding=2)
        self.conv3 = SeesBothTowers(
            nn.Conv2d(c2, c3, 3, padding=1), nn.Conv2d(c2, c3, 3, padding=1, bias=False)
        )
        self.conv4 = nn.Conv2d(c3, c4, 3, padding=1)
        self.conv5 = nn.Conv2d(c4, c5, 3, padding=1)
        self.fc6 = SeesBothTowers(nn.Linear(pool5, hidden), nn.Linear(pool5, hidden, bias=False))
        self.fc7 = SeesBothTowers(nn.Linear(hidden, hidden), nn.Linear(hidden, hidden, bias=False))
        if owns_fc8:
            classes = spec.num_classes
            self.fc8 = SeesBothTowers(
                nn.Linear(hidden, classes), nn.Linear(hidden, classes, bias=False)
            )

    def to_pool2(self, images: torch.Tensor) -> torch.Tensor:
        """Return this tower's pool2 for (N, 3, S, S) inputs: layers 1 and 2."""
        top, left, bottom, right = self.padding
        x = self.conv1(F.pad(images, (left, right, top, bottom)))
        x = F.max_pool2d(rectify_and_normalize(x, self.lrn), 3, 2)
        x = rectify_and_normalize(self.conv2(x), self.lrn)
        return F.max_pool2d(x, 3, 2)

    def to_pool5(self, conv3: torch.Tensor) -> torch.Tensor:
        """Return this tower's pool5, flattened channel by channel, from conv3 before its ReLU."""
        x = F.relu(self.conv4(F.relu(conv3, inplace=True)), inplace=True)
        x = F.relu(self.conv5(x), inplace=True)
        return F.max_pool2d(x, 3, 2).flatten(1)


class TwoTowers(nn.Module):
    """AlexNet in two towers, each on its device.

    Args:
        spec: one that `has_two_towers`.
        devices: of tower 0 and tower 1; they may be the same.

    Attributes:
        exchange: counts the bytes that cross between the devices.
    """

    def __init__(self, spec: ModelSpec, devices: Devices) -> None:
        super().__init__()
        assert has_two_towers(spec)
        self.spec = spec
        self.devices = devices
        self.exchange = Exchange()
        self._pair: list[Tower] = [
            Tower(spec, owns_fc8=index == 0).to(  # type: ignore[call-overload]
                device=device, memory_format=torch.channels_last
            )
            for index, device in enumerate(devices)
        ]
        self.towers = nn.ModuleList(self._pair)

    def forward(self, images: torch.Tensor, dropout: Dropout | None = None) -> torch.Tensor:
        """Return the logits, (N, K), on the first device.

        Args:
            images: (N, 3, S, S) network inputs, on the first device or the CPU.
            dropout: applied to fc6's and fc7's outputs after the ReLU, or None.
        """
        return self.classify(self.pool5(images), dropout)

    def pool5(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return each tower's pool5, (N, D) on its device: layers 1 to 5."""
        inputs = [start_copy(images, device) for device in self.devices]
        pool2 = [tower.to_pool2(receive(x)) for tower, x in zip(self._pair, inputs, strict=True)]
        conv3 = self._both("conv3", pool2)
        return [tower.to_pool5(maps) for tower, maps in zip(self._pair, conv3, strict=True)]

    def classify(self, pool5: list[torch.Tensor], dropout: Dropout | None = None) -> torch.Tensor:
        """Return the logits from what `pool5` returned: layers 6 to 8."""
        x = pool5
        for layer in ("fc6", "fc7"):
            x = [F.relu(hidden) for hidden in self._both(layer, x)]
            if dropout is not None:
                x = [dropout(hidden, layer, index) for index, hidden in enumerate(x)]
        arriving = self.exchange.send("fc8", 1, x[1], self.devices[0])
        fc8 = self._pair[0].fc8
        logits: torch.Tensor = fc8.own(x[0]) + fc8.other(receive(arriving))
        return logits

    def merged(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return copies on the CPU under the package's names; see `weights.merge`."""
        return merge(tensors)

    def parts(self, merged: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return views under the names of this network's parameters; see `weights.split`."""
        return split(merged)

    def _both(self, layer: str, x: list[torch.Tensor]) -> list[torch.Tensor]:
        """Return each tower's half of a layer that sees both towers, before the ReLU."""
        arriving = [
            self.exchange.send(layer, 1 - tower, x[1 - tower], device)
            for tower, device in enumerate(self.devices)
        ]
        halves = [getattr(tower, layer) for tower in self._pair]
        own = [half.own(mine) for half, mine in zip(halves, x, strict=True)]
        return [
            mine + half.other(receive(theirs))
            for mine, half, theirs in zip(own, halves, arriving, strict=True)
        ]


def has_two_towers(spec: ModelSpec) -> bool:
    """Return whether a network is wired as the paper's; widths, classes and sizes are free."""
    return (
        spec.groups == (1, 2, 1, 2, 2)
        and spec.lrn is not None
        and (spec.lrn.towers, spec.lrn.position) == (2, "before_pool")
        and not any(spec.pool_padding)
        and after_dropout(spec) == AFTER_DROPOUT
    )
