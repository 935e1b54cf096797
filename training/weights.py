"""From the towers' tensors to the package's one network, and back.

Outputs and inputs are concatenated, those of the first tower first. (In the 2012 code's own files
the inputs of the second half of fc7 are in the opposite order.)

Under the paper's form of dropout, layers after it expect inputs that are halved at inference
(section 4.2); the package halves nothing, so their matrices are stored halved. Scaling by a power
of two is exact, so a rate of 0.5 survives the round trip bit for bit.
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from alexnet_deploy.model.spec import ModelSpec

Arrays = dict[str, NDArray[np.float32]]
SEES_BOTH = ("conv3", "fc6", "fc7")
AFTER_DROPOUT = ("fc7.weight", "fc8.weight")
"""Weights whose inputs drop out, in the paper's network and in Caffe's (section 4.2)."""


def after_dropout(spec: ModelSpec) -> tuple[str, str]:
    """Return the weights whose inputs drop out in training, where the network's publishers do it.

    torchvision's network has its dropout before fc6 and fc7, every other before fc7 and fc8.
    """
    return ("fc6.weight", "fc7.weight") if spec.preset == "torchvision" else AFTER_DROPOUT


def merge(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Join tensors named like `TwoTowers.named_parameters` into the package's, on the CPU.

    Weights, gradients and optimizer state all join the same way, of all layers or of some. The
    result is contiguous and shares no memory with the network.
    """
    home = {name: tensor.detach().cpu() for name, tensor in tensors.items()}
    merged: dict[str, torch.Tensor] = {}
    for layer in dict.fromkeys(name.split(".")[2] for name in home):
        if layer == "fc8":
            halves = [home[f"towers.0.fc8.{half}.weight"] for half in ("own", "other")]
            merged["fc8.weight"] = torch.cat(halves, dim=1)
            merged["fc8.bias"] = home["towers.0.fc8.own.bias"].clone()
        else:
            merged |= _both_halves(home, layer) if layer in SEES_BOTH else _stacked(home, layer)
    return {name: tensor.contiguous() for name, tensor in merged.items()}


def split(arrays: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Undo `merge`: return views for the two towers, under `TwoTowers`' names.

    A matrix that sees both towers is a 2 x 2 grid of blocks, rows by the tower that holds them and
    columns by the tower they read: `own` is on the diagonal, `other` off it.
    """
    tensors: dict[str, torch.Tensor] = {}
    for name, array in arrays.items():
        layer, kind = name.split(".")
        if layer == "fc8":
            if kind == "bias":
                tensors["towers.0.fc8.own.bias"] = array
            else:
                own, other = array.chunk(2, dim=1)
                tensors["towers.0.fc8.own.weight"] = own
                tensors["towers.0.fc8.other.weight"] = other
            continue
        for tower, half in enumerate(array.chunk(2)):
            prefix = f"towers.{tower}.{layer}"
            if layer not in SEES_BOTH:
                tensors[f"{prefix}.{kind}"] = half
            elif kind == "bias":
                tensors[f"{prefix}.own.bias"] = half
            else:
                inputs = half.chunk(2, dim=1)
                tensors[f"{prefix}.own.weight"] = inputs[tower]
                tensors[f"{prefix}.other.weight"] = inputs[1 - tower]
    return tensors


def deployable(
    merged: Mapping[str, torch.Tensor],
    dropout_scale: float,
    scaled: tuple[str, str],
) -> Arrays:
    """Return a checkpoint's float32 arrays from merged weights.

    Args:
        merged: a network's `merged`.
        dropout_scale: factor at inference on what drops out in training: 1 minus the rate for the
            paper's form of dropout, 1 for the inverted one.
        scaled: from `after_dropout`.
    """
    return {
        name: (tensor * dropout_scale if name in scaled else tensor).numpy()
        for name, tensor in merged.items()
    }


def trainable(
    arrays: Mapping[str, NDArray[np.float32]],
    dropout_scale: float,
    scaled: tuple[str, str],
) -> dict[str, torch.Tensor]:
    """Undo `deployable`."""
    tensors = {
        name: torch.from_numpy(np.array(array, np.float32)) for name, array in arrays.items()
    }
    return {
        name: tensor / dropout_scale if name in scaled else tensor
        for name, tensor in tensors.items()
    }


def _stacked(home: Mapping[str, torch.Tensor], layer: str) -> dict[str, torch.Tensor]:
    return {
        f"{layer}.{kind}": torch.cat([home[f"towers.{tower}.{layer}.{kind}"] for tower in (0, 1)])
        for kind in ("weight", "bias")
    }


def _both_halves(home: Mapping[str, torch.Tensor], layer: str) -> dict[str, torch.Tensor]:
    rows = []
    for tower in (0, 1):
        prefix = f"towers.{tower}.{layer}"
        own, other = home[f"{prefix}.own.weight"], home[f"{prefix}.other.weight"]
        rows.append(torch.cat([own, other] if tower == 0 else [other, own], dim=1))
    biases = [home[f"towers.{tower}.{layer}.own.bias"] for tower in (0, 1)]
    return {f"{layer}.weight": torch.cat(rows), f"{layer}.bias": torch.cat(biases)}
