"""`alexnet-deploy evaluate` with fake runners: stdout, stderr, exit codes."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from alexnet_deploy.cli import cli
from alexnet_deploy.export import opening
from alexnet_deploy.model.default import bundled_checkpoint
from alexnet_deploy.runtimes.base import RunnerOptions
from tests.support.fake_runner import SPEC, FakeRunner, open_fake_runner, save_photograph


class Opened:
    """Stands in for `opening.open_runner_of`, and remembers what was asked for."""

    def __init__(self) -> None:
        self.calls: list[tuple[Path | None, RunnerOptions]] = []

    def __call__(self, model: Path | None, given: RunnerOptions, *, notify: object) -> FakeRunner:
        self.calls.append((model, given))
        spec = SPEC
        if model is not None and model.name == "unnamed.onnx":
            spec = dataclasses.replace(SPEC, labels=())
        return FakeRunner(given, spec)


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
        "model                     caltech101.safetensors (0123456789abcdef)\n"
        "measured                  centre crop of 224 px, shorter side 256 px, bicubic; "
        "4 photographs; onnxruntime fp32\n"
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


def keys(value: object) -> set[str]:
    """Return the keys of a JSON document at every depth."""
    if isinstance(value, dict):
        return set(value).union(*map(keys, value.values()))
    return set().union(*map(keys, value)) if isinstance(value, list) else set()


def test_the_keys_of_the_json_are_those_of_the_help(data: Path) -> None:
    (data / "red" / "5.png").write_bytes(b"")
    found = parsed(data, "--max-failures", "1")
    help_text = " ".join(run("--help").stdout.split())
    (documented,) = re.findall(r"\{.*\}", help_text)
    inside = {"network", "top1_inside", "top5_inside", "measured"}  # of "published", null here
    assert keys(found) | inside == set(re.findall(r'"(\w+)"', documented))
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
