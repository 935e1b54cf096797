"""The initial weights.

They are drawn in the package's order and shapes and then split, so that a seed gives the same
network on any devices.
"""

import math

import torch

from alexnet_deploy.model.spec import ModelSpec
from training.recipes import Recipe

# Section 5 says .01 everywhere; the 2012 code has .03 in these three, and it learns.
_STD_2012 = {"conv3": 0.03, "conv4": 0.03, "conv5": 0.03}
_STD_PAPER = 0.01
# Section 5: "the second, fourth, and fifth convolutional layers, as well as ... the
# fully-connected hidden layers with the constant 1".
_BIAS_1 = ("conv2", "conv4", "conv5", "fc6", "fc7")
_PIXEL_STD = 58.0
"""Standard deviation of photographs, grey levels; inputs of a larger scale get smaller kernels."""
_FC_STD = {"fc6": 0.005, "fc7": 0.005, "fc8": 0.01}
"""Below He's: with 4,096 outputs of unit scale the first steps would overshoot in fc8."""


def initial_weights(spec: ModelSpec, recipe: Recipe, seed: int) -> dict[str, torch.Tensor]:
    """Draw merged float32 weights and biases, under the package's names."""
    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, torch.Tensor] = {}
    for name, shape in spec.array_shapes().items():
        layer, kind = name.split(".")
        if kind == "bias":
            ones = recipe.initialization == "gaussian_2012" and layer in _BIAS_1
            weights[name] = torch.full(shape, 1.0 if ones else 0.0)
        else:
            std = _std(layer, math.prod(shape[1:]), spec, recipe)
            weights[name] = torch.empty(shape).normal_(0.0, std, generator=generator)
    return weights


def _std(layer: str, fan_in: int, spec: ModelSpec, recipe: Recipe) -> float:
    if recipe.initialization == "gaussian_2012":
        return _STD_2012.get(layer, _STD_PAPER)
    if layer in _FC_STD:
        return _FC_STD[layer]
    std = math.sqrt(2 / fan_in)
    if layer == "conv1":
        std *= recipe.input_std / _PIXEL_STD
    if spec.lrn is not None and layer in ("conv2", "conv3"):
        std *= spec.lrn.k**spec.lrn.beta  # compensates for the preceding normalization
    return std
