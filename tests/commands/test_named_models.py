"""A public network's name wherever a command takes a model; the store has ours under a name."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import alexnet_deploy
from alexnet_deploy.cli import cli
from alexnet_deploy.errors import UsageError
from alexnet_deploy.graph.reading import read_model
from alexnet_deploy.model.checkpoints import load_checkpoint
from alexnet_deploy.model.default import bundled_checkpoint
from alexnet_deploy.photographs.samples import varied_samples
from alexnet_deploy.weights.store import store

PHOTOGRAPH = varied_samples()[0]


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def stored() -> str:
    """Return the name of a network in the store: its numbers are those of the bundled one."""
    store("caffe", load_checkpoint(bundled_checkpoint()))
    return "caffe"


def test_every_command_takes_a_name(stored: str, monkeypatch: pytest.MonkeyPatch) -> None:
    identity = load_checkpoint(bundled_checkpoint()).identity
    for arguments in (
        ["classify", PHOTOGRAPH, "--model", stored],
        ["embed", PHOTOGRAPH, "--model", stored, "-o", "v.npy", "--json"],
        ["info", stored],
        ["export", "--model", stored, "--verify-on", PHOTOGRAPH],
        ["export", stored, "-o", "again.onnx", "--no-verify"],
        ["verify", "caffe.onnx", "--against", stored, "--on", PHOTOGRAPH],
        ["index", PHOTOGRAPH.parent, "--model", stored],
        ["search", PHOTOGRAPH],
    ):
        done = run(*arguments)
        assert done.exit_code == 0, done.output
    assert read_model(Path("caffe.onnx")).identity == identity
    assert json.loads(run("info", "alexnet-index", "--json").stdout)["model"] == stored
    monkeypatch.setenv("ALEXNET_MODEL", stored)
    assert json.loads(run("info", "--json").stdout)["identity"] == identity
    with alexnet_deploy.open_model(stored) as model, alexnet_deploy.open_model() as same:
        assert model.identity == same.identity == identity


def test_a_name_that_was_not_pulled_is_wrong_usage_and_fetches_nothing() -> None:
    for arguments in (
        ["classify", PHOTOGRAPH, "--model", "torchvision"],
        ["export", "--model", "torchvision"],
        ["info", "torchvision"],
        ["evaluate", PHOTOGRAPH.parents[1], "--model", "torchvision"],
        ["index", PHOTOGRAPH.parent, "--model", "torchvision"],
    ):
        failed = run(*arguments)
        assert failed.exit_code == 2, failed.output
        assert "alexnet-deploy pull torchvision" in failed.stderr
    with pytest.raises(UsageError, match="alexnet-deploy pull torchvision"):
        alexnet_deploy.open_model("torchvision")
    assert run("classify", PHOTOGRAPH, "--model", "torchvison").exit_code == 2


def test_a_file_of_that_name_is_told_and_reached_with_its_folder(stored: str) -> None:
    Path(stored).write_bytes(b"no weights")
    told = run("info", stored)
    assert told.exit_code == 0
    assert f"for that give ./{stored}" in told.stderr
    assert run("info", f"./{stored}").exit_code == 5


def test_export_takes_one_model() -> None:
    failed = run("export", "a.safetensors", "--model", "b.safetensors")
    assert failed.exit_code == 2
    assert "give one of them" in failed.stderr


def test_the_variable_is_named_where_its_word_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALEXNET_MODEL", "torchvison")
    failed = run("classify", PHOTOGRAPH)
    assert failed.exit_code == 2
    assert "$ALEXNET_MODEL: torchvison" in failed.stderr
    assert "do you mean torchvision?" in failed.stderr
