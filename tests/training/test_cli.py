"""The command line of the trainer, in this process: options, messages, exit codes, JSON."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from safetensors.numpy import save

from alexnet_deploy.model.checkpoints import load_checkpoint
from alexnet_deploy.weights.store import store
from tests.support.training_sets import (
    FORM,
    Recorder,
    save_classes,
    saved_checkpoint,
    small_checkpoint,
    small_network,
    spoil,
)
from training import reporting
from training.cli import cli
from training.epoch_log import EpochRecord

ROOT = Path(__file__).resolve().parents[2]
BRIEF = ["--recipe", "modern", "--batch-size", "4", "--epochs", "1", "--hold-out", "0.3"]
"""One epoch of 5 steps."""


@pytest.fixture
def photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder `p` in the current one, to train a small network on."""
    monkeypatch.chdir(tmp_path)
    save_classes(Path("p"))
    with small_network(monkeypatch):
        yield


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(cli, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception  # what ends in a traceback
    return result


RUN_AND_REPORT = """
import json, runpy, sys
before = set(sys.modules)
try:
    runpy.run_module("training", run_name="__main__", alter_sys=True)
except SystemExit as stop:
    assert stop.code == 0
print(json.dumps(sorted(set(sys.modules) - before)))
"""


@pytest.mark.parametrize("arguments", [[], ["prepare"], ["train"], ["shrink"]], ids=str)
def test_help_is_quick_and_gives_an_example(arguments: list[str]) -> None:
    """Nothing but click is imported before there is work to do."""
    command = [sys.executable, "-c", RUN_AND_REPORT, *arguments, "--help"]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    *lines, modules = finished.stdout.splitlines()
    assert lines[0].startswith(f"Usage: {' '.join(['python -m training', *arguments])} [OPTIONS]")
    assert "  Example: python -m training" in finished.stdout
    loaded = {name.split(".")[0] for name in json.loads(modules)}
    assert loaded - set(sys.stdlib_module_names) == {"alexnet_deploy", "click", "training"}


@pytest.mark.usefixtures("photographs")
def test_train_says_where_the_checkpoints_are() -> None:
    result = run("train", "p", "-o", "run", *BRIEF)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "checkpoint: run/step-00000005.pt",
        "best on validation: run/best.pt",
    ]
    lines = result.stderr.splitlines()
    assert lines[0].startswith("before the first step: validation loss ")
    assert lines[1].startswith("epoch 1 of 1: loss ")
    assert len(lines) == 2


@pytest.mark.usefixtures("photographs")
def test_json_has_what_the_help_says() -> None:
    result = run("train", "p", "-o", "run", *BRIEF, "--json")
    report: dict[str, Any] = json.loads(result.stdout)
    assert list(report) == ["checkpoint", "best", "epochs", "steps", "stopped", "last"]
    assert report["checkpoint"] == {"path": "run/step-00000005.pt"}
    assert report["best"] == {"path": "run/best.pt"}
    assert (report["epochs"], report["steps"], report["stopped"]) == (1, 5, None)
    logged = Path("run/log.jsonl").read_text().splitlines()
    assert report["last"] == json.loads(logged[-1])
    assert set(report["last"]) == set(EpochRecord.__annotations__)
    help_text = run("train", "--help").stdout
    assert all(f'"{name}"' in help_text for name in report)


@pytest.mark.usefixtures("photographs")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_with_a_checkpoint_and_its_own_exit_code(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    def advance(reporter: Recorder, num_photographs: int) -> None:
        if reporter.titles[-1].startswith("epoch"):
            os.kill(os.getpid(), number)

    monkeypatch.setattr(reporting, "TerminalReporter", Recorder)
    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "advance", advance)
        result = run("train", "p", "-o", "run", *BRIEF, "--json")
    assert result.exit_code == 128 + number
    report = json.loads(result.stdout)
    assert report["checkpoint"] == {"path": "run/step-00000001.pt"}
    assert (report["epochs"], report["steps"], report["stopped"]) == (0, 1, number)
    assert result.stderr == "stopped; repeat the command with --resume to continue\n"
    assert run("train", "p", "-o", "run", *BRIEF, "--resume").exit_code == 0


@pytest.mark.usefixtures("photographs")
def test_ctrl_c_before_the_first_step_leaves_nothing_to_resume(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(reporting, "TerminalReporter", Recorder)
        patch.setattr(Recorder, "begin", lambda *arguments, done: signal.raise_signal(2))
        result = run("train", "p", "-o", "run", *BRIEF)
    assert result.exit_code == 130
    assert result.stderr == "interrupted\n"
    assert run("train", "p", "-o", "run", *BRIEF).exit_code == 0


@pytest.mark.usefixtures("photographs")
@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["--set", "momentum"], 2, "--set 'momentum': expected FIELD=VALUE, as in label_smooth"),
        (["--set", "speed=3"], 2, "recipe modern has no field 'speed'; it has num_epochs"),
        (["--set", "momentum=fast"], 2, "momentum is 'fast', expected a finite number"),
        (["--set", "crop=" + "[" * 100_000], 2, "crop is '[[["),
        (["--epochs", "0"], 2, "num_epochs is 0, expected at least 1"),
        (["--learning-rate", "-1"], 2, "learning_rate is -1.0, expected more than 0"),
        (["--batch-size", "22"], 1, "p: 21 photographs to train on, fewer than a batch of 22"),
        (["--hold-out", "1"], 2, "--hold-out is 1.0, expected a share from 0"),
        (["--recipe", "paper", "--hold-out", "0"], 2, "as --validation, or --hold-out 0.1"),
        (["--memory", "nan"], 2, "Invalid value for '--memory': nan is no number"),
        (["--save-minutes", "nan"], 2, "--save-minutes is nan, expected more than 0"),
        (["--set", "name=mine"], 2, "recipe modern has no field 'name'"),
        (["-o", ""], 2, "Invalid value for '-o' / '--output': is empty, expected the name"),
        (["--devices", "tpu"], 2, "--devices is 'tpu', expected two devices such as"),
        (["--validation", "q"], 2, "q: does not exist"),
        (["--init", "no.pt"], 2, "no.pt: no such file"),
        (["--old-rate-factor", "0.1"], 2, "--old-rate-factor: only --init has old layers; add it"),
        (["--train", "head"], 2, "--train head leaves all layers but fc8 as they are"),
        (["--resume"], 2, "--resume: run holds no checkpoint of a run"),
        (["-o", "p/run"], 2, "--output p/run would be among the photographs of p"),
        (["-o", "file/run"], 1, "file/run: cannot be written (Not a directory)"),
        (["--learning-rate", "1e30"], 1, "the loss is "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_done_is_one_message_and_an_exit_code(
    arguments: list[str], exit_code: int, message: str
) -> None:
    Path("file").touch()
    result = run("train", "p", "-o", "run", *BRIEF, *arguments)
    assert result.stdout == ""
    assert result.exit_code == exit_code
    assert message in result.stderr
    assert len([line for line in result.stderr.splitlines() if "Error: " in line]) == 1


@pytest.mark.usefixtures("photographs")
@pytest.mark.parametrize(
    "arguments",
    [["prepare", "p", "-o", "q"], ["train", "p", "-o", "run"], ["shrink", "a", "p", "-o", "b"]],
    ids=lambda arguments: arguments[0],
)
def test_without_torch_the_line_that_installs_it_is_printed(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setattr("alexnet_deploy.installed.has_module", lambda name: False)
    result = run(*arguments)
    assert result.exit_code == 1
    assert "pip install 'alexnet-deploy[train]'" in result.stderr


@pytest.mark.usefixtures("photographs")
def test_a_device_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    result = run("train", "p", "-o", "run", *BRIEF, "--devices", "cuda:0,cuda:1")
    assert result.exit_code == 1
    assert "both towers fit on one: --devices cuda:0,cuda:0" in result.stderr
    assert not Path("run").exists()


@pytest.mark.usefixtures("photographs")
def test_files_of_other_things_have_the_exit_code_of_incompatible_files() -> None:
    Path("text.pt").write_text("no network")
    assert run("train", "p", "-o", "run", *BRIEF, "--init", "text.pt").exit_code == 5
    assert run("train", "p", "-o", "run", *BRIEF).exit_code == 0
    Path("run/run.json").write_text("{")
    result = run("train", "p", "-o", "run", *BRIEF, "--resume")
    assert result.exit_code == 5
    assert "run/run.json: damaged" in result.stderr


@pytest.mark.usefixtures("photographs")
def test_set_takes_numbers_words_and_truth_values() -> None:
    fields = ["label_smoothing=0.25", "schedule=plateau", "patience=2", "subtract_mean_image=true"]
    settings = [part for field in fields for part in ("--set", field)]
    assert run("train", "p", "-o", "run", *BRIEF, *settings).exit_code == 0
    recipe = load_checkpoint(Path("run/best.pt")).spec.provenance["recipe"]
    assert (recipe["label_smoothing"], recipe["schedule"]) == (0.25, "plateau")
    assert (recipe["patience"], recipe["subtract_mean_image"]) == (2, True)
    assert recipe["num_epochs"] == 1


@pytest.mark.usefixtures("photographs")
def test_a_photograph_that_cannot_be_read_is_named_harmlessly() -> None:
    bad = spoil(Path("p/ash/\x1b[31m.jpg"))
    result = run("train", "p", "-o", "run", *BRIEF)
    assert result.exit_code == 0
    assert str(bad) not in result.stderr
    assert "skipped: p/ash/\\x1b[31m.jpg: " in result.stderr
    assert "; 1 skipped" in result.stderr


@pytest.mark.usefixtures("photographs")
def test_what_prepare_made_can_be_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.pictures.PAPER_FORM", FORM)
    prepared = run("prepare", "p", "-o", "q", "--threads", "2")
    assert prepared.exit_code == 0
    result = run("train", "q", "-o", "run", *BRIEF, "--memory", "0", "--workers", "0")
    assert result.exit_code == 0
    assert "is not prepared" not in result.stderr


@pytest.mark.usefixtures("photographs")
def test_a_public_network_is_fine_tuned_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    arguments = ["--init", "torchvision", "--train", "head"]
    missing = run("train", "p", "-o", "run", *BRIEF, *arguments)
    assert missing.exit_code == 2
    assert "alexnet-deploy pull torchvision" in missing.stderr
    store("torchvision", small_checkpoint("torchvision"))
    assert run("train", "p", "-o", "run", *BRIEF, *arguments).exit_code == 0
    begun = json.loads(Path("run/run.json").read_text("utf-8"))
    assert begun["init"] == "torchvision"
    assert run("prepare", "p", "-o", "q", "--init", "torchvision").exit_code == 0


@pytest.mark.usefixtures("photographs")
def test_a_file_of_another_program_is_read_as_import_reads_it() -> None:
    Path("a.pth").write_bytes(save({"features.0.weight": np.zeros((64, 3, 11, 11), np.float32)}))
    for command in (["train", "p", "-o", "run", *BRIEF], ["prepare", "p", "-o", "q"]):
        refused = run(*command, "--init", "a.pth")
        assert refused.exit_code == 5
        assert "a.pth: is no AlexNet: it has 1 convolutions" in refused.stderr


@pytest.mark.usefixtures("photographs")
def test_pictures_are_prepared_for_the_network_to_fine_tune(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    init = saved_checkpoint("caffe", Path())
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    missing = run("prepare", "p", "-o", "q", "--init", "caffe")
    assert missing.exit_code == 2
    assert "alexnet-deploy pull caffe" in missing.stderr
    store("caffe", load_checkpoint(init))
    assert run("prepare", "p", "-o", "q", "--init", "caffe").exit_code == 0
    prepared = json.loads(Path("q/prepared.json").read_text("utf-8"))
    assert [prepared[name] for name in ("size", "resize", "filter")] == [75, "squash", "bilinear"]
    arguments = ["--init", "caffe", "--train", "head"]
    assert run("train", "q", "-o", "run", *BRIEF, *arguments).exit_code == 0
    refused = run("train", "q", "-o", "papers", *BRIEF)
    assert refused.exit_code == 5
    assert "prepared as 75 px, squash, bilinear, the network wants 75 px, sh" in refused.stderr
