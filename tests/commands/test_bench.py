"""The command `bench`: what it prints, draws and refuses, and that nothing half true is left."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from alexnet_deploy.cli import cli
from alexnet_deploy.commands import bench as command
from alexnet_deploy.export import opening
from alexnet_deploy.photographs.samples import varied_samples
from tests.support.fake_runner import FakeRunner, open_fake_runner, save_photographs


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["bench", "--rounds", "1", *map(str, arguments)])


def keys(text: str) -> set[str]:
    return set(re.findall(r'"(\w+)"', text))


def keys_of(value: Any) -> set[str]:
    """Return the keys of all objects in a document, but for those that are data."""
    if isinstance(value, dict):
        own = {name for name in value if value is not value.get("versions")}
        return own.union(*(keys_of(x) for name, x in value.items() if name not in DATA))
    return set().union(*map(keys_of, value)) if isinstance(value, list) else set()


DATA = ("versions", "changes", "decode", "agreement")


def test_the_real_network_is_measured_and_the_help_says_what_comes(tmp_path: Path) -> None:
    chart, photographs = tmp_path / "chart.png", varied_samples()[:3]
    options = ("--json", "--chart", chart, "--runtime", "openvino", "--batch-size", "2")
    result = run(*photographs, *options)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    documented = re.findall(r"With --json: (\{.*\})\.", " ".join(run("--help").stdout.split()))[0]
    assert keys_of(found) == keys(documented) | {"median", "lower", "upper"}
    row = found["rows"][0]
    assert (row["runtime"], row["device"], row["precision"], row["batch_size"]) == (
        *("openvino", "cpu", "fp32"),
        2,
    )
    assert row["description"].startswith("OpenVINO")
    assert row["process"]["median"] > 0
    assert found["num_photographs"] == 3
    with Image.open(chart) as picture:
        assert picture.width == 1500
    assert "round 1 of 1" in result.stderr


@pytest.fixture
def photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three photographs for fake runners, one of which cannot be read."""
    monkeypatch.setattr(opening, "open_runner_of", open_fake_runner)
    monkeypatch.setattr(command, "_embedding", lambda model: lambda *_: ["true"])
    folder = save_photographs(tmp_path / "p")
    (folder / "c.png").write_bytes(b"bad")
    return folder


def test_what_cannot_be_read_is_named_counted_and_ends_with_3(photographs: Path) -> None:
    result = run(photographs)
    assert result.exit_code == 3
    assert f"failed: {photographs}/c.png: " in result.stderr
    assert "3 photographs, medians 40 x 30 px and 0 kB, 1 more could not be read" in result.stdout
    assert run(photographs, "--max-failures", "1").exit_code == 0


def test_without_photographs_the_samples_are_measured(photographs: Path) -> None:
    result = run("--photographs", "2", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["num_photographs"] == 2


def test_what_cannot_be_measured_is_refused_before_anything_is(
    photographs: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "foreign.png")
    for arguments, code, message in (
        ([tmp_path / "gone"], 2, "gone"),
        ([tmp_path / "empty"], 1, "no photograph found"),
        ([photographs, "--runtime", "onnxruntime", "--precision", "bf16"], 1, "--precision bf16"),
        ([photographs, "--runtime", "tensorrt"], 1, "--runtime tensorrt"),
        ([photographs, "--chart", tmp_path / "foreign.png"], 2, "did not draw it"),
        ([photographs, "--photographs", "0"], 2, "--photographs"),
        (["-"], 2, "standard input"),
    ):
        result = run(*arguments)
        assert (result.exit_code, result.stdout) == (code, ""), result.output
        assert message in result.stderr


def test_ctrl_c_leaves_nothing_half_true(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [12]

    def interrupted(self: FakeRunner, images: Any) -> Any:
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        return run_fake(self, images)

    run_fake = FakeRunner.run
    monkeypatch.setattr(FakeRunner, "run", interrupted)
    result = run(photographs, "--rounds", "9", "--chart", tmp_path / "chart.png")
    assert (result.exit_code, result.stdout) == (130, "")
    assert "round 2 of 9" in result.stderr
    assert not (tmp_path / "chart.png").exists()


def test_a_new_process_gets_what_was_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[list[str]] = []

    def embedding(model: str | None) -> Any:
        made = own(model)

        def command(*arguments: Any) -> list[str]:
            asked.append(made(*arguments)[4:])
            return ["true"]

        return command

    own = command._embedding
    monkeypatch.setattr(command, "_embedding", embedding)
    monkeypatch.setattr(opening, "open_runner_of", open_fake_runner)
    folder = save_photographs(tmp_path / "p")
    limits = ["--max-megapixels", "200", "--max-decoded-memory", "1GB"]
    result = run(folder, "--batch-size", "7", "--threads", "1", "--decode", "scaled", *limits)
    assert result.exit_code == 0, result.output
    options = dict(zip(asked[0][::2], asked[0][1::2], strict=True))
    assert Path(options.pop("--from-file")).name == "photographs"
    assert Path(options.pop("--output")).suffix == ".npy"
    assert options == {
        "--runtime": "onnxruntime",
        "--device": "cpu",
        "--precision": "fp32",
        "--batch-size": "7",
        "--threads": "1",
        "--decode": "scaled",
        "--colour": "srgb",
        "--max-megapixels": "200.0",
        "--max-decoded-memory": "1GB",
    }
