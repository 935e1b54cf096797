"""One training step and one validation pass.

All randomness in a step derives from (seed, step), and the order of an epoch from (seed, epoch), so
an interrupted and resumed run draws the same numbers as an uninterrupted one.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from alexnet_deploy.errors import AlexNetDeployError, Argument, DatasetError, Message
from alexnet_deploy.inference.predictions import top_k_credit
from training.augmentation import Augmentation
from training.networks import Network
from training.optimizers import Optimizer
from training.photographs import PhotographBatch
from training.recipes import Recipe
from training.towers import Dropout

Precision = Literal["fp32", "tf32", "bf16"]
"""Of products; weights are float32. "tf32" keeps 10 mantissa bits, on GPUs."""

EXPLODED = 20.0
"""A loss this many times that of guessing (ln K) has diverged..."""
EXPLODED_AT_LEAST = 100.0
"""...but with few classes and small batches a single mislabelled photograph can cost as much."""


class DivergedError(AlexNetDeployError):
    """The loss became infinite, NaN, or far larger than that of guessing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """Validation results: mean cross-entropy in nats, and accuracies, 0..1."""

    loss: float
    top1: float
    top5: float
    mean_class_top1: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """Sums over the photographs of one step; a blend counts as its larger part."""

    loss: float
    num_right: int
    num_photographs: int


class Trainer:
    """A network with its optimizer.

    Args:
        network: with weights scaled for the recipe's form of dropout.
        recipe: gives dropout, label smoothing and mixup.
        optimizer: of the network's parameters.
        augmentation: from pictures to inputs, on the network's first device.
        precision: "bf16" runs products under autocast, with float32 weights.
        seed: of everything random.
    """

    def __init__(
        self,
        network: Network,
        recipe: Recipe,
        optimizer: Optimizer,
        augmentation: Augmentation,
        *,
        precision: Precision,
        seed: int,
    ) -> None:
        self.network = network
        self.recipe = recipe
        self.optimizer = optimizer
        self._augmentation = augmentation
        self._precision = precision
        self._seed = seed

    def step(self, batch: PhotographBatch, step: int, rate: float) -> StepResult:
        """Take one step on a mini-batch of one photograph or more.

        Args:
            batch: pictures and labels.
            step: its number in the run, from 0.
            rate: the learning rate of weights.

        Raises:
            DivergedError: the loss has diverged; this step has not changed the weights.
        """
        device = self.network.devices[0]
        seeds = np.random.SeedSequence((self._seed, step)).generate_state(4).tolist()
        generator = torch.Generator().manual_seed(seeds[0])
        inputs = self._augmentation.for_training(batch.images.to(device), generator)
        labels = batch.labels.to(device)
        blend = self._blend(len(labels), seeds[3])
        if blend is not None:
            share, partners = blend[0], blend[1].to(device)
            inputs = inputs.lerp(inputs[partners], 1 - share)
        with torch.autocast(device.type, torch.bfloat16, enabled=self._precision == "bf16"):
            logits = self.network(inputs, self._dropout(seeds[1:3])).float()
        loss = self._loss(logits, labels)
        if blend is not None:
            loss = share * loss + (1 - share) * self._loss(logits, labels[partners])
        right = (logits.argmax(1) == labels).sum()
        # Read both at once: on a GPU every read synchronizes.
        value, num_right = torch.stack([loss.detach(), right.float()]).tolist()
        self._check(value, f"step {step}", rate)
        self.optimizer.set_rate(rate)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        count = len(labels)
        return StepResult(loss=value * count, num_right=int(num_right), num_photographs=count)

    @torch.no_grad()
    def validate(self, batches: Iterable[PhotographBatch], step: int = 0) -> Validation:
        """Evaluate centre crops, without dropout.

        Args:
            batches: all photographs to validate on.
            step: number of steps taken, for error messages.

        Raises:
            DatasetError: no photograph could be read.
            DivergedError: the loss has diverged.
        """
        device = self.network.devices[0]
        losses, scores, classes = [], [], []
        for batch in batches:
            if not len(batch.labels):
                continue
            inputs = self._augmentation.for_validation(batch.images.to(device))
            with torch.autocast(device.type, torch.bfloat16, enabled=self._precision == "bf16"):
                logits = self.network(inputs, self._in_use).float().cpu()
            losses.append(F.cross_entropy(logits, batch.labels, reduction="none"))
            scores.append(logits.numpy())
            classes.append(batch.labels.numpy())
        if not losses:
            raise DatasetError(
                "validation: none of its photographs can be read; check the files, or give another "
                "folder"
            )
        found = _validation(torch.cat(losses), np.concatenate(scores), np.concatenate(classes))
        self._check(found.loss, f"validation after {step} steps", self.optimizer.rate)
        return found

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(logits, labels, label_smoothing=self.recipe.label_smoothing)

    def _blend(self, count: int, seed: int) -> tuple[float, torch.Tensor] | None:
        """Return each picture's weight in its blend, 0.5..1, and the partners, or None."""
        if not self.recipe.mixup:
            return None
        rng = np.random.default_rng(seed)
        share = float(rng.beta(self.recipe.mixup, self.recipe.mixup))
        return max(share, 1 - share), torch.from_numpy(rng.permutation(count))

    def _dropout(self, seeds: Sequence[int]) -> Dropout:
        devices = self.network.devices
        generators = [
            torch.Generator(device).manual_seed(seed)
            for device, seed in zip(devices, seeds, strict=False)  # one device needs one
        ]
        keep = 1 - self.recipe.dropout_rate
        scale = 1 / keep if self.recipe.dropout == "inverted" else 1.0

        def drop(hidden: torch.Tensor, layer: str, tower: int) -> torch.Tensor:
            mask = torch.empty_like(hidden).bernoulli_(keep, generator=generators[tower])
            return hidden * mask.mul_(scale)

        return drop

    def _in_use(self, hidden: torch.Tensor, layer: str, tower: int) -> torch.Tensor:
        if self.recipe.dropout == "inverted":
            return hidden
        return hidden * (1 - self.recipe.dropout_rate)  # section 4.2

    def _check(self, loss: float, when: str, rate: float) -> None:
        guessing = math.log(max(2, self.network.spec.num_classes))
        limit = max(EXPLODED * guessing, EXPLODED_AT_LEAST)
        if loss < limit:
            return
        raise DivergedError(
            f"{when}: the loss is {loss:.3g} at learning rate {rate:.3g}, expected less than "
            f"{limit:.0f} (guessing has {guessing:.3g}); the last checkpoint is intact: ",
            lower_rate(self.recipe),
            ", or look for mislabelled pictures",
        )


def lower_rate(recipe: Recipe) -> Message:
    """Return the remedy for too high a learning rate."""
    return Message(
        "begin again in another ",
        Argument("output"),
        " with a lower rate, such as ",
        Argument("recipe.learning_rate", float(f"{recipe.learning_rate / 10:.2g}")),
        ", from that checkpoint with ",
        Argument("init"),
        ", or from new weights",
    )


def _validation(
    losses: torch.Tensor, scores: NDArray[np.float32], classes: NDArray[np.int64]
) -> Validation:
    right = top_k_credit(scores, classes, 1)
    counts = np.bincount(classes)
    present = counts > 0
    by_class = np.bincount(classes, weights=right)[present] / counts[present]
    return Validation(
        loss=float(losses.double().mean()),
        top1=float(right.mean()),
        top5=float(top_k_credit(scores, classes, 5).mean()),
        mean_class_top1=float(by_class.mean()),
    )
