"""Which photographs a sheet of confused classes shows, and what it says of them."""

from pathlib import Path

import numpy as np

from alexnet_deploy.figures.confusions import NUM_PHOTOGRAPHS, confusion_rows
from alexnet_deploy.figures.sheet_cells import SheetRow
from tests.support.predictions import predictions_of

LABELS = ("water_lilly", "lotus", "anchor")


def shown(row: SheetRow) -> list[tuple[str, str, str]]:
    return [(cell.name, cell.heading, cell.remark) for cell in row.cells]


def test_the_surest_mistakes_come_first_beside_the_surest_of_the_other_class() -> None:
    scores = np.array(
        [
            *([0.3, 0.6, 0.1], [0.2, 0.7, 0.1], [0.9, 0.1, 0.0], [0.004, 0.996, 0.0]),
            *([0.0, 0.8, 0.2], [0.1, 0.85, 0.05], [0.6, 0.4, 0.0], [0.0, 0.99, 0.01]),
        ]
    )
    truth = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    found = predictions_of(scores, truth, labels=LABELS, failures={7: "is empty"})
    first, second = confusion_rows(found)
    assert first.title == "water lilly taken for lotus: 3 of 4"
    assert shown(first) == [
        ("3.png", "100%", "own <1%"),
        ("1.png", "70%", "own 20%"),
        ("0.png", "60%", "own 30%"),
    ]
    assert first.lead is not None
    assert (first.lead.path, first.lead.heading) == (Path("d/5.png"), "85%")
    assert (second.title, len(second.cells)) == ("lotus taken for water lilly: 1 of 3", 1)
    assert second.lead is not None
    assert second.lead.path == Path("d/2.png")


def test_a_class_without_photographs_leaves_the_frame_empty_and_many_are_cut_short() -> None:
    truth = np.zeros(NUM_PHOTOGRAPHS + 3, np.int64)
    scores = np.tile([0.1, 0.2, 0.7], (len(truth), 1))
    (row,) = confusion_rows(predictions_of(scores, truth, labels=LABELS))
    assert row.lead is None
    assert len(row.cells) == NUM_PHOTOGRAPHS
    assert row.title.endswith(f"anchor: {len(truth)} of {len(truth)}")
