"""The network of any spec on one device, as one would write it in torch.

It trains every checkpoint of the package: torchvision's network, Caffe's two, the ungrouped one.
`towers.TwoTowers` is the paper's network laid over two devices: given the same weights and masks,
both have the same outputs and the same gradients.

    N photographs, K classes; maps (N, C, H, W) float, channels last in memory
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import nn

from alexnet_deploy.model.spec import (
    CONV_STRIDES,
    NORMALIZED_CONVS,
    POOL_SIZE,
    POOL_STRIDE,
    POOLED_CONVS,
    ModelSpec,
)
from training.normalization import rectify_and_normalize
from training.towers import Dropout
from training.weights import after_dropout

_BEFORE = {"fc6": "pool5", "fc7": "fc6", "fc8": "fc7"}


class PlainNetwork(nn.Module):
    """AlexNet on one device; its parameters have the package's names and shapes.

    Args:
        spec: any, with a head.
        device: of all weights.
    """

    def __init__(self, spec: ModelSpec, device: torch.device) -> None:
        super().__init__()
        self.spec = spec
        self.devices = (device,)
        for name, shape in spec.array_shapes().items():
            layer, kind = name.split(".")
            if kind == "weight":
                made = nn.Linear(shape[1], shape[0]) if len(shape) == 2 else _conv(spec, layer)
                self.add_module(layer, made)
        self.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: torch.Tensor, dropout: Dropout | None = None) -> torch.Tensor:
        """Return the logits, (N, K).

        Args:
            images: (N, 3, S, S) network inputs, on the network's device.
            dropout: applied to the inputs of the layers that `weights.after_dropout` names, by the
                layers that they are the outputs of, as of tower 0; or None.
        """
        return self.classify(self.pool5(images), dropout)

    def pool5(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return pool5, (N, D), alone in a list, as of the one tower that this network is."""
        x = images
        for number in range(1, 6):
            x = self._convolve(x, number)
            lrn = self.spec.lrn if number in NORMALIZED_CONVS else None
            # Where the normalization comes after the pool, so does the ReLU that is part of it:
            # the maximum of a window is the same before and after.
            if lrn is None:
                x = F.relu(x, inplace=True)
            elif lrn.position == "before_pool":
                x = rectify_and_normalize(x, lrn)
            if number in POOLED_CONVS:
                x = self._pool(x, number)
            if lrn is not None and lrn.position == "after_pool":
                x = rectify_and_normalize(x, lrn)
        return [x.flatten(1)]

    def classify(self, pool5: list[torch.Tensor], dropout: Dropout | None = None) -> torch.Tensor:
        """Return the logits from what `pool5` returned: layers 6 to 8."""
        (x,) = pool5
        for layer, before in _BEFORE.items():
            if dropout is not None and f"{layer}.weight" in after_dropout(self.spec):
                x = dropout(x, before, 0)
            x = self.get_submodule(layer)(x)
            if layer != "fc8":
                x = F.relu(x)
        return x

    def merged(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return contiguous copies on the CPU of tensors named like the parameters."""
        return {
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in tensors.items()
        }

    def parts(self, merged: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Undo `merged`: return the tensors themselves, whose names are the package's here."""
        return dict(merged)

    def _convolve(self, x: torch.Tensor, number: int) -> torch.Tensor:
        if number == 1:  # the only one whose padding may differ from side to side
            top, left, bottom, right = self.spec.conv1_padding
            x = F.pad(x, (left, right, top, bottom))
        convolved: torch.Tensor = self.get_submodule(f"conv{number}")(x)
        return convolved

    def _pool(self, x: torch.Tensor, number: int) -> torch.Tensor:
        beyond = self.spec.padding_of_pool(number)
        if beyond:
            x = F.pad(x, (0, beyond, 0, beyond), value=-torch.inf)
        return F.max_pool2d(x, POOL_SIZE, POOL_STRIDE)


def _conv(spec: ModelSpec, layer: str) -> nn.Conv2d:
    number = int(layer.removeprefix("conv"))
    groups = spec.groups[number - 1]
    kernels, inputs, size, _ = spec.array_shapes()[f"{layer}.weight"]
    return nn.Conv2d(
        inputs * groups,
        kernels,
        size,
        stride=CONV_STRIDES[number - 1],
        padding=0 if number == 1 else spec.conv_padding(number)[0],
        groups=groups,
    )
