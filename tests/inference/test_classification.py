"""Ranking, the API that `classify` calls, and the exact bytes of JSON and CSV."""

import base64
import csv
import io
import itertools
import json
import os
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alexnet_deploy.errors import UsageError
from alexnet_deploy.inference.classification import (
    CSV_HEADER,
    Classification,
    Prediction,
    classify,
    to_csv,
    to_json,
    top_k,
)
from alexnet_deploy.inference.run import RunSummary
from alexnet_deploy.model.spec import preset_spec
from alexnet_deploy.runtimes.base import RunnerOptions
from tests.support.fake_runner import FakeRunner, save_photograph
from tests.support.waiting import threads_have_ended, wait_until

UNSPOKEN = Path(os.fsdecode(b"dir/caf\xe9.jpg"))
CAT = Classification(
    path=Path("imgs/a.jpg"),
    predictions=(
        Prediction(label="cat, tabby", index=7, probability=0.75),
        Prediction(label="dog", index=2, probability=0.1),
    ),
)


@given(st.lists(st.sampled_from([0.0, 0.125, 0.25, 0.5, 1.0]), min_size=1, max_size=12), st.data())
def test_top_k_is_descending_with_ties_by_lower_index(
    values: list[float], data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, len(values) + 3))
    spec = preset_spec("paper", num_classes=len(values))
    ranked = top_k(np.array(values, np.float32), spec, k)
    # The oracle sorts pairs in plain Python.
    expected = sorted(range(len(values)), key=lambda index: (-values[index], index))[:k]
    assert [one.index for one in ranked] == expected
    assert [one.probability for one in ranked] == [values[index] for index in expected]


def test_a_class_without_a_name_is_called_by_its_number() -> None:
    (best,) = top_k(np.array([0.1, 0.9], np.float32), preset_spec("paper", num_classes=2), 1)
    assert best == Prediction(label="class 1", index=1, probability=0.9)


@given(st.floats(0, 1, width=32))
def test_a_probability_is_short_and_still_the_same_float32(value: float) -> None:
    (only,) = top_k(np.array([value], np.float32), preset_spec("paper", num_classes=1), 1)
    assert np.float32(only.probability) == np.float32(value)
    assert len(repr(only.probability)) <= len("1.17549435e-38")


def test_classify_keeps_order_and_yields_failures_in_their_place(tmp_path: Path) -> None:
    red = save_photograph(tmp_path / "1.png", (128, 64, 64))
    broken = tmp_path / "2.png"
    broken.write_text("<html>")
    blue = save_photograph(tmp_path / "3.png", (0, 64, 192))
    summary = RunSummary()
    runner = FakeRunner(RunnerOptions(batch_size=2))
    results = list(classify(runner, [red, broken, blue], top=2, threads=1, summary=summary))
    assert [result.path for result in results] == [red, broken, blue]
    assert [one.label for one in results[0].predictions] == ["red", "green"]
    assert [one.probability for one in results[2].predictions] == [0.75, 0.25]
    assert results[1].predictions == ()
    assert results[1].error
    assert (summary.num_done, summary.num_failed) == (2, 1)


def test_probabilities_that_are_no_numbers_are_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_photograph(tmp_path / "a.png", (255, 0, 0))
    runner, summary = FakeRunner(RunnerOptions()), RunSummary()
    nothing = {"probabilities": np.full((1, 4), np.nan, np.float32)}
    monkeypatch.setattr(runner, "run", lambda images: nothing)
    (result,) = classify(runner, [path], summary=summary)
    assert result.error is not None
    assert "probabilities are not finite numbers" in result.error
    assert (summary.num_done, summary.num_failed) == (0, 1)


def test_classify_refuses_at_the_call_what_it_cannot_do() -> None:
    runner = FakeRunner(RunnerOptions(outputs=("fc7",)))
    with pytest.raises(UsageError, match="open it with the output 'probabilities'"):
        classify(runner, [])
    with pytest.raises(UsageError, match="top is 0, expected 1 or more"):
        classify(FakeRunner(RunnerOptions()), [], top=0)


def test_closed_results_leave_no_thread(tmp_path: Path) -> None:
    path = save_photograph(tmp_path / "a.png", (9, 9, 9))
    results = classify(FakeRunner(RunnerOptions()), itertools.repeat(path))
    with closing(results):
        assert next(results).path == path
    wait_until(threads_have_ended)
    assert list(results) == []


def test_json_is_exactly_this() -> None:
    assert to_json(CAT) == (
        '{"path": "imgs/a.jpg", "predictions": ['
        '{"label": "cat, tabby", "index": 7, "probability": 0.75}, '
        '{"label": "dog", "index": 2, "probability": 0.1}]}'
    )
    assert to_json(Classification(path=Path("b\n.jpg"), error="is empty")) == (
        '{"path": "b\\n.jpg", "error": "is empty"}'
    )


def test_json_of_a_path_that_is_not_utf8_gives_its_bytes_back() -> None:
    line = to_json(Classification(path=UNSPOKEN, error="x"))
    assert line == (
        '{"path": "dir/caf\\udce9.jpg", "path_base64": "ZGlyL2NhZukuanBn", "error": "x"}'
    )
    fields = json.loads(line)
    assert os.fsencode(fields["path"]) == b"dir/caf\xe9.jpg"
    assert base64.b64decode(fields["path_base64"]) == b"dir/caf\xe9.jpg"


def test_csv_is_exactly_this() -> None:
    assert CSV_HEADER == b"path,rank,index,label,probability,error\n"
    assert to_csv(CAT) == (
        b'imgs/a.jpg,1,7,"cat, tabby",0.75,\n'  #
        b"imgs/a.jpg,2,2,dog,0.1,\n"
    )
    assert to_csv(Classification(path=UNSPOKEN, error="is empty")) == (
        b"dir/caf\xe9.jpg,,,,,is empty\n"
    )


@given(st.binary(min_size=1, max_size=12).filter(lambda name: not set(name) & {0, ord("/")}))
def test_any_file_name_survives_csv_and_json(name: bytes) -> None:
    result = Classification(path=Path(os.fsdecode(name)), error="e")
    table = (CSV_HEADER + to_csv(result)).decode("utf-8", "surrogateescape")
    (row,) = csv.DictReader(io.StringIO(table, newline=""))
    assert os.path.normpath(os.fsencode(row["path"])) == os.path.normpath(name)
    assert not row["path"].startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert os.fsencode(json.loads(to_json(result))["path"]) == name


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\\t=1"),
        ("\r=1", "'\\r=1"),
        ("a\x1b]0;x\x07", "a\\x1b]0;x\\x07"),
        ("lone \ud800 \udce9", "lone \\ud800 \\xe9"),
        ("tabby, 3-4 = 5", "tabby, 3-4 = 5"),
    ],
)
def test_labels_and_reasons_in_csv_are_neither_formulas_nor_commands(text: str, cell: str) -> None:
    prediction = Prediction(label=text, index=0, probability=0.5)
    labelled = Classification(path=Path("=cmd.jpg"), predictions=(prediction,))
    failed = Classification(path=Path("@dir/x.jpg"), error=text)
    table = (CSV_HEADER + to_csv(labelled) + to_csv(failed)).decode()
    first, second = csv.DictReader(io.StringIO(table, newline=""))
    assert (first["path"], first["label"]) == ("./=cmd.jpg", cell)
    assert (second["path"], second["error"]) == ("./@dir/x.jpg", cell)
