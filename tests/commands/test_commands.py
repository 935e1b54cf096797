"""export, verify, info and doctor, end to end with the bundled network on two photographs."""

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from alexnet_deploy.cli import cli
from alexnet_deploy.errors import DeviceError
from alexnet_deploy.export import onnx as export_module
from alexnet_deploy.export import opening
from alexnet_deploy.graph.build import build_model
from alexnet_deploy.graph.model_file import ModelFile
from alexnet_deploy.graph.reading import read_model
from alexnet_deploy.model.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from alexnet_deploy.model.default import bundled_checkpoint
from alexnet_deploy.photographs.samples import varied_samples
from alexnet_deploy.runtimes.base import RunnerOptions
from tests.support.fake_runner import FakeRunner


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def done(*arguments: str | Path) -> Result:
    """Run a command that has to succeed."""
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result


def parsed(*arguments: str | Path) -> dict[str, Any]:
    """Run a command that has to succeed and to print one JSON document."""
    document: dict[str, Any] = json.loads(done(*arguments, "--json").stdout)
    return document


@pytest.fixture(scope="module")
def two_photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    for path in varied_samples()[:2]:
        shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, two_photographs: Path) -> Path:
    """Return the bundled checkpoint as `export` writes it."""
    path = tmp_path_factory.mktemp("exported") / "m.onnx"
    told = parsed("export", "-o", path, "--verify-on", two_photographs, "--layer", "logits")
    assert told["file"] == str(path)
    assert told["identity"] == read_model(path).identity
    assert told["report"] == read_model(path).report
    assert told["report"]["passed"] is True
    return path


@pytest.fixture(scope="module")
def changed_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the bundled checkpoint with its classes in the reverse order."""
    checkpoint = load_checkpoint(bundled_checkpoint())
    arrays = dict(checkpoint.arrays)
    arrays["fc8.weight"] = arrays["fc8.weight"][::-1].copy()
    path = tmp_path_factory.mktemp("changed") / "changed.safetensors"
    save_checkpoint(dataclasses.replace(checkpoint, arrays=arrays), path)
    return path


def test_what_export_wrote_passes_verify_by_itself(exported: Path, two_photographs: Path) -> None:
    table = done("verify", exported, "--on", two_photographs).stdout.splitlines()
    assert table[0].startswith("2 photographs, ")
    assert table[1].split() == ["check", "measured", "allowed"]
    assert len(table) > 5
    assert all(line.endswith("  ok") for line in table[2:])


def test_what_export_wrote_passes_verify_against_its_checkpoint(
    exported: Path, two_photographs: Path
) -> None:
    report = parsed("verify", exported, "--on", two_photographs, "--against", bundled_checkpoint())
    assert report["passed"] is True
    assert report["num_photographs"] == 2
    assert report["skipped"] == []
    assert report["against"] == load_checkpoint(bundled_checkpoint()).identity


def test_verify_says_when_the_checkpoint_is_another(
    exported: Path, two_photographs: Path, changed_checkpoint: Path
) -> None:
    result = run("verify", exported, "--on", two_photographs, "--against", changed_checkpoint)
    assert result.exit_code == 4
    assert "FAILED" in result.stdout
    assert "Error: " in result.stderr


def test_verify_says_when_the_file_was_changed(
    exported: Path, two_photographs: Path, tmp_path: Path
) -> None:
    content = bytearray(exported.read_bytes())
    content[len(content) // 2] ^= 1  # in the middle lie weights: the last bit of one of them
    changed = tmp_path / "changed.onnx"
    changed.write_bytes(content)
    result = run("verify", changed, "--on", two_photographs, "--json")
    assert result.exit_code == 4
    assert json.loads(result.stdout)["passed"] is False
    assert run("classify", two_photographs, "--model", changed).exit_code == 5


def test_an_export_that_fails_prints_its_table_and_leaves_nothing(
    two_photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(checkpoint: Checkpoint, outputs: tuple[str, ...], opset: int) -> ModelFile:
        file = build_model(checkpoint, outputs, opset)
        bias = {"fc8.bias": file.arrays["fc8.bias"][::-1] + np.float32(1)}
        return dataclasses.replace(file, arrays={**file.arrays, **bias})

    monkeypatch.setattr(export_module, "build_model", faulty)
    output = tmp_path / "m.onnx"
    result = run("export", "-o", output, "--verify-on", two_photographs)
    assert result.exit_code == 4
    lines = result.stdout.splitlines()
    assert any(line.startswith("logits") and line.endswith("FAILED") for line in lines)
    assert any(line.startswith("fc7") and line.endswith("ok") for line in lines)
    assert result.stderr.startswith("Error: ")
    assert "logits" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("precision", "remark"), [("fp16", "computed in fp32"), ("bf16", "bf16")])
def test_a_narrow_export_is_verified_and_runs(
    two_photographs: Path, tmp_path: Path, precision: str, remark: str
) -> None:
    model = tmp_path / "m.onnx"
    result = done("export", "-o", model, "--precision", precision, "--verify-on", two_photographs)
    assert "FC7 cosine" in result.stdout
    told = parsed("info", model)
    assert (told["precision"], told["report"]["passed"]) == (precision, True)
    done("verify", model, "--on", two_photographs)
    assert remark in done("classify", two_photographs, "--model", model, "--device", "cpu").stderr
    vectors = parsed("embed", two_photographs, "--model", model, "-o", tmp_path / "v.npy")
    assert vectors["precision"] == precision


def test_onnx_runtime_refuses_bf16_on_a_cpu(two_photographs: Path, tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    done("export", "-o", model, "--precision", "bf16", "--no-verify")
    result = run("classify", two_photographs, "--model", model, "--runtime", "onnxruntime")
    assert result.exit_code == 1
    assert "computes in fp32, fp16, int8 on cpu; use --runtime openvino" in result.stderr


def test_without_openvino_a_bf16_file_is_for_elsewhere_and_written_unverified(
    two_photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "alexnet_deploy.installed.has_module", lambda package: package != "openvino"
    )
    model = tmp_path / "m.onnx"
    arguments: list[str | Path] = ["export", "-o", model, "--precision", "bf16"]
    refused = run(*arguments)
    assert refused.exit_code == 1
    for words in (
        "no bf16 on cpu",
        "is for TensorRT",
        "where OpenVINO is",
        "--precision bf16 --no-verify",
    ):
        assert words in refused.stderr
    assert "--runtime openvino" not in refused.stderr
    assert "pip install" not in refused.stderr
    assert not model.exists()
    assert "for TensorRT" in done(*arguments, "--no-verify").stderr
    refused = run("classify", two_photographs, "--model", model)
    assert refused.exit_code == 1
    assert "run it where OpenVINO is" in refused.stderr


def test_an_int8_export_is_calibrated_on_the_photographs_named(
    two_photographs: Path, tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    for path in varied_samples()[::2]:
        (tmp_path / "photos" / f"{path.parent.name}.jpg").symlink_to(path)
    arguments: list[str | Path] = ["export", "-o", tmp_path / "m.onnx"]
    arguments += ["--verify-on", two_photographs]
    arguments += ["--precision", "int8", "--calibrate", tmp_path / "photos"]
    result = done(*arguments)
    assert "sample" not in result.stderr
    assert "FC7 cosine" in result.stdout
    told = parsed("info", tmp_path / "m.onnx")
    assert (told["precision"], told["calibration"]["photographs"]) == ("int8", 20)
    assert told["arrays"]["conv2.weight"] == "int8 [256, 48, 5, 5]"
    assert "calibration   on 20 photographs" in done("info", tmp_path / "m.onnx").stdout
    model: list[str | Path] = ["--model", tmp_path / "m.onnx"]
    assert "int8" in done("classify", two_photographs, *model, "--device", "cpu").stderr
    assert run("classify", two_photographs, *model, "--precision", "fp32").exit_code == 2


def test_an_int8_export_without_photographs_of_ones_own_says_what_it_took(tmp_path: Path) -> None:
    result = done("export", "-o", tmp_path / "m.onnx", "--precision", "int8", "--no-verify")
    assert "40 of the package's sample photographs" in result.stderr
    assert "export with --calibrate" in result.stderr


def test_a_folder_of_other_things_is_no_calibration(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_text("no photograph")
    arguments: list[str | Path] = ["export", "-o", tmp_path / "m.onnx", "--precision", "int8"]
    result = run(*arguments, "--calibrate", tmp_path)
    assert result.exit_code == 1
    assert "2 of 2 photographs could not be read" in result.stderr
    assert "a.jpg" in result.stderr
    assert not (tmp_path / "m.onnx").exists()
    (tmp_path / "empty").mkdir()
    assert run(*arguments, "--calibrate", tmp_path / "empty").exit_code == 1
    result = run("export", "-o", tmp_path / "m.onnx", "--calibrate", tmp_path)
    assert result.exit_code == 2
    assert "only int8 needs it" in result.stderr


def test_an_unverified_export_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = done("export", bundled_checkpoint(), "--no-verify")
    assert "not verified" in result.stdout
    (written,) = tmp_path.glob("*.onnx")
    assert written.name == "caltech101.onnx"
    described = parsed("info", written.name)
    assert described["report"] is None
    assert "never verified" in done("info", written.name).stdout


def test_info_says_the_same_of_a_file_and_its_checkpoint(exported: Path) -> None:
    checkpoint, model = parsed("info"), parsed("info", exported)
    assert (checkpoint["kind"], model["kind"]) == ("checkpoint", "onnx")
    assert model["outputs"] == ["logits"]
    assert model["report"]["passed"] is True
    for key in ("identity", "preset", "parameters", "spec", "layers", "labels", "provenance"):
        assert model[key] == checkpoint[key]
    assert "says that it passed on 2 photographs" in done("info", exported).stdout


@pytest.mark.parametrize("command", ["info", "verify"])
def test_a_file_that_is_missing_or_not_ours_has_its_code(command: str, tmp_path: Path) -> None:
    assert run(command, tmp_path / "missing.onnx").exit_code in (2, 5)
    (tmp_path / "text.onnx").write_text("<html>")
    result = run(command, tmp_path / "text.onnx")
    assert result.exit_code == 5
    assert "text.onnx" in result.stderr


def pretend(monkeypatch: pytest.MonkeyPatch, *, working: tuple[str, ...]) -> None:
    """Let `doctor` find fake runners: those of the runtimes `working` run, the others fail."""

    def open_runner_of(_: object, options: RunnerOptions) -> FakeRunner:
        if options.runtime not in working:
            raise DeviceError("what, why, remedy")
        return FakeRunner(options)

    monkeypatch.setattr(opening, "open_runner_of", open_runner_of)


def test_doctor_tries_each_runtime_and_says_what_it_found(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, working=("onnxruntime",))
    findings = parsed("doctor")["findings"]
    by_name = {finding["name"]: finding for finding in findings}
    assert by_name["machine"]["works"] is None
    for name, works in (("openvino cpu fp32", False), ("onnxruntime cpu fp32", True)):
        assert by_name[name]["works"] is works
    assert by_name["openvino cpu fp32"]["detail"] == "what, why, remedy"
    assert re.match(r"fake runner: \d+ images/s", by_name["onnxruntime cpu fp32"]["detail"])
    assert "\nno  openvino cpu fp32    what, why, remedy\n" in done("doctor").stdout


def test_doctor_exits_with_1_where_no_runtime_works(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, working=())
    assert run("doctor").exit_code == 1
