"""The chart of a benchmark: bars as long as what they stand for."""

import numpy as np
import pytest
from PIL import Image, ImageColor

from alexnet_deploy.figures.rates import draw_chart
from tests.support.measured import FIRST, bench_of, row_of, seconds

ALONE, TOGETHER = "#b9cfe8", "#3f76b5"


def lengths(picture: Image.Image, colour: str) -> list[int]:
    """Return the px from the first to the last of a colour, of each line that has it."""
    found = (np.asarray(picture) == ImageColor.getrgb(colour)).all(axis=2)
    return [int(np.ptp(np.flatnonzero(line))) + 1 for line in found if line.any()]


def test_bars_are_as_long_as_the_rates() -> None:
    faster = seconds(decoding=1, network=2, whole=3)
    picture = draw_chart(bench_of(row_of(FIRST), row_of(faster, precision="bf16")))
    longest = max(lengths(picture, ALONE))
    alone = sorted({round(each / longest, 2) for each in lengths(picture, ALONE)})
    assert alone == [0.25, 0.5, 1]
    together = sorted({round(each / longest, 2) for each in lengths(picture, TOGETHER)})
    assert together == pytest.approx([1 / 6, 1 / 3], abs=0.01)
