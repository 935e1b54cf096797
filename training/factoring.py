"""Shrink a trained network: fc6 and fc7 as products of two thin matrices.

First each matrix W is replaced by the rank-r product that best approximates it on photographs,
not on all possible inputs: with z = W x over the inputs x that occur, and the r leading
eigenvectors of the mean of z z^T as columns of U, no product of rank r is nearer to z than
U (U^T W) x. Then the factors and fc8 are distilled for a few epochs from the full network. conv1
to conv5 are frozen, so that a step costs little more than a forward pass.

    N photographs; D = 9216, pool5; K classes
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from alexnet_deploy.model.checkpoints import FACTORED
from training.augmentation import Augmentation
from training.networks import Network
from training.photographs import PhotographBatch

_TEMPERATURE = 2.0
"""Softens the full network's outputs: how it ranks the other classes is informative, too."""
_LEARNING_RATE = 2e-4  # of Adam
_DROPOUT = 0.5  # section 4.2


class Classifier(nn.Module):
    """fc6 to fc8 on one device; a layer given as two factors is their product.

    Args:
        weights: float32, under the package's names: `fc6.weight`, or `fc6.weight.left` (4096, r)
            and `fc6.weight.right` (r, D), and so on.
    """

    def __init__(self, weights: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        # torch does not allow dots in names.
        self._weights = nn.ParameterDict(
            {name.replace(".", "_"): nn.Parameter(tensor) for name, tensor in weights.items()}
        )

    def forward(
        self, pool5: torch.Tensor, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """Return (N, K) logits of (N, D) pool5; with a generator, under inverted dropout."""
        x = pool5
        for layer in FACTORED:
            x = F.relu(self.product(layer, x) + self._weights[f"{layer}_bias"])
            if generator is not None:
                mask = torch.empty_like(x).bernoulli_(1 - _DROPOUT, generator=generator)
                x = x * mask.div_(1 - _DROPOUT)
        return F.linear(x, self._weights["fc8_weight"], self._weights["fc8_bias"])

    def product(self, layer: str, x: torch.Tensor) -> torch.Tensor:
        """Return a layer's output without the bias."""
        if f"{layer}_weight" in self._weights:
            return F.linear(x, self._weights[f"{layer}_weight"])
        x = F.linear(x, self._weights[f"{layer}_weight_right"])
        return F.linear(x, self._weights[f"{layer}_weight_left"])

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Return copies of the weights under the package's names."""
        return {
            name.replace("_", "."): parameter.detach().cpu().numpy().copy()
            for name, parameter in self._weights.items()
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """Ranks of the products that replace fc6 and fc7."""

    fc6: int
    fc7: int


class Factoring:
    """The full network, and the small classifier distilled from it.

    Args:
        network: the full network, for its pool5; not changed.
        arrays: its weights, under the package's names.
        augmentation: of the photographs, on the network's first device.
        seed: of crops and dropout.
    """

    def __init__(
        self,
        network: Network,
        arrays: Mapping[str, NDArray[np.float32]],
        augmentation: Augmentation,
        seed: int,
    ) -> None:
        self._network = network
        self._augmentation = augmentation
        self._device = network.devices[0]
        self._whole = Classifier(
            {
                name: torch.from_numpy(array).to(self._device)
                for name, array in arrays.items()
                if name.startswith("fc")
            }
        )
        self._crops = torch.Generator().manual_seed(seed)
        self._masks = torch.Generator(self._device).manual_seed(seed)

    @torch.no_grad()
    def decompose(self, batches: Iterable[PhotographBatch], ranks: Ranks) -> Classifier:
        """Return the small classifier that is nearest on `batches`, before any training."""
        sums = {layer: torch.zeros((), device=self._device) for layer in FACTORED}
        for batch in batches:
            x = self._pool5(batch)
            for layer in FACTORED:
                z = self._whole.product(layer, x).double()
                sums[layer] = sums[layer] + z.T @ z
                x = F.relu(z.float() + self._whole.get_parameter(f"_weights.{layer}_bias"))
        weights = {name: torch.from_numpy(array) for name, array in self._whole.arrays().items()}
        for layer in FACTORED:
            name = f"{layer}.weight"
            left, right = nearest_factors(
                weights.pop(name), sums[layer].cpu(), getattr(ranks, layer)
            )
            weights |= {f"{name}.left": left, f"{name}.right": right}
        return Classifier(weights).to(self._device)

    def learn(
        self, classifier: Classifier, batches: Iterable[PhotographBatch], num_steps: int
    ) -> float:
        """Distil the full network into a classifier; return the mean loss of the last half.

        Args:
            classifier: trained in place.
            batches: `num_steps` of them, or fewer if entire batches could not be read.
            num_steps: over which the learning rate falls to 0 along a cosine.
        """
        optimizer = torch.optim.Adam(classifier.parameters(), lr=_LEARNING_RATE)
        losses = []
        for step, batch in zip(range(num_steps), batches, strict=False):
            for group in optimizer.param_groups:
                group["lr"] = _LEARNING_RATE * (1 + math.cos(math.pi * step / num_steps)) / 2
            with torch.no_grad():
                pool5 = self._pool5(batch)
                target = (self._whole(pool5) / _TEMPERATURE).softmax(1)
            logits = classifier(pool5, self._masks)
            answers = (logits / _TEMPERATURE).log_softmax(1)
            loss = F.kl_div(answers, target, reduction="batchmean")
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item())
        return float(np.mean(losses[len(losses) // 2 :]))

    def _pool5(self, batch: PhotographBatch) -> torch.Tensor:
        """Return (N, D) pool5 of augmented crops, first tower first, on the first device."""
        pictures = batch.images.to(self._device)
        maps = self._network.pool5(self._augmentation.for_training(pictures, self._crops))
        return torch.cat([half.to(self._device) for half in maps], dim=1)


def nearest_factors(
    weight: torch.Tensor, outputs: torch.Tensor, rank: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the factors of the product that best approximates a matrix on its inputs.

    Args:
        weight: W, (out, in) float32.
        outputs: (out, out) float64, the sum of z z^T over z = W x.
        rank: columns of the left factor, 1 .. out.

    Returns:
        left (out, rank) and right (rank, in), float32, of equal norm, so that they learn at the
        same pace.
    """
    _, vectors = torch.linalg.eigh(outputs)
    left = vectors[:, -rank:].flip(1)
    right = left.T @ weight.double()
    balance = (right.norm() / left.norm()).sqrt()
    return (left * balance).float(), (right / balance).float()
