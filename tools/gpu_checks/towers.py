"""The trainer on the GPU: its results against the CPU's, and resuming a run."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import torch

from alexnet_deploy.model.spec import ModelSpec, preset_spec
from gpu_checks.check import Figures, Settings, require
from gpu_checks.torch_gpu import both_towers_on_one
from training.augmentation import Augmentation, ColourComponents
from training.devices import use_precision
from training.initialization import initial_weights
from training.optimizers import memory_of, optimizer_of, set_memory
from training.photographs import PhotographBatch
from training.recipes import MODERN, PAPER, Recipe
from training.towers import Devices, TwoTowers
from training.trainer import Precision, Trainer
from training.weights import merge, split

CPU = torch.device("cpu")
NUM_CLASSES = 100
INPUT_SIZE = 100.0
"""Standard deviation of the inputs: large, or LRN would have almost no effect."""

# Largest relative error of the logits, and of one layer's gradient. float64 shows that both compute
# the same function. In the others a ReLU or a pool that flips after rounding changes gradients by
# far more than the rounding itself: on a CPU 3e-3 in fp32, 0.29 in bf16. For the logits fp32
# measures 9e-7.
TOLERANCES: Mapping[str, tuple[float, float]] = {
    "fp64": (1e-9, 1e-9),
    "fp32": (1e-5, 1e-2),
    "tf32": (0.3, 0.3),
    "bf16": (0.6, 0.6),
}
STEPS = 6
RATE_FACTOR = 0.1
"""Fraction of the recipe's learning rate: random labels must not diverge within these steps."""
ORDER_OF_SUMS = 1e-4
"""More than nondeterminism changes weights in so few steps; without momentum they are 0.4 off."""
Weights = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Computed:
    """Logits and gradients, by the package's names, float64, on the CPU."""

    logits: torch.Tensor
    gradients: Mapping[str, torch.Tensor]


def numbers(settings: Settings) -> Figures:
    """Compare logits and every gradient with the CPU's in float64, in each precision.

    Raises:
        Failed: they differ.
        Skipped: this torch is a build for the CPU.
    """
    one = both_towers_on_one()
    pairs = {"one_gpu": one}
    if torch.cuda.device_count() > 1:
        pairs["two_gpus"] = (one[0], torch.device("cuda", 1))
    spec = preset_spec("paper", num_classes=NUM_CLASSES)
    weights = initial_weights(spec, MODERN, seed=0)
    images = inputs_of(spec)
    expected = compute(spec, weights, images, (CPU, CPU), "fp64")
    figures: Figures = {}
    wrong: list[str] = []
    for (name, devices), precision in product(pairs.items(), TOLERANCES):
        found = errors(compute(spec, weights, images, devices, precision), expected)
        figures[f"{name}_{precision}"] = found
        wrong += [
            f"{name} in {precision}, {part} {found[part]:.1e}, allowed {allowed:.0e}"
            for part, allowed in zip(("logits", "gradient"), TOLERANCES[precision], strict=True)
            if not found[part] <= allowed
        ]
    require(not wrong, f"not as on the CPU: {'; '.join(wrong)}", figures)
    return figures


def inputs_of(spec: ModelSpec) -> torch.Tensor:
    """Return (4, 3, S, S) inputs, the same in every run: how many ReLUs flip is chance."""
    generator = torch.Generator().manual_seed(0)
    return INPUT_SIZE * torch.randn(4, 3, spec.input_size, spec.input_size, generator=generator)


def compute(
    spec: ModelSpec, weights: Weights, images: torch.Tensor, devices: Devices, precision: str
) -> Computed:
    """Run a network forwards and backwards.

    Args:
        spec: with the paper's two groups.
        weights: merged, under the package's names.
        images: (N, 3, S, S) network inputs.
        devices: of the towers.
        precision: one of `TOLERANCES`.
    """
    dtype = torch.float64 if precision == "fp64" else torch.float32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    network = TwoTowers(spec, devices).to(dtype)
    network.load_state_dict(split(weights))
    with torch.autocast(devices[0].type, torch.bfloat16, enabled=precision == "bf16"):
        logits = network(images.to(devices[0], dtype)).to(dtype)
    # Distinct labels, or equally wrong classes would hide a bug in fc8.
    teacher = torch.linspace(-1, 1, logits.numel(), dtype=dtype).view(logits.shape)
    torch.autograd.backward((logits * teacher.to(devices[0])).sum())
    gradients = {name: one.grad for name, one in network.named_parameters() if one.grad is not None}
    return Computed(
        logits=logits.detach().double().cpu(),
        gradients={name: tensor.double() for name, tensor in merge(gradients).items()},
    )


def errors(actual: Computed, expected: Computed) -> Figures:
    """Return the relative error of the `logits`, and of the worst `gradient` with its `layer`."""
    by_layer = {
        name: _relative(actual.gradients[name], tensor)
        for name, tensor in expected.gradients.items()
    }
    worst = max(by_layer, key=lambda name: by_layer[name])
    logits = _relative(actual.logits, expected.logits)
    return {"logits": logits, "gradient": by_layer[worst], "layer": worst}


def resume(settings: Settings) -> Figures:
    """Take some steps twice, then in two parts with a new network in between, as when resuming.

    Raises:
        Failed: resuming gives other bits although rerunning gives the same; or, on a GPU whose
            summation order varies from run to run, weights differ by more than that explains.
        Skipped: this torch is a build for the CPU.
    """
    devices = both_towers_on_one()
    torch.backends.cudnn.deterministic = True
    figures: Figures = {"steps": STEPS}
    for recipe in (PAPER, MODERN):
        first, again, resumed = (
            weights_after(recipe, devices, "fp32", stops) for stops in ((), (), (STEPS // 2,))
        )
        repeated, gone_on = _worst(again, first), _worst(resumed, first)
        figures[recipe.name] = {"run_again": repeated, "resumed": gone_on}
        require(
            gone_on <= (ORDER_OF_SUMS if repeated else 0),
            f"{recipe.name}: resumed, weights are {gone_on:.1e} off; run again, {repeated:.1e}",
            figures,
        )
    return figures


def weights_after(
    recipe: Recipe, devices: Devices, precision: Precision, stops: tuple[int, ...] = ()
) -> Weights:
    """Return the merged weights after `STEPS` steps, saving and restoring all at `stops`."""
    use_precision(precision, devices)
    spec = preset_spec("paper", num_classes=NUM_CLASSES)
    preprocessing = dataclasses.replace(spec.preprocessing, std=(recipe.input_std,) * 3)
    spec = dataclasses.replace(spec, preprocessing=preprocessing)
    weights = initial_weights(spec, recipe, seed=0)
    memory: Weights = {}
    for start, end in zip((0, *stops), (*stops, STEPS), strict=True):
        network = TwoTowers(spec, devices)
        network.load_state_dict(split(weights))
        optimizer = optimizer_of(network, recipe, frozenset(), 1.0)
        set_memory(network, optimizer, memory)
        augmentation = Augmentation(spec, recipe, _components(), None, devices[0])
        trainer = Trainer(network, recipe, optimizer, augmentation, precision=precision, seed=0)
        for step in range(start, end):
            trainer.step(_photographs(step), step, RATE_FACTOR * recipe.learning_rate)
        weights = merge(dict(network.named_parameters()))
        memory = memory_of(network, optimizer)
    return weights


def _photographs(step: int, count: int = 16) -> PhotographBatch:
    generator = torch.Generator().manual_seed(step)
    pictures = torch.randint(0, 256, (count, 256, 256, 3), generator=generator, dtype=torch.uint8)
    return PhotographBatch(images=pictures, labels=torch.arange(count) % NUM_CLASSES)


def _components() -> ColourComponents:
    return ColourComponents(vectors=torch.eye(3), stds=torch.tensor([20.0, 37.0, 122.0]))


def _worst(actual: Weights, expected: Weights) -> float:
    return max(_relative(actual[name], expected[name]) for name in expected)


def _relative(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Return ||actual - expected|| / ||expected||; infinity if that is NaN."""
    difference = torch.linalg.vector_norm(actual - expected)
    error = float(difference / torch.linalg.vector_norm(expected))
    return math.inf if math.isnan(error) else error
