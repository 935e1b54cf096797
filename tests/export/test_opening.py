"""A model's path: which file is opened, and the cache of exported checkpoints."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from alexnet_deploy.errors import (
    DeviceError,
    IncompatibleFileError,
    UsageError,
    VerificationError,
)
from alexnet_deploy.export import onnx as exported
from alexnet_deploy.export import opening
from alexnet_deploy.graph.build import build_model
from alexnet_deploy.graph.model_file import write_model
from alexnet_deploy.model.checkpoints import save_checkpoint
from alexnet_deploy.model.default import bundled_checkpoint
from alexnet_deploy.photographs.samples import varied_samples
from alexnet_deploy.runtimes.base import RunnerOptions
from alexnet_deploy.runtimes.batch_profile import BatchProfile
from alexnet_deploy.runtimes.engine_file import EngineFile, read_engine, sidecar_path, write_engine
from alexnet_deploy.runtimes.processor import saturates_int8
from alexnet_deploy.weights.names import MODEL_VARIABLE
from tests.support.cpu_plans import CpuPlan, built
from tests.support.networks import random_checkpoint
from tests.support.waiting import PATIENCE_S

ONE = RunnerOptions(batch_size=1)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(MODEL_VARIABLE, raising=False)
    return tmp_path / "cache" / "alexnet-deploy"


def test_the_bundled_checkpoint_is_exported_once_verified_and_kept(cache: Path) -> None:
    lines: list[str] = []
    for _ in range(2):
        with opening.open_runner_of(None, ONE, notify=lines.append) as runner:
            assert runner.spec.num_classes == 101
    assert len(lines) == 1
    assert "preparing caltech101.safetensors" in lines[0]


def test_an_export_that_fails_its_check_is_neither_run_nor_kept(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = build_model(random_checkpoint("paper"), ("probabilities", "fc7"))
    monkeypatch.setattr(exported, "build_model", lambda *_: other)
    with pytest.raises(VerificationError):
        opening.open_runner_of(None, ONE)
    assert list(cache.glob("*.network")) == []


@pytest.mark.usefixtures("cache")
def test_other_labels_are_another_export(tmp_path: Path) -> None:
    checkpoint = random_checkpoint("paper")
    for label in "ab":
        spec = dataclasses.replace(checkpoint.spec, labels=(label,) * 11)
        save_checkpoint(dataclasses.replace(checkpoint, spec=spec), tmp_path / "c.safetensors")
        with opening.open_runner_of(tmp_path / "c.safetensors", ONE) as runner:
            assert runner.spec.labels == (label,) * 11


def test_a_cache_that_cannot_be_made_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(in_the_way))
    lines: list[str] = []
    with opening.open_runner_of(bundled_checkpoint(), ONE, notify=lines.append) as runner:
        assert runner.spec.num_classes == 101
    assert "the cache cannot be used" in lines[1]
    assert str(in_the_way) in lines[1]


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="drops root's privileges")
def test_a_read_only_cache_is_done_without(tmp_path: Path) -> None:
    """As an ordinary user, once everything is imported: root writes everywhere."""
    code = """
import os, sys
from pathlib import Path
from alexnet_deploy.export import opening
from alexnet_deploy.model.default import bundled_checkpoint
from alexnet_deploy.runtimes.base import RunnerOptions, usual_outputs
options = RunnerOptions(batch_size=1)
opening.open_runner_of(bundled_checkpoint(), options).close()
os.environ["XDG_CACHE_HOME"] = sys.argv[1]
os.setgid(65534); os.setuid(65534)
with opening.open_runner_of(bundled_checkpoint(), options, notify=print):
    print("opened")
"""
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", code, str(locked)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    assert "the cache cannot be used" in done.stdout
    assert "opened" in done.stdout


def test_the_environment_names_the_default_model(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine.onnx"
    write_model(build_model(random_checkpoint("paper"), ("fc7",)), path)
    monkeypatch.setenv(MODEL_VARIABLE, str(path))
    with opening.open_runner_of(None, ONE) as runner:
        assert runner.spec.num_classes == 11
    assert not cache.exists()


def test_a_model_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        opening.open_runner_of(tmp_path / "missing.onnx", ONE)


def test_an_engine_is_read_with_its_record_and_opened_by_its_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.engine"
    write_engine(built(build_model(random_checkpoint("paper"), ("fc7",)), BatchProfile()), path)
    monkeypatch.setattr(opening, "open_engine_file", CpuPlan)
    monkeypatch.setenv(MODEL_VARIABLE, str(path))
    options = RunnerOptions(batch_size=1, outputs=("fc7",))
    for model in (path, None):
        with opening.open_runner_of(model, options) as runner:
            assert runner.options.runtime == "tensorrt"
            assert runner.spec.num_classes == 11
    read: list[Path] = []

    def counted(path: Path) -> EngineFile:
        read.append(path)
        return read_engine(path)

    monkeypatch.setattr(opening, "read_engine", counted)
    with opening.open_model(batch_size=1) as opened:
        assert opened.embed(varied_samples()[0]).vectors.shape == (1, 4096)
    assert read == [path]
    sidecar_path(path).unlink()
    with pytest.raises(IncompatibleFileError, match="not beside it"):
        opening.open_runner_of(path, options)


def test_a_file_of_another_kind_names_those_that_work(tmp_path: Path) -> None:
    (tmp_path / "model.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(IncompatibleFileError, match="is an HDF5 file"):
        opening.open_runner_of(tmp_path / "model.h5", ONE)


def test_a_changed_model_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.onnx"
    write_model(build_model(random_checkpoint("paper"), ("fc7",)), path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(IncompatibleFileError, match="changed since it was exported"):
        opening.open_runner_of(path, ONE)


def test_a_processor_that_adds_bytes_otherwise_has_entries_of_its_own(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Machines may share the folder, and the int8 network for one may saturate on another."""
    opening.open_runner_of(None, ONE).close()
    before = set(cache.glob("*.network"))
    monkeypatch.setattr(opening, "saturates_int8", lambda: not saturates_int8())
    opening.open_runner_of(None, ONE).close()
    assert len(set(cache.glob("*.network")) - before) == len(before)


def test_nothing_is_exported_for_a_gpu_that_is_not_there(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_gpu() -> None:
        raise DeviceError("no NVIDIA GPU")

    monkeypatch.setattr(opening, "current_gpu", no_gpu)
    lines: list[str] = []
    with pytest.raises(DeviceError, match="no NVIDIA GPU"):
        opening.open_runner_of(None, RunnerOptions(device="cuda"), notify=lines.append)
    assert lines == []
