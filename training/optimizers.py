"""The two update rules, and saving and restoring their state.

The paper's rule (section 5), for weights w, gradient g, learning rate e, momentum m and weight
decay d:

    v <- m v - d e w - e g;   w <- w + v

The rate e is inside v, so a lower rate scales new gradients, not the velocity already accumulated.
torch keeps V = -v/e instead, with `w <- w - e V`. The two agree while e is constant; when it
changes, V is multiplied by old rate / new rate, and they agree again.

AdamW divides each gradient by its running magnitude, so that layers with small gradients, such as
conv1 before a normalization, keep pace with the others; its weight decay is decoupled from the
gradient.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from training.networks import Network, layer_of
from training.recipes import Recipe

_MEMORY = ("momentum_buffer", "exp_avg", "exp_avg_sq")
"""torch's names for the optimizer state that has the shape of the weights."""


class PaperSGD(torch.optim.SGD):
    """The paper's rule.

    Args:
        groups: torch's parameter groups, each with a `rate_factor` on its learning rate.
        recipe: gives the learning rate and momentum.

    Attributes:
        rate: learning rate of the last step.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], recipe: Recipe) -> None:
        super().__init__(
            groups,
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            fused=True,  # one pass over the 61 million parameters, not four
        )
        self.rate = recipe.learning_rate

    def set_rate(self, rate: float) -> None:
        """Use `rate` from the next step on."""
        self.rate = rate
        for group in self.param_groups:
            new = rate * group["rate_factor"]
            if new != group["lr"]:
                for parameter in group["params"]:
                    velocity = self.state[parameter].get("momentum_buffer")
                    if velocity is not None:
                        velocity.mul_(group["lr"] / new)
            group["lr"] = new


class AdamW(torch.optim.AdamW):
    """torch's AdamW; arguments and attributes are those of `PaperSGD`."""

    def __init__(self, groups: Iterable[dict[str, Any]], recipe: Recipe) -> None:
        super().__init__(
            groups,
            lr=recipe.learning_rate,
            betas=(recipe.momentum, recipe.second_momentum),
            fused=True,
        )
        self.rate = recipe.learning_rate

    def set_rate(self, rate: float) -> None:
        """Use `rate` from the next step on."""
        self.rate = rate
        for group in self.param_groups:
            group["lr"] = rate * group["rate_factor"]


Optimizer = PaperSGD | AdamW


def optimizer_of(
    network: Network, recipe: Recipe, old_layers: frozenset[str], old_rate_factor: float
) -> Optimizer:
    """Return the optimizer: biases have their own rate and no decay, old layers a lower rate.

    Layers that do not learn (see `networks.set_trained`) are left out.
    """
    groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in _learning(network).items():
        key = name.endswith("bias"), layer_of(name) in old_layers
        groups.setdefault(key, []).append(parameter)
    arguments = [
        {
            "params": parameters,
            "weight_decay": 0.0 if is_bias else recipe.weight_decay,
            "rate_factor": (recipe.bias_rate_factor if is_bias else 1.0)
            * (old_rate_factor if is_old else 1.0),
        }
        for (is_bias, is_old), parameters in groups.items()
    ]
    return (AdamW if recipe.update_rule == "adamw" else PaperSGD)(arguments, recipe)


def memory_of(network: Network, optimizer: Optimizer) -> dict[str, torch.Tensor]:
    """Return the optimizer state, on the CPU; empty before the first step.

    `momentum_buffer.conv1.weight` and so on, by torch's names and merged like the weights; `rate`
    of the last step, which is the unit of V (see above); for AdamW also `step`.
    """
    parameters = _learning(network)
    memory: dict[str, torch.Tensor] = {}
    for kind in _MEMORY:
        kept = {
            name: optimizer.state[parameter][kind]
            for name, parameter in parameters.items()
            if kind in optimizer.state[parameter]
        }
        if kept:
            memory |= {f"{kind}.{name}": tensor for name, tensor in network.merged(kept).items()}
    if not memory:
        return {}
    step = optimizer.state[next(iter(parameters.values()))].get("step")
    if step is not None:
        memory["step"] = step.detach().cpu().clone()
    return memory | {"rate": torch.tensor(optimizer.rate, dtype=torch.float64)}


def set_memory(network: Network, optimizer: Optimizer, memory: Mapping[str, torch.Tensor]) -> None:
    """Restore what `memory_of` returned, on the network's devices and in its memory layout."""
    if not memory:
        return
    optimizer.set_rate(memory["rate"].item())
    parameters = _learning(network)
    for kind in _MEMORY:
        prefix = f"{kind}."
        merged = {
            name.removeprefix(prefix): tensor
            for name, tensor in memory.items()
            if name.startswith(prefix)
        }
        if not merged:
            continue
        parts = network.parts(merged)
        for name, parameter in parameters.items():
            optimizer.state[parameter][kind] = torch.empty_like(parameter).copy_(parts[name])
    if "step" in memory:
        for parameter in parameters.values():
            # The fused update wants it on the parameter's device.
            optimizer.state[parameter]["step"] = memory["step"].to(parameter.device, copy=True)


def _learning(network: Network) -> dict[str, torch.nn.Parameter]:
    return {name: one for name, one in network.named_parameters() if one.requires_grad}
