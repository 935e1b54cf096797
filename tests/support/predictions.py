"""Predictions of networks that were never run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.inference.predictions import Predictions
from alexnet_deploy.photographs.truth_files import LabelledFiles


def predictions_of(
    probabilities: NDArray[np.floating[Any]],
    truth: NDArray[np.integer[Any]],
    *,
    labels: tuple[str, ...] = (),
    failures: Mapping[int, str] | None = None,
    folder: Path = Path("d"),
) -> Predictions:
    """Return what [N, K] probabilities say of photographs called 0.png, 1.png, ..."""
    size, num_classes = probabilities.shape
    names = labels or tuple(f"class {index}" for index in range(num_classes))
    photographs = LabelledFiles(
        file=Path("truth.csv"),
        classes=names,
        labels=truth.astype(np.int32),
        paths=tuple(folder / f"{number}.png" for number in range(size)),
        num_unlabelled=0,
    )
    return Predictions.from_probabilities(
        probabilities.astype(np.float32),
        truth.astype(np.int64),
        photographs=photographs,
        labels=names,
        failures=failures or {},
    )


def one_for_one(pairs: list[tuple[int, int]], labels: tuple[str, ...], **more: Any) -> Predictions:
    """Return predictions of photographs, each with its true and its predicted class."""
    truth, predicted = np.array(pairs, np.int64).reshape(-1, 2).T
    return predictions_of(np.eye(len(labels))[predicted], truth, labels=labels, **more)
