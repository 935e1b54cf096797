"""Checkpoints remembered by their files' stamps: read again whenever they may have changed."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest

from alexnet_deploy.errors import IncompatibleFileError
from alexnet_deploy.export import recorded
from alexnet_deploy.export.recorded import open_recorded
from alexnet_deploy.importing.known import known_networks
from alexnet_deploy.model.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from alexnet_deploy.weights.store import store
from tests.support.networks import random_checkpoint


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "cache" / "alexnet-deploy"


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every file for one that was written long ago."""
    monkeypatch.setattr(recorded, "is_settled", lambda time_ns: True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_checkpoint(random_checkpoint("paper"), tmp_path / "c.safetensors")
    return tmp_path / "c.safetensors"


def other() -> Checkpoint:
    """Return a checkpoint whose file has the same size."""
    return random_checkpoint("paper", seed=1)


@pytest.mark.usefixtures("settled", "cache")
def test_a_file_as_it_was_is_not_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_recorded(path)
    assert first.weights is not None
    with monkeypatch.context() as patched:
        patched.setattr(recorded, "open_checkpoint", None)
        again = open_recorded(path)
    assert (again.spec, again.identity) == (first.spec, first.identity)
    assert again.read().identity == load_checkpoint(path).identity


@pytest.mark.usefixtures("settled", "cache")
@pytest.mark.parametrize("is_replaced", [False, True])
def test_other_weights_of_the_same_size_and_time_are_noticed(path: Path, is_replaced: bool) -> None:
    before = open_recorded(path)
    status = path.stat()
    if is_replaced:
        path.rename(path.with_name("kept"))
        save_checkpoint(other(), path)
    else:
        save_checkpoint(other(), path.with_name("other"))
        path.write_bytes(path.with_name("other").read_bytes())
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert open_recorded(path).identity == other().identity != before.identity
    with pytest.raises(IncompatibleFileError, match="has changed while it was being opened"):
        dataclasses.replace(before, weights=None).read()


def test_a_file_that_changed_a_moment_ago_is_not_remembered(cache: Path, path: Path) -> None:
    for _ in range(2):
        path.touch()
        assert open_recorded(path).weights is not None
    assert list(cache.glob("*.checkpoint")) == []


@pytest.mark.usefixtures("settled")
def test_a_file_whose_time_of_change_is_in_whole_seconds_is_not_remembered(
    cache: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on FAT and in images, where it may be the one that a builder gave to every file."""

    class Coarse:
        def __init__(self, status: os.stat_result) -> None:
            self.status = status

        def __getattr__(self, name: str) -> Any:
            value = getattr(self.status, name)
            return value // 10**9 * 10**9 if name.endswith("time_ns") else value

    exact = os.stat
    monkeypatch.setattr(os, "stat", lambda *path, **options: Coarse(exact(*path, **options)))
    for _ in range(2):
        assert open_recorded(path).weights is not None
    assert list(cache.glob("*.checkpoint")) == []


@pytest.mark.usefixtures("settled")
def test_a_file_that_changes_while_it_is_read_is_not_remembered(
    cache: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed_meanwhile(path: Path) -> Checkpoint:
        checkpoint = load_checkpoint(path)
        save_checkpoint(other(), path)
        return checkpoint

    monkeypatch.setattr(recorded, "open_checkpoint", changed_meanwhile)
    open_recorded(path)
    assert list(cache.glob("*.checkpoint")) == []


@pytest.mark.usefixtures("settled")
def test_a_damaged_record_or_one_in_a_folder_of_others_is_not_used(cache: Path, path: Path) -> None:
    identity = open_recorded(path).identity
    (entry,) = cache.glob("*.checkpoint")
    content = entry.read_bytes()
    for place in (0, len(content) // 2, len(content) - 2):
        damaged = bytearray(content)
        damaged[place] ^= 1
        entry.write_bytes(damaged)
        found = open_recorded(path)
        assert found.weights is not None
        assert found.identity == identity
        assert entry.read_bytes() == content
    cache.chmod(0o755)
    assert open_recorded(path).weights is not None


@pytest.mark.usefixtures("settled", "cache")
def test_a_public_network_is_remembered_but_refused_in_a_folder_of_others(tmp_path: Path) -> None:
    network = known_networks()["torchvision"]
    stored = store(network.name, random_checkpoint("paper"))
    assert open_recorded(network).weights is not None
    assert open_recorded(network).weights is None
    stored.parent.chmod(0o755)
    with pytest.raises(IncompatibleFileError, match="not a folder of yours alone"):
        open_recorded(network)
