"""`alexnet-deploy evaluate` with fake runners: stdout, stderr, exit codes."""

import base64
import csv
import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from PIL import Image

from alexnet_deploy.cli import cli
from alexnet_deploy.export import opening
from alexnet_deploy.model.default import bundled_checkpoint
from alexnet_deploy.photographs.pixels import EXACT
from alexnet_deploy.runtimes.base import RunnerOptions
from tests.support.fake_runner import (
    SPEC,
    UNSPOKEN,
    FakeRunner,
    open_fake_runner,
    save_photograph,
)


class Opened:
    """Stands in for `opening.open_runner_of`, and remembers what was asked for."""

    def __init__(self) -> None:
        self.calls: list[tuple[Path | None, RunnerOptions]] = []

    def __call__(self, model: Path | None, given: RunnerOptions, *, notify: object) -> FakeRunner:
        self.calls.append((model, given))
        spec = SPEC
        if model is not None and model.name == "unnamed.onnx":
            spec = dataclasses.replace(SPEC, labels=())
        is_unlike = model is not None and model.name == "unlike.onnx"
        return UnlikeRunner(given) if is_unlike else FakeRunner(given, spec)


class UnlikeRunner(FakeRunner):
    """Takes red for blue, and blue for red."""

    def run(self, images: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        found = super().run(images)["probabilities"]
        return {"probabilities": found[:, [2, 1, 0, 3]]}


@pytest.fixture(autouse=True)
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    opened = Opened()
    monkeypatch.setattr(opening, "open_runner_of", opened)
    return opened


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four photographs in `d/`: two red ones that are, a blue one that is and one that is not."""
    monkeypatch.chdir(tmp_path)
    root = Path("d")
    save_photograph(root / "red" / "1.png", (200, 10, 0))
    save_photograph(root / "red" / "2.png", (200, 20, 0))
    save_photograph(root / "blue" / "3.png", (0, 10, 200))
    save_photograph(root / "blue" / "4.png", (200, 10, 20))
    return root


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["evaluate", *map(str, arguments)])


def parsed(*arguments: str | Path) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def test_the_table_goes_to_stdout_and_the_time_to_stderr(data: Path, opened: Opened) -> None:
    result = run(data)
    assert result.exit_code == 0, result.output
    assert result.stdout == (
        "top-1                     75.00 % (95 % interval 30.06 to 95.44 %)\n"
        "top-5                     100.00 % (95 % interval 51.01 to 100.00 %)\n"
        "top-1, mean over classes  75.00 %\n"
        "photographs               4 in 2 classes\n"
        f"decoded by                {EXACT}\n"
        "model                     caltech101.safetensors (0123456789abcdef)\n"
        "measured                  centre crop of 224 px, shorter side 256 px, bicubic; "
        "4 photographs; onnxruntime fp32\n"
        "most confused             blue taken for red: 1 of 2\n"
    )
    assert result.stderr.startswith("fake runner\n4 done, 0 failed in ")
    options = RunnerOptions(outputs=("probabilities",), exact_batch=False)
    assert opened.calls == [(bundled_checkpoint(), options)]


def test_a_line_for_each_class_comes_on_request(data: Path) -> None:
    assert run(data, "--per-class").stdout.splitlines()[-3:] == [
        "class  photographs    top-1    top-5",
        "blue             2  50.00 % 100.00 %",
        "red              2 100.00 % 100.00 %",
    ]


def test_classes_may_come_from_a_file(data: Path) -> None:
    truth = Path("truth.csv")
    truth.write_text("path,label\nred/1.png,red\nblue/4.png,blue\nred/gone.png,red\n")
    result = run(data, "--truth", truth, "--max-failures", "1")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("top-1                     50.00 % (95 % interval 9.45 to 90.")
    assert "2 in 2 classes, 1 more failed; 2 in the folder without a class\n" in result.stdout
    assert "failed: d/red/gone.png: " in result.stderr
    assert run(data, "--truth", truth).exit_code == 3
    truth.write_text("red/1.png 0\nblue/4.png 2\n")
    found = parsed(data, "--truth", truth)
    assert (found["photographs"], found["unlabelled"], found["matched_by"]) == (2, 2, "number")


def test_photographs_without_classes_are_told_of_the_file_that_has_them(data: Path) -> None:
    result = run(data / "red")
    assert result.exit_code == 1
    assert "move them, or name the file with their classes: --truth" in result.stderr
    result = run(data, "--truth", "gone.txt")
    assert (result.exit_code, result.stdout) == (2, "")


def test_what_was_measured_is_in_the_json(data: Path) -> None:
    (data / "red" / "5.png").write_bytes(b"")
    found = parsed(data, "--max-failures", "1", "--compare", "unlike.onnx")
    assert found["failures"][0]["path"] == "d/red/5.png"
    assert (found["photographs"], found["top1"], found["crops"]) == (4, 0.75, 1)
    assert found["matched_by"] == "label"
    assert [one["label"] for one in found["classes"]] == ["blue", "red"]


def test_several_models_are_averaged_with_their_weights(data: Path, opened: Opened) -> None:
    pair = ["--model", "a.onnx", "--model", "b.pt", "--weight", "1", "--weight", "3"]
    found = parsed(data, *pair, "--ten-crop", "--threads", "1")
    assert [(one["path"], one["weight"]) for one in found["models"]] == [
        ("a.onnx", 0.25),
        ("b.pt", 0.75),
    ]
    assert found["crops"] == 10
    options = RunnerOptions(outputs=("probabilities",), threads=1, exact_batch=False)
    assert opened.calls == [(Path("a.onnx"), options), (Path("b.pt"), options)]


def test_a_model_of_a_variable_is_the_default(
    data: Path, monkeypatch: pytest.MonkeyPatch, opened: Opened
) -> None:
    Path("own.onnx").touch()
    monkeypatch.setenv("ALEXNET_MODEL", "own.onnx")
    assert parsed(data)["models"][0]["path"] == "own.onnx"
    assert opened.calls[0][0] == Path("own.onnx")


def test_failures_are_listed_once_and_too_many_exit_with_3(data: Path) -> None:
    (data / "red" / "5.png").write_bytes(b"")
    result = run(data, "--model", "a.onnx", "--model", "b.onnx")
    assert result.exit_code == 3
    assert "top-1 " in result.stdout
    assert "photographs               4 in 2 classes, 1 more failed\n" in result.stdout
    assert result.stderr.count("failed: d/red/5.png: ") == 1
    assert "\n4 done, 1 failed in " in result.stderr
    assert "Error: 1 of 5 photographs could not be read, --max-failures 1%" in result.stderr
    assert run(data, "--max-failures", "20%").exit_code == 0


def test_nothing_but_failures_has_no_result(data: Path) -> None:
    for path in data.glob("*/*.png"):
        path.write_bytes(b"")
    result = run(data, "--max-failures", "100%")
    assert (result.exit_code, result.stdout) == (3, "")
    assert "Error: 4 of 4 photographs could not be read" in result.stderr


def test_wrong_weights_are_refused_before_a_model_is_opened(data: Path, opened: Opened) -> None:
    result = run(data, "--model", "a.onnx", "--model", "b.onnx", "--weight", "1")
    assert result.exit_code == 2
    assert "--weight: got 1 for 2 models" in result.stderr
    assert opened.calls == []


def test_a_wrong_folder_is_one_message_and_its_exit_code(data: Path) -> None:
    assert run("missing").exit_code == 2
    (data / "gren").mkdir()
    save_photograph(data / "gren" / "6.png", (0, 9, 0))
    result = run(data)
    assert result.exit_code == 1
    assert "not labels of " in result.stderr
    assert "'gren' (near: 'green'" in result.stderr


def test_models_of_other_classes_exit_with_5(data: Path) -> None:
    result = run(data, "--model", "a.onnx", "--model", "unnamed.onnx")
    assert result.exit_code == 5
    assert "Error: a.onnx and unnamed.onnx: cannot be averaged" in result.stderr


def test_a_model_without_labels_says_how_folders_were_matched(data: Path) -> None:
    for name in ("green", "great_auk"):
        save_photograph(data / name / "7.png", (0, 9, 0))
    result = run(data, "--model", "unnamed.onnx")
    assert "classes                   folders in sorted order: the model has no" in result.stdout


def test_control_c_ends_with_its_code_and_without_a_result(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(opening, "open_runner_of", open_fake_runner)
    monkeypatch.setattr(FakeRunner, "run", interrupted)
    result = run(data)
    assert (result.exit_code, result.stdout) == (130, "")
    assert result.stderr == "fake runner\ninterrupted\n"


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a table, as texts; None for what is empty."""
    if path.suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        rows = parquet.read_table(path).to_pylist()
        return [{k: v if v is None else str(v) for k, v in row.items()} for row in rows]
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return [{k: v or None for k, v in row.items()} for row in csv.DictReader(file)]


def test_each_photograph_has_its_row_of_what_was_predicted_failures_too(data: Path) -> None:
    (data / "red" / UNSPOKEN).write_bytes(b"")
    files = [Path("p.csv"), Path("p.parquet")]
    both = [word for file in files for word in ("--predictions", file)]
    result = run(data, *both, "--compare", "unlike.onnx", "--max-failures", "1")
    assert result.exit_code == 0, result.output
    rows, others = map(rows_of, files)
    assert [row["path"] for row in rows] == [
        *("d/blue/3.png", "d/blue/4.png", "d/red/1.png", "d/red/2.png", f"d/red/{UNSPOKEN}")
    ]
    right, wrong, failed = rows[0], rows[1], rows[4]
    assert (right["true_index"], right["true_label"], right["label_1"]) == ("2", "blue", "blue")
    assert (right["true_rank"], right["top1"], right["compared_label"]) == ("1", "1.0", "red")
    assert (wrong["label_1"], wrong["index_1"], wrong["true_rank"]) == ("red", "0", "2")
    assert (wrong["top1"], wrong["top5"], wrong["compared_label"]) == ("0.0", "1.0", "blue")
    # With the digits of a float32: 200 and 20 of 230.
    assert (wrong["probability_1"], wrong["true_probability"]) == ("0.8695652", "0.08695652")
    empty = {name for name, value in failed.items() if value is None}
    assert set(failed) - empty == {"path", "true_index", "true_label", "error"}
    assert (failed["true_label"], right["error"]) == ("red", None)
    for row, other in zip(rows, others, strict=True):
        encoded = other.pop("path_base64")
        assert list(row) == list(other)
        for name, value in row.items():
            if name == "path" and encoded is not None:
                assert os.fsdecode(base64.b64decode(encoded)) == value
            elif "probability" in name and value is not None:
                assert np.float32(other[name]) == np.float32(value)
            else:
                assert other[name] == value
    parquet = pytest.importorskip("pyarrow.parquet")
    about = json.loads(parquet.read_schema(files[1]).metadata[b"alexnet_deploy.evaluation"])
    assert (about["crops"], about["compared"]["path"]) == (1, "unlike.onnx")


def test_a_second_model_is_compared_on_the_same_photographs(data: Path) -> None:
    found = parsed(data, "--compare", "unlike.onnx")
    assert (found["top1"], len(found["models"])) == (0.75, 1)
    comparison = found["comparison"]
    assert comparison["model"]["path"] == "unlike.onnx"
    counts = [comparison[name] for name in ("photographs", "both", "only_first", "only_second")]
    assert counts == [4, 0, 3, 1]
    assert (comparison["difference"], comparison["p_value"]) == (-0.5, 0.625)
    assert parsed(data)["comparison"] is None
    result = run(data, "--compare", "unnamed.onnx")
    assert result.exit_code == 5
    assert "cannot be compared, their classes differ" in result.stderr


def test_the_matrix_and_the_sheet_are_written_and_drawn(data: Path) -> None:
    names = ["m.csv", "m.png", "s.html", "s.png"]
    options = ["--confusion", "--confusion", "--sheet", "--sheet"]
    for _ in range(2):  # over its own files, too
        result = run(data, *(word for pair in zip(options, names, strict=True) for word in pair))
        assert result.exit_code == 0, result.output
    assert Path("m.csv").read_text() == "index,true,red,blue\n0,red,2,0\n2,blue,1,1\n"
    page = Path("s.html").read_text()
    assert "<h2>blue taken for red: 1 of 2</h2>" in page
    assert page.count("<figure") == 2
    for name in ("m.png", "s.png"):
        with Image.open(name) as picture:
            picture.load()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--predictions", "p.txt"], "written as .csv or .parquet, not as .txt"),
        (["--confusion", "m.jpg"], "written as .csv or .png, not as .jpg"),
        (["--sheet", "s.csv"], "written as .png or .html"),
        (["--predictions", "x.csv", "--confusion", "./x.csv"], "is named for another output"),
        (["--predictions", "t.csv", "--truth", "t.csv"], "is the file of --truth"),
        (["--confusion", "d/red/1.png"], "is one of the photographs"),
    ],
)
def test_files_that_cannot_be_meant_are_refused_before_a_model_is_opened(
    data: Path, opened: Opened, arguments: list[str], message: str
) -> None:
    Path("t.csv").write_text("path,label\nred/1.png,red\n")
    result = run(data, *arguments)
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.stderr.split())
    assert opened.calls == []
    assert Path("t.csv").read_text().startswith("path,label")


def test_retrieval_ranks_by_pixels_and_by_layers(data: Path, opened: Opened) -> None:
    result = run("--retrieval", data, "--layer", "fc7", "--layer", "classifier.2", "--per-class")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "queries                   4 in 2 classes, each against 3 others"
    assert lines[4].startswith("too few photographs for   unseen classes, PCA 64 of fc7, PCA 1")
    names = [line.split()[:5] for line in lines[7:12]]
    assert names == [
        ["1", "pixels", "L2", "all", "196,608"],
        *([str(2 + n), "fc7", form, "all", "8,192"] for n, form in enumerate(("cosine", "L2"))),
        *([str(4 + n), "fc6", form, "all", "8,192"] for n, form in enumerate(("cosine", "L2"))),
    ]
    # By red alone three are equal: the other blue one is their last, and they tie for it.
    found = parsed("--retrieval", data)
    assert [one["form"] for one in found["forms"]] == ["L2", "cosine", "L2"]
    assert found["forms"][2]["by_class"]["map"] == pytest.approx(
        [(11 / 18 + 1 / 3) / 2, 3 / 4], abs=1e-4
    )
    options = RunnerOptions(outputs=("fc7",), exact_batch=False)
    assert opened.calls[-1] == (bundled_checkpoint(), options)
    assert "\n4 done, 0 failed in " in result.stderr


def test_classes_to_retrieve_may_come_from_a_file_and_need_not_be_the_models(data: Path) -> None:
    Path("t.csv").write_text("path,label\nred/1.png,hot\nred/2.png,hot\nblue/3.png,cold\n")
    found = parsed("--retrieval", data, "--truth", "t.csv")
    assert (found["photographs"], found["queries"], found["unlabelled"]) == (3, 2, 1)
    assert [one["label"] for one in found["classes"]] == ["cold", "hot"]
    assert found["forms"][0]["map"] == 1


def test_retrieval_exits_with_3_if_too_many_fail(data: Path) -> None:
    (data / "red" / "5.png").write_bytes(b"")
    result = run("--retrieval", data)
    assert result.exit_code == 3
    assert "; 1 more failed\n" in result.stdout
    assert "failed: d/red/5.png: " in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("--weight", "1"),
        ("--compare", "b.onnx"),
        ("--ten-crop",),
        ("--predictions", "p.csv"),
        ("--confusion", "m.csv"),
        ("--sheet", "s.png"),
        ("--model", "a.onnx", "--model", "b.onnx"),
    ],
)
def test_what_is_for_accuracy_is_refused_by_name(
    data: Path, opened: Opened, words: tuple[str, ...]
) -> None:
    result = run("--retrieval", data, *words)
    assert result.exit_code == 2, result.output
    assert f"Error: {words[0]}: --retrieval judges " in result.stderr
    assert opened.calls == []


def test_layers_are_for_retrieval(data: Path) -> None:
    result = run(data, "--layer", "fc6")
    assert result.exit_code == 2
    assert "--layer: is for --retrieval; add it, or leave it out" in result.stderr
