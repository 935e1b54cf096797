"""The classes that are confused most, as rows of a sheet."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.figures.classes import display_name, percent
from alexnet_deploy.figures.sheet_cells import Cell, SheetRow, SheetText
from alexnet_deploy.figures.sheets import open_sheet
from alexnet_deploy.inference.confusion import confusion_matrix
from alexnet_deploy.inference.evaluation_report import Evaluation
from alexnet_deploy.inference.predictions import Predictions

NUM_PAIRS, NUM_PHOTOGRAPHS = 20, 8

_TEXT = SheetText(
    title="Classes confused most",
    legend=(
        "Photographs of one class that were taken for another, the surest first. In bold: the "
        "probability of the other class. At the right: that of their own. In the frame: the "
        "photograph that is surest of being of the other class, and rightly so."
    ),
    rows="pairs of classes",
    cells="photographs",
)


@contextmanager
def open_confusions(
    path: Path, *, notify: Callable[[str], None] = lambda _: None
) -> Iterator[Callable[[Evaluation], None]]:
    """Yield the function that draws the sheet; it appears at `path` on exit.

    Args:
        path: as for `sheets.open_sheet`.
        notify: as for `sheets.open_sheet`.

    Raises:
        UsageError: as `sheets.open_sheet`.
        OutputError: the file cannot be written.
    """
    with open_sheet(path, _TEXT, notify=notify) as add:

        def add_all(found: Evaluation) -> None:
            for row in confusion_rows(found.predictions):
                add(row)

        yield add_all


def confusion_rows(found: Predictions) -> Iterator[SheetRow]:
    """Yield a row for each of the `NUM_PAIRS` worst pairs of classes.

    Each has up to `NUM_PHOTOGRAPHS` of one class that were taken for the other, and in the frame
    the surest of the other class, if the photographs have that class.
    """
    counted = found.is_counted
    for pair in confusion_matrix(found).worst(NUM_PAIRS):
        of_other = np.flatnonzero(counted & (found.truth == pair.predicted))
        is_taken = counted & (found.truth == pair.true) & (found.top[:, 0] == pair.predicted)
        cells = tuple(_cells(found, np.flatnonzero(is_taken)))
        lead = None
        if len(of_other):
            surest = int(of_other[found.true_probability[of_other].argmax()])
            lead = _cell(found, surest, found.true_probability[surest], "")
        yield SheetRow(lead=lead, cells=cells, title=display_name(pair.describe()))


def _cells(found: Predictions, numbers: NDArray[np.int64]) -> Iterator[Cell]:
    order = np.argsort(-found.probabilities[numbers, 0], kind="stable")[:NUM_PHOTOGRAPHS]
    for number in numbers[order].tolist():
        own = percent(float(found.true_probability[number]))
        yield _cell(found, number, found.probabilities[number, 0], f"own {own}")


def _cell(found: Predictions, number: int, probability: np.float32, remark: str) -> Cell:
    return Cell(
        photograph=found.photographs.path(number),
        heading=percent(float(probability)),
        remark=remark,
        error=None,
    )
