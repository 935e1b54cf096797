"""What a network, or several averaged, said of each photograph, in a few numbers.

N photographs, K classes of the model, T = min(5, K). The class that is predicted is the most likely
one, of equals the first; `top_k_credit` instead counts them in fractions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.errors import UsageError
from alexnet_deploy.photographs.truth_files import Labelled

_TOP = 5
_CHUNK = 1000  # rows at a time, so that what is computed on the way stays small


def top_k_credit(
    scores: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]], k: int
) -> NDArray[np.float64]:
    """Return each photograph's contribution to the top-k accuracy, ties counted fractionally.

    With `g` classes above the true one and `e` equal to it, itself included, the credit is the
    probability that it is among the first k if ties are ordered at random: (k - g) / e, clipped to
    0..1. The 2012 code does the same; a network with equal outputs then scores k / K, not 1. If
    K <= k, everything is correct.

    Args:
        scores: [N, K] probabilities or logits; a row with a NaN scores 0.
        labels: [N] true classes, 0 .. K - 1.
        k: 1 or more.

    Returns:
        [N] float64, 0..1.

    Raises:
        UsageError: k is below 1, or a label is out of range.
    """
    num_classes = scores.shape[1]
    if k < 1:
        raise UsageError(f"k: got {k}, expected 1 or more")
    if labels.size and not 0 <= labels.min() <= labels.max() < num_classes:
        raise UsageError(
            f"labels: got {labels.min()} .. {labels.max()}, expected 0 .. {num_classes - 1}"
        )
    true = np.take_along_axis(scores, labels[:, np.newaxis], axis=1)
    num_above = np.count_nonzero(scores > true, axis=1)
    num_equal = np.count_nonzero(scores == true, axis=1)  # 0 beside a NaN
    credit: NDArray[np.float64] = np.clip((k - num_above) / np.maximum(num_equal, 1), 0.0, 1.0)
    credit[np.isnan(scores).any(axis=1)] = 0.0
    return credit


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Predictions:
    """The most likely classes of each photograph, and how its true class stands.

    Where a photograph has failed, its numbers mean nothing.

    Attributes:
        photographs: [N], with their paths.
        labels: [K], names of the outputs.
        failures: why a photograph could not be read, by its number, in the order encountered.
        truth: [N] int64, output of the true class.
        top: [N, T] int64, most likely first, of equals the lower output first.
        probabilities: [N, T] float32, of `top`.
        true_probability: [N] float32.
        true_rank: [N] int64, 1 + the number of more likely classes.
        top1: [N] float64, credit; see `top_k_credit`.
        top5: [N] float64.
    """

    photographs: Labelled
    labels: tuple[str, ...]
    failures: Mapping[int, str]
    truth: NDArray[np.int64]
    top: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    true_probability: NDArray[np.float32]
    true_rank: NDArray[np.int64]
    top1: NDArray[np.float64]
    top5: NDArray[np.float64]

    @classmethod
    def from_probabilities(
        cls,
        probabilities: NDArray[np.float32],
        truth: NDArray[np.int64],
        *,
        photographs: Labelled,
        labels: tuple[str, ...],
        failures: Mapping[int, str],
    ) -> Self:
        """Reduce [N, K] probabilities; see the attributes for the others."""
        size = len(truth)
        top = np.zeros((size, min(_TOP, probabilities.shape[1])), np.int64)
        own, rank = np.zeros(size, np.float32), np.zeros(size, np.int64)
        top1, top5 = np.zeros(size), np.zeros(size)
        for start in range(0, size, _CHUNK):
            rows = slice(start, start + _CHUNK)
            scores, classes = probabilities[rows], truth[rows]
            top[rows] = np.argsort(-scores, axis=1, kind="stable")[:, : top.shape[1]]
            own[rows] = np.take_along_axis(scores, classes[:, np.newaxis], axis=1)[:, 0]
            rank[rows] = 1 + np.count_nonzero(scores > own[rows, np.newaxis], axis=1)
            top1[rows], top5[rows] = (top_k_credit(scores, classes, k) for k in (1, _TOP))
        return cls(
            photographs=photographs,
            labels=labels,
            failures=failures,
            truth=truth,
            top=top,
            probabilities=np.take_along_axis(probabilities, top, axis=1),
            true_probability=own,
            true_rank=rank,
            top1=top1,
            top5=top5,
        )

    @property
    def is_counted(self) -> NDArray[np.bool_]:
        """[N] bool: whether the photograph was read."""
        counted = np.ones(len(self.truth), np.bool_)
        counted[list(self.failures)] = False
        return counted

    @property
    def is_right(self) -> NDArray[np.bool_]:
        """[N] bool: whether the class that is predicted is the true one."""
        right: NDArray[np.bool_] = self.top[:, 0] == self.truth
        return right
