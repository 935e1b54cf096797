"""A public network is recognized by its file, and by its numbers in any other file."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from alexnet_deploy.importing import known
from alexnet_deploy.importing.adoption import ImportOptions
from alexnet_deploy.importing.known import arrays_digest
from alexnet_deploy.importing.opening import Import, import_weights
from tests.support.known_tables import FILE_NAME, NAME, published, use_table

PRESET = ImportOptions(preset="torchvision")


@pytest.fixture(autouse=True)
def _table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_table(monkeypatch, tmp_path)


def imported(path: Path, content: bytes, options: ImportOptions = PRESET) -> Import:
    path.write_bytes(content)
    return import_weights(path, options)


def network_of(read: Import) -> str | None:
    assert read.adopted is not None
    return None if read.adopted.network is None else read.adopted.network.name


def test_a_file_is_known_by_its_hash_whatever_its_name(tmp_path: Path) -> None:
    read = imported(tmp_path / "w.bin", published(), ImportOptions())
    assert network_of(read) == NAME
    assert read.checkpoint.spec.provenance["imported"]["licence"] == "CC0"


def test_a_network_is_known_by_its_numbers_in_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = imported(tmp_path / "w.bin", published())
    table = known._TABLE.read_text().replace(
        'arrays = ""', f'arrays = "{arrays_digest(read.checkpoint.arrays)}"'
    )
    (tmp_path / "with_digest.toml").write_text(table)
    monkeypatch.setattr(known, "_TABLE", tmp_path / "with_digest.toml")
    wrapped = {f"model.{name}": array for name, array in load(published()).items()}
    assert network_of(imported(tmp_path / "other.safetensors", save(wrapped))) == NAME
    wrapped["model.classifier.6.bias"] = wrapped["model.classifier.6.bias"] + np.float32(1)
    assert network_of(imported(tmp_path / "tuned.safetensors", save(wrapped))) is None


def test_a_damaged_file_of_a_public_networks_name_is_told(tmp_path: Path) -> None:
    content = bytearray(published())
    content[-1] ^= 1
    (note,) = imported(tmp_path / FILE_NAME, bytes(content)).notes
    assert "another, or damaged" in note
    assert imported(tmp_path / "mine.safetensors", bytes(content)).notes == ()
    assert imported(tmp_path / FILE_NAME, published(), ImportOptions()).notes == ()
