"""How far another way to compute agrees with float32, photograph by photograph.

N photographs, K classes, D = 4096.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.verification.comparison import (
    TOLERANCES,
    cosine_similarity,
    relative_error,
    top1_flipped,
)

Layers = Mapping[str, NDArray[np.float32]]
"""fc7 (N, D), and logits (N, K) of a network with a head."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Outputs of the same photographs, compared.

    Attributes:
        same_class: share of the photographs with the same most likely class, 0..1; None without a
            head.
        logits_error_max: largest relative error of a photograph's logits; None without a head.
        fc7_error_max: largest relative error of a photograph's FC7.
        cosine_mean: mean cosine similarity of FC7.
        cosine_min: the lowest.
        is_admitted: whether all is within what `verify` allows a precision.
    """

    same_class: float | None
    logits_error_max: float | None
    fc7_error_max: float
    cosine_mean: float
    cosine_min: float
    is_admitted: bool

    @classmethod
    def of(cls, actual: Layers, expected: Layers, precision: str) -> Self:
        """Compare with float32.

        Args:
            actual: of the same photographs as `expected`, in the same order, one or more.
            expected: in float32, of photographs decoded exactly.
            precision: whose tolerance decides.
        """
        allowed = TOLERANCES[precision]
        actual = {name: _finite(values) for name, values in actual.items()}
        errors = {
            name: max(map(relative_error, actual[name], values))
            for name, values in expected.items()
        }
        cosines = list(map(cosine_similarity, actual["fc7"], expected["fc7"]))
        mean, lowest = float(np.mean(cosines)), min(cosines)
        same, has_flips = None, False
        if "logits" in expected:
            scores, logits = actual["logits"], expected["logits"]
            same = float(np.mean(scores.argmax(axis=1) == logits.argmax(axis=1)))
            flipped = [
                top1_flipped(a, e, allowed.margin) for a, e in zip(scores, logits, strict=True)
            ]
            num_sure = len(flipped) - flipped.count(None)
            has_flips = flipped.count(True) > int(allowed.flips * num_sure)
        return cls(
            same_class=same,
            logits_error_max=errors.get("logits"),
            fc7_error_max=errors["fc7"],
            cosine_mean=mean,
            cosine_min=lowest,
            is_admitted=max(errors.values()) <= allowed.relative
            and lowest >= allowed.cosine
            and mean >= allowed.mean_cosine
            and not has_flips,
        )

    def __str__(self) -> str:
        """Return it in a few words; only what is all is 100 %, and 1 what rounds to it."""
        cosines = f"FC7 cosine {_cosine(self.cosine_mean)} (lowest {_cosine(self.cosine_min)})"
        share = self.same_class
        if share is None:
            return cosines
        percent = "100" if share == 1 else f"{min(share * 100, 99.99):.4g}"
        return f"the same class for {percent} %, {cosines}"


def _finite(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return 0 for what is not a finite number: far from whatever is expected."""
    return np.where(np.isfinite(values), values, np.float32(0))


def _cosine(value: float) -> str:
    return f"{value:.4f}" if value < 0.99995 else f"{min(value, 1.0):.7g}"
