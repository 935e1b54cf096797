"""Which classes are taken for which: the confusion matrix and its largest entries.

C classes that a photograph has or was taken for, in the order of the model's outputs.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.files.csv_text import csv_row, text_cell
from alexnet_deploy.inference.predictions import Predictions


@dataclass(frozen=True, slots=True, kw_only=True)
class Confusion:
    """Photographs of one class that were taken for another.

    Attributes:
        true: output of their class.
        predicted: output of the other.
        true_label: the class.
        predicted_label: the other.
        num_photographs: that were taken for it.
        num_of_class: all photographs of the class.
    """

    true: int
    predicted: int
    true_label: str
    predicted_label: str
    num_photographs: int
    num_of_class: int

    def describe(self) -> str:
        """Return a line for people, with the labels as they are."""
        counts = f"{self.num_photographs:,} of {self.num_of_class:,}"
        return f"{self.true_label} taken for {self.predicted_label}: {counts}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ConfusionMatrix:
    """Counts of photographs by true and predicted class, without what has failed.

    Attributes:
        outputs: [C] int64, ascending: which output each row and column is.
        labels: [C] names of these.
        true: [E] int64, row of each entry above 0, ascending.
        predicted: [E] int64, column.
        counts: [E] int64, photographs.
        row_sums: [C] int64, photographs of each class.
    """

    outputs: NDArray[np.int64]
    labels: tuple[str, ...]
    true: NDArray[np.int64]
    predicted: NDArray[np.int64]
    counts: NDArray[np.int64]
    row_sums: NDArray[np.int64]

    def to_csv(self) -> Iterator[bytes]:
        """Yield a header and a row for each true class: its output, its name, and the counts.

        Columns are in the order of the rows, since two outputs may have one name.
        """
        names = [text_cell(label) for label in self.labels]
        yield csv_row(["index", "true", *names])
        starts = np.searchsorted(self.true, np.arange(len(names) + 1))
        for row, name in enumerate(names):
            own = slice(starts[row], starts[row + 1])
            dense = np.zeros(len(names), np.int64)
            dense[self.predicted[own]] = self.counts[own]
            yield csv_row([self.outputs[row], name, *dense.tolist()])

    def worst(self, k: int) -> tuple[Confusion, ...]:
        """Return the `k` pairs with the most photographs, of equals the larger share first."""
        of_class = self.row_sums[self.true]
        order = np.lexsort((self.predicted, self.true, of_class, -self.counts))
        order = order[self.true[order] != self.predicted[order]]
        return tuple(
            Confusion(
                true=int(self.outputs[self.true[entry]]),
                predicted=int(self.outputs[self.predicted[entry]]),
                true_label=self.labels[self.true[entry]],
                predicted_label=self.labels[self.predicted[entry]],
                num_photographs=int(self.counts[entry]),
                num_of_class=int(of_class[entry]),
            )
            for entry in order[:k].tolist()
        )


def confusion_matrix(found: Predictions) -> ConfusionMatrix:
    """Count the photographs of each class that were taken for each."""
    counted = found.is_counted
    pairs = np.stack([found.truth[counted], found.top[counted, 0]])
    outputs, places = np.unique(pairs, return_inverse=True)
    true, predicted = places.reshape(pairs.shape)
    entries, counts = np.unique(true * len(outputs) + predicted, return_counts=True)
    return ConfusionMatrix(
        outputs=outputs,
        labels=tuple(found.labels[output] for output in outputs.tolist()),
        true=entries // len(outputs),
        predicted=entries % len(outputs),
        counts=counts.astype(np.int64),
        row_sums=np.bincount(true, minlength=len(outputs)),
    )
