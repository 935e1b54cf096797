"""pull and models, end to end with a made-up network on a local server."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from alexnet_deploy.cli import cli
from alexnet_deploy.importing.known import known_networks
from tests.support.file_server import FileServer, sent, serving
from tests.support.known_tables import FILE_NAME, NAME, published, use_table


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    with serving(published()) as file:
        use_table(monkeypatch, tmp_path, file.url)
        yield file


def test_pull_says_what_it_fetches_and_models_that_it_is_here(server: FileServer) -> None:
    assert "not here" in run("models").stdout
    pulled = run("pull", NAME)
    assert pulled.exit_code == 0, pulled.output
    assert pulled.stderr == f"fetching {FILE_NAME} (0.0 MB) from {server.url}\n"
    assert pulled.stdout.endswith(f"from {server.url}; licence: CC0\n")
    listed = run("models").stdout
    assert listed.split()[0] == NAME
    assert "12.50 / 25.00 %  here" in listed
    assert "was here already" in run("pull", NAME).stdout


def test_both_have_json(server: FileServer) -> None:
    told = json.loads(run("pull", NAME, "--json").stdout)
    assert told["source"] == server.url
    (model,) = json.loads(run("models", "--json").stdout)["models"]
    assert model["path"] == told["path"]
    assert model["size_bytes"] == len(published())
    assert model["file"] is None


def test_errors_have_their_exit_codes(server: FileServer, tmp_path: Path) -> None:
    assert run("pull", "tinny").exit_code == 2
    assert run("pull", NAME, "--from", str(tmp_path / "missing")).exit_code == 2
    assert run("pull", NAME, "--offline").exit_code == 1
    server.answers = [sent(404)]
    failed = run("pull", NAME)
    assert failed.exit_code == 1
    assert "does not have it (404)" in failed.stderr
    other = tmp_path / "other.bin"
    other.write_bytes(published(seed=1))
    assert run("pull", NAME, "--from", str(other)).exit_code == 5


def test_models_lists_every_network_that_is_public() -> None:
    lines = run("models").stdout.splitlines()
    assert [line.split()[0] for line in lines[::2]] == list(known_networks())
    assert all("licence: " in line for line in lines[1::2])
