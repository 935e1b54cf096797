"""Stochastic gradient descent by the paper's rule, and the rates that it runs at (section 5).

    v <- m v - d e w - e g;   w <- w + v

The rate e sits inside v, so a lower rate slows what comes in, not what is already moving. torch
keeps V = -v/e instead: `w <- w - e V`. While e stays the two are equal; where it changes, V is
multiplied by old rate / new rate, and they are equal again.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from training.recipes import Recipe
from training.towers import TwoTowers
from training.weights import merge, split


class SGD(torch.optim.SGD):
    """torch's SGD, with a rate for each step and, if asked for, the paper's velocity.

    Args:
        groups: as torch takes them, each with `rate_factor`: what its rate is multiplied with.
        recipe: momentum, Nesterov's form, and whose rule.

    Attributes:
        rate: of the last step.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], recipe: Recipe) -> None:
        super().__init__(
            groups,
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            fused=True,  # one pass over the 61 million parameters, not four
        )
        self._rate_in_velocity = recipe.rate_in_velocity
        self.rate = recipe.learning_rate

    def set_rate(self, rate: float) -> None:
        """Use `rate` from the next step on."""
        self.rate = rate
        for group in self.param_groups:
            new = rate * group["rate_factor"]
            if self._rate_in_velocity and new != group["lr"]:
                for parameter in group["params"]:
                    velocity = self.state[parameter].get("momentum_buffer")
                    if velocity is not None:
                        velocity.mul_(group["lr"] / new)
            group["lr"] = new


def one_cycle(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """Return the rate of step `step` (from 0): up a line, down half a cosine, 0 at the end."""
    total = recipe.num_epochs * steps_per_epoch
    warm_up = min(recipe.warm_up_epochs * steps_per_epoch, total / 2)
    if step < warm_up:
        return recipe.learning_rate * (step + 1) / (warm_up + 1)
    share = (step - warm_up) / (total - warm_up)
    return recipe.learning_rate * (1 + math.cos(math.pi * share)) / 2


@dataclass(slots=True, kw_only=True)
class Plateau:
    """Divide the rate by ten when the validation error (0..1) stalls; its fields are its state.

    Stalls count from when the network is better than guessing: with the paper's initialisation
    the loss stays at ln K for hundreds of steps, and a lower rate would keep it there.
    """

    lowest_error: float = 1.0
    num_stalled_epochs: int = 0
    num_divisions: int = 0

    def rate(self, recipe: Recipe) -> float:
        """Return the rate of the epoch that comes."""
        return recipe.learning_rate / float(10**self.num_divisions)

    def update(self, error: float, guessing_error: float, recipe: Recipe) -> None:
        """Take in the validation error of an epoch that ended.

        Args:
            error: share of the validation photographs that were wrong.
            guessing_error: the same for naming the most frequent class of them all.
            recipe: how long is a stall, and how often it may come.
        """
        if error < self.lowest_error:
            self.lowest_error, self.num_stalled_epochs = error, 0
        elif self.lowest_error < guessing_error:
            self.num_stalled_epochs += 1
        stalled = self.num_stalled_epochs >= recipe.patience
        if stalled and self.num_divisions < recipe.num_divisions:
            self.num_stalled_epochs = 0
            self.num_divisions += 1


def optimizer_of(
    network: TwoTowers, recipe: Recipe, old_layers: frozenset[str], old_rate_factor: float
) -> SGD:
    """Return the optimiser: biases at their own rate and without decay, old layers slower."""
    groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        layer = name.split(".")[2]
        groups.setdefault((name.endswith("bias"), layer in old_layers), []).append(parameter)
    return SGD(
        [
            {
                "params": parameters,
                "weight_decay": 0.0 if is_bias else recipe.weight_decay,
                "rate_factor": (recipe.bias_rate_factor if is_bias else 1.0)
                * (old_rate_factor if is_old else 1.0),
            }
            for (is_bias, is_old), parameters in groups.items()
        ],
        recipe,
    )


def velocity_of(network: TwoTowers, optimizer: SGD) -> dict[str, torch.Tensor]:
    """Return the optimiser's velocity, merged as weights are; empty before the first step.

    `rate`, of the last step, is with it: it is the unit of V (see above).
    """
    buffers = {
        name: optimizer.state[parameter]["momentum_buffer"]
        for name, parameter in network.named_parameters()
        if "momentum_buffer" in optimizer.state[parameter]
    }
    if not buffers:
        return {}
    return merge(buffers) | {"rate": torch.tensor(optimizer.rate, dtype=torch.float64)}


def set_velocity(network: TwoTowers, optimizer: SGD, velocity: Mapping[str, torch.Tensor]) -> None:
    """Undo `velocity_of`, on the network's devices and in its layout of memory."""
    if not velocity:
        return
    optimizer.set_rate(velocity["rate"].item())
    parts = split({name: tensor for name, tensor in velocity.items() if name != "rate"})
    for name, parameter in network.named_parameters():
        buffer = torch.empty_like(parameter).copy_(parts[name])
        optimizer.state[parameter]["momentum_buffer"] = buffer
