"""The picture of a confusion matrix, read back from its pixels."""

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from alexnet_deploy.figures.matrices import draw_matrix
from alexnet_deploy.inference.confusion import ConfusionMatrix, confusion_matrix
from tests.support.predictions import one_for_one

WHITE = 255.0


def matrix_of(counts: NDArray[np.int64]) -> ConfusionMatrix:
    true, predicted = counts.nonzero()
    return ConfusionMatrix(
        outputs=np.arange(len(counts)),
        labels=tuple(f"class {index}" for index in range(len(counts))),
        true=true,
        predicted=predicted,
        counts=counts[true, predicted],
        row_sums=counts.sum(axis=1),
    )


def luminance(picture: Image.Image) -> NDArray[np.float64]:
    return (np.asarray(picture.convert("RGB"), float) @ [0.2126, 0.7152, 0.0722]).round(6)


def cells(picture: Image.Image, size: int, cell: int) -> NDArray[np.float64]:
    """Return the luminance near a corner of each cell; the frame round them all is found first."""
    framed = (np.asarray(picture.convert("RGB")) == [0xDF, 0xE3, 0xE8]).all(axis=2)
    side = size * cell + 4
    top = int((framed.sum(axis=1) == side).argmax()) + 2
    left = int((framed.sum(axis=0) == side).argmax()) + 2
    off = min(3, cell - 1)
    places = np.arange(size) * cell + off
    return luminance(picture)[np.ix_(top + places, left + places)]


def test_the_larger_the_share_the_darker_and_only_nothing_is_white() -> None:
    size = 20
    counts = np.zeros((size, size), np.int64)
    counts[:, 0] = np.arange(size) ** 2 + 1  # 1 to 362 of 400
    counts[:, -1] = 400 - counts[:, 0]
    shades = cells(draw_matrix(matrix_of(counts)), size, 110)
    assert (np.diff(shades[:, 0]) < 0).all()
    assert (np.diff(shades[:, -1]) >= 0).all(), "nearly all, so hardly lighter"
    assert (shades[:, 1:-1] == WHITE).all()
    assert shades[0, 0] < 235, "one of 400 is seen"
    assert shades[-1, 0] < 60


def test_a_row_is_a_true_class_and_its_photographs_make_it_whole() -> None:
    counts = np.array([[3, 1, 0], [0, 300, 100], [0, 0, 7]])
    shades = cells(draw_matrix(matrix_of(counts)), 3, 120)
    assert shades[0, 0] == shades[1, 1], "3 of 4 and 300 of 400"
    assert shades[0, 1] == shades[1, 2] > shades[2, 2]
    assert (shades[counts == 0] == WHITE).all()


@pytest.mark.parametrize("size", [1, 2, 101, 183, 184, 1000, 2201])
def test_any_number_of_classes_makes_a_picture_of_a_page(size: int) -> None:
    pairs = [(index, index) for index in range(size)]
    labels = tuple(f"one of the longer names, \u5199 {index}\n" for index in range(size))
    picture = draw_matrix(confusion_matrix(one_for_one(pairs, labels)))
    assert max(picture.size) < 3000
    drawn, cell = min(size, 2200), min(120, 2200 // min(size, 2200))
    shades = cells(picture, drawn, cell)
    assert shades.diagonal().max() < 60
    assert (shades[~np.eye(drawn, dtype=bool)] == WHITE).all()
