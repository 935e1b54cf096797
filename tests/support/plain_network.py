"""Any network on one device in torch's own functions: the oracle of the trainer's tests."""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from alexnet_deploy.model.spec import LrnSpec, ModelSpec, preset_spec

SMALL_WIDTHS = (8, 16, 12, 12, 8)
SMALL_SIDE = 99
"""px; pool5 then has 2 x 2 positions, and fc6 1 % of its weights."""


def small_spec(num_classes: int = 7) -> ModelSpec:
    """Return the paper's network with few kernels, for small inputs."""
    spec = preset_spec("paper", num_classes=num_classes)
    return dataclasses.replace(spec, widths=SMALL_WIDTHS, input_size=SMALL_SIDE)


def random_weights(spec: ModelSpec, dtype: torch.dtype, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return weights that keep the size of activations from layer to layer, by their names.

    On raw pixels conv1 then reaches some 100, where the normalization halves what it gets.
    """
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in spec.array_shapes().items():
        # Evenly between -bound and bound has the variance bound^2 / 3; He's is 2 / inputs.
        bound = 0.1 if name.endswith("bias") else (6 / math.prod(shape[1:])) ** 0.5
        drawn = torch.empty(shape, dtype=dtype)
        weights[name] = drawn.uniform_(-bound, bound, generator=generator)
    return weights


def inputs_from(images: NDArray[np.uint8], spec: ModelSpec, dtype: torch.dtype) -> torch.Tensor:
    """Return (N, 3, S, S) network inputs of (N, S, S, 3) crops, by the spec's channel means."""
    mean = torch.tensor(spec.preprocessing.mean, dtype=dtype)
    std = torch.tensor(spec.preprocessing.std, dtype=dtype)
    return ((torch.from_numpy(images).to(dtype) - mean) / std).permute(0, 3, 1, 2)


def plain_logits(
    weights: Mapping[str, torch.Tensor],
    spec: ModelSpec,
    inputs: torch.Tensor,
    masks: Mapping[str, torch.Tensor] | None = None,
) -> torch.Tensor:
    """Return (N, K) logits, differentiable in everything.

    Args:
        weights: by the package's names, merged.
        spec: any.
        inputs: (N, 3, S, S).
        masks: factors of the outputs of layers, by their names: dropout.
    """

    def masked(x: torch.Tensor, layer: str) -> torch.Tensor:
        return x if masks is None or layer not in masks else x * masks[layer]

    top, left, bottom, right = spec.conv1_padding
    x = F.pad(inputs, (left, right, top, bottom))
    for number, (stride, padding) in enumerate([(4, 0), (1, 2), (1, 1), (1, 1), (1, 1)], start=1):
        weight, bias = weights[f"conv{number}.weight"], weights[f"conv{number}.bias"]
        x = torch.relu(F.conv2d(x, weight, bias, stride, padding, 1, spec.groups[number - 1]))
        lrn = spec.lrn if number <= 2 else None
        if lrn is not None and lrn.position == "before_pool":
            x = _normalized(x, lrn)
        if number in (1, 2, 5):
            beyond = spec.pool_padding[(1, 2, 5).index(number)]
            x = F.max_pool2d(F.pad(x, (0, beyond, 0, beyond), value=-torch.inf), 3, 2)
        if lrn is not None and lrn.position == "after_pool":
            x = _normalized(x, lrn)
    x = masked(x.flatten(1), "pool5")
    for layer in ("fc6", "fc7"):
        x = torch.relu(F.linear(x, weights[f"{layer}.weight"], weights[f"{layer}.bias"]))
        x = masked(x, layer)
    return F.linear(x, weights["fc8.weight"], weights["fc8.bias"])


def _normalized(x: torch.Tensor, lrn: LrnSpec) -> torch.Tensor:
    towers = x.chunk(lrn.towers, dim=1)
    return torch.cat(
        [F.local_response_norm(one, lrn.size, lrn.alpha, lrn.beta, lrn.k) for one in towers], 1
    )


def relative_difference(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Return ||actual - expected|| / ||expected||."""
    difference = torch.linalg.vector_norm(actual.detach() - expected.detach())
    return float(difference / torch.linalg.vector_norm(expected.detach()))
