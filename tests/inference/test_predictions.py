"""The most likely classes and the confusion matrix, against plain sorting and counting."""

import csv
import io
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alexnet_deploy.inference.confusion import confusion_matrix
from tests.support.predictions import one_for_one, predictions_of


@pytest.mark.parametrize("num_classes", [1, 3, 7])
def test_each_row_is_that_of_a_plain_sort_of_more_photographs_than_fit_in_a_step(
    num_classes: int,
) -> None:
    rng = np.random.default_rng(num_classes)
    scores = rng.integers(0, 4, (2_300, num_classes)) / 4  # with many ties
    truth = rng.integers(0, num_classes, len(scores))
    found = predictions_of(scores, truth, failures={7: "is empty", 2_299: "is empty"})
    for number, (row, label) in enumerate(zip(scores.tolist(), truth.tolist(), strict=True)):
        ranked = sorted(range(num_classes), key=lambda index: (-row[index], index))[:5]
        assert found.top[number].tolist() == ranked
        assert found.probabilities[number].tolist() == [row[index] for index in ranked]
        assert found.true_rank[number] == 1 + sum(other > row[label] for other in row)
        assert found.true_probability[number] == row[label]
        assert found.is_right[number] == (ranked[0] == label)
        if row.count(row[label]) == 1:
            assert found.top1[number] == (ranked[0] == label)
            assert found.top5[number] == (label in ranked)
    assert np.flatnonzero(~found.is_counted).tolist() == [7, 2_299]


LABELS = ("dog", "cat", "=cat()", "crane", "crane")


@given(pairs=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=40))
def test_the_matrix_counts_each_pair_and_the_table_holds_it(pairs: list[tuple[int, int]]) -> None:
    failed = {len(pairs) - 1: "is empty"}
    matrix = confusion_matrix(one_for_one(pairs, LABELS, failures=failed))
    counts = Counter(pairs[:-1])
    outputs = sorted({output for pair in pairs[:-1] for output in pair})
    assert matrix.outputs.tolist() == outputs
    rows = list(csv.reader(io.StringIO(b"".join(matrix.to_csv()).decode())))
    shown = ["dog", "cat", "'=cat()", "crane", "crane"]
    assert rows[0] == ["index", "true", *(shown[output] for output in outputs)]
    for output, row in zip(outputs, rows[1:], strict=True):
        expected = [counts[output, other] for other in outputs]
        assert row == [str(output), shown[output], *map(str, expected)]
    worst = [(one.true, one.predicted, one.num_photographs) for one in matrix.worst(3)]
    of_class = Counter(true for true, _ in pairs[:-1])
    wrong = [pair for pair in counts if pair[0] != pair[1]]
    wrong.sort(key=lambda pair: (-counts[pair], of_class[pair[0]], pair))
    assert worst == [(*pair, counts[pair]) for pair in wrong[:3]]
    assert all(one.num_of_class == of_class[one.true] for one in matrix.worst(99))
