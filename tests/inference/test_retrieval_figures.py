"""Average precision, precision and recall, against rankings written out in every order."""

import numpy as np
import pytest
from numpy.typing import NDArray

from alexnet_deploy.inference import retrieval_figures
from alexnet_deploy.inference.retrieval_figures import figures_of
from tests.support.plain_retrieval import plain_figures


def measured(distances: NDArray[np.float32], labels: NDArray[np.int32]) -> NDArray[np.float64]:
    before = distances.copy()
    found = figures_of(lambda queries: distances[queries], labels)
    assert (distances == before).all()
    return found


@pytest.mark.parametrize("levels", [1, 2, 3, 1000])
def test_each_figure_is_the_mean_over_all_orders_of_what_ties(levels: int) -> None:
    random = np.random.default_rng(levels)
    for num_photographs in (2, 3, 5, 7):
        distances = random.integers(levels, size=(num_photographs,) * 2).astype(np.float32)
        labels = random.integers(3, size=num_photographs, dtype=np.int32)
        expected = plain_figures(distances, labels.tolist())
        np.testing.assert_allclose(measured(distances, labels), expected, rtol=1e-12)


def test_without_ties_they_are_those_of_the_ranking(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(7)
    distances = random.permutation(150 * 150).reshape(150, 150).astype(np.float32)
    labels = random.integers(4, size=150, dtype=np.int32)
    labels[17] = 9  # alone: no query, but in everybody's way
    expected = plain_figures(distances, labels.tolist())
    assert np.isnan(expected[17]).all()
    np.testing.assert_allclose(measured(distances, labels), expected, rtol=1e-12)
    monkeypatch.setattr(retrieval_figures, "_BLOCK", 40 * 150)  # the last block is shorter
    np.testing.assert_allclose(measured(distances, labels), expected, rtol=1e-12)


def test_a_query_does_not_find_itself() -> None:
    labels = np.array([0, 0, 1, 1], np.int32)
    ranks = np.array([[0, 3, 1, 2]] * 4, np.float32)
    np.fill_diagonal(ranks, -9)
    np.testing.assert_allclose(
        measured(ranks, labels)[:, 0], plain_figures(ranks, labels.tolist())[:, 0]
    )
    assert measured(ranks, labels)[0, 0] == 1 / 3  # the only one of its class is the last


def test_codes_that_are_all_the_same_retrieve_by_chance() -> None:
    labels = np.repeat(np.arange(2, dtype=np.int32), 50)
    row = measured(np.zeros((100, 100), np.float32), labels)[0]
    assert row[1] == row[2] == pytest.approx(49 / 99)
    assert row[3] == pytest.approx(10 / 99)
    assert row[4] == 1
