"""The command `bench`: what it prints, draws and refuses, and that nothing half true is left."""

import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from alexnet_deploy.benchmark.settings import Setting
from alexnet_deploy.cli import cli
from alexnet_deploy.commands import bench as command
from alexnet_deploy.console.decoding import decoding_options
from alexnet_deploy.export import opening
from alexnet_deploy.photographs.pixels import Decode
from alexnet_deploy.runtimes.base import RunnerOptions
from tests.support.fake_runner import FakeRunner, open_fake_runner, save_photographs

EMBEDDING = command._embedding


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["bench", "--rounds", "1", *map(str, arguments)])


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
    assert "photographs: 3, medians 40 x 30 px, 1 more could not be read" in result.stdout
    assert run(photographs, "--max-failures", "1").exit_code == 0


def test_without_photographs_the_samples_are_measured_and_drawn(
    photographs: Path, tmp_path: Path
) -> None:
    chart = tmp_path / "chart.png"
    result = run("--photographs", "2", "--json", "--chart", chart)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["num_photographs"] == 2
    assert "round 1 of 1" in result.stderr
    with Image.open(chart) as picture:
        assert picture.width == 1500


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


def test_a_new_process_gets_what_was_asked() -> None:
    asked: list[list[str]] = []

    @click.command
    @decoding_options
    def started() -> None:
        options = RunnerOptions(runtime="openvino", device="cpu", batch_size=7, threads=1)
        setting = Setting(options=options, decode=Decode.of("scaled"))
        asked.append(EMBEDDING("some.pt")(setting, Path("listed"), Path("v.npy")))

    limits = ["--max-decoded-memory", "1GB", "--max-megapixels", "200"]
    assert CliRunner().invoke(started, limits).exit_code == 0
    own = "--from-file listed --output v.npy --model some.pt --runtime openvino --device cpu"
    usual = "--precision auto --batch-size 7 --threads 1 --decode scaled"
    bounds = "--max-decoded-memory 1GB --max-megapixels 200.0"
    assert " ".join(asked[0][4:]) == f"{own} {usual} {bounds}"
