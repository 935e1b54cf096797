"""Checkpoints: round trips, the fingerprint, and every way in which a file can be wrong."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import random_checkpoint
from numpy.typing import NDArray
from safetensors.numpy import save_file

from alexnet_deploy.checkpoints import (
    SPEC_KEY,
    Checkpoint,
    load_checkpoint,
    read_labels,
    save_checkpoint,
)
from alexnet_deploy.errors import IncompatibleFileError


def changed(checkpoint: Checkpoint, **arrays: NDArray[Any]) -> Checkpoint:
    renamed = {name.replace("__", "."): array for name, array in arrays.items()}
    return Checkpoint(spec=checkpoint.spec, arrays=dict(checkpoint.arrays) | renamed)


def write(path: Path, checkpoint: Checkpoint) -> Path:
    save_file(dict(checkpoint.arrays), path, {SPEC_KEY: checkpoint.spec.to_json()})
    return path


def test_a_saved_checkpoint_reads_back_bit_for_bit(tmp_path: Path) -> None:
    checkpoint = random_checkpoint("paper")
    halves = {name: array.astype(np.float16) for name, array in checkpoint.arrays.items()}
    checkpoint = Checkpoint(spec=checkpoint.spec, arrays=halves)
    save_checkpoint(checkpoint, tmp_path / "a.safetensors")
    loaded = load_checkpoint(tmp_path / "a.safetensors")
    assert loaded.spec == checkpoint.spec
    assert loaded.fingerprint == checkpoint.fingerprint
    for name, array in checkpoint.arrays.items():
        assert loaded.arrays[name].dtype == np.float16
        np.testing.assert_array_equal(loaded.arrays[name], array)


def test_the_fingerprint_sees_every_stored_bit_and_no_label() -> None:
    checkpoint = random_checkpoint("paper")
    bias = checkpoint.arrays["conv3.bias"].copy()
    bias[7] = np.nextafter(bias[7], np.float32(9))
    halves = {name: array.astype(np.float16) for name, array in checkpoint.arrays.items()}
    others = [
        changed(checkpoint, conv3__bias=bias),
        Checkpoint(spec=checkpoint.spec, arrays=halves),
        Checkpoint(
            spec=dataclasses.replace(checkpoint.spec, conv1_padding=(3, 3, 0, 0)),
            arrays=checkpoint.arrays,
        ),
    ]
    prints = {checkpoint.fingerprint, *(other.fingerprint for other in others)}
    assert len(prints) == 4
    unnamed = dataclasses.replace(checkpoint.spec, labels=(), provenance={"note": "x"})
    same = Checkpoint(spec=unnamed, arrays=checkpoint.arrays)
    assert same.fingerprint == checkpoint.fingerprint


def test_factors_load_as_their_product() -> None:
    checkpoint = random_checkpoint("paper")
    left, right = (checkpoint.arrays[f"fc7.weight.{side}"] for side in ("left", "right"))
    product = checkpoint.dense("fc7", np.dtype(np.float64))
    np.testing.assert_array_equal(product, left.astype(np.float64) @ right.astype(np.float64))


def test_a_missing_array_is_named(tmp_path: Path) -> None:
    arrays = dict(random_checkpoint("paper").arrays)
    del arrays["conv4.bias"]
    path = write(
        tmp_path / "a.safetensors", Checkpoint(spec=random_checkpoint("paper").spec, arrays=arrays)
    )
    with pytest.raises(IncompatibleFileError, match=r"conv4\.bias \[384\] is missing"):
        load_checkpoint(path)


def test_an_extra_array_is_named(tmp_path: Path) -> None:
    checkpoint = changed(random_checkpoint("paper"), conv9__bias=np.zeros(3, np.float32))
    path = write(tmp_path / "a.safetensors", checkpoint)
    with pytest.raises(IncompatibleFileError, match=r"conv9\.bias is not part"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("name", "shape"), [("conv2.weight", (256, 96, 5, 5)), ("fc6.weight.right", (16, 9215))]
)
def test_a_misshapen_array_is_named_with_both_shapes(
    tmp_path: Path, name: str, shape: tuple[int, ...]
) -> None:
    arrays = dict(random_checkpoint("paper").arrays) | {name: np.zeros(shape, np.float32)}
    path = write(
        tmp_path / "a.safetensors", Checkpoint(spec=random_checkpoint("paper").spec, arrays=arrays)
    )
    with pytest.raises(IncompatibleFileError, match=rf"{name}.*{shape[-1]}.*expected"):
        load_checkpoint(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    bias = random_checkpoint("paper").arrays["fc7.bias"].copy()
    bias[[5, 9]] = value
    path = write(tmp_path / "a.safetensors", changed(random_checkpoint("paper"), fc7__bias=bias))
    with pytest.raises(IncompatibleFileError, match=r"fc7\.bias holds 2 values that are NaN"):
        load_checkpoint(path)


def test_integers_are_refused(tmp_path: Path) -> None:
    checkpoint = changed(random_checkpoint("paper"), fc7__bias=np.zeros(4096, np.int32))
    with pytest.raises(IncompatibleFileError, match="int32, expected float16"):
        load_checkpoint(write(tmp_path / "a.safetensors", checkpoint))


@pytest.mark.parametrize("kept_bytes", [0, 5, 5000, 1_000_000])
def test_a_truncated_file_is_refused(tmp_path: Path, kept_bytes: int) -> None:
    path = write(tmp_path / "a.safetensors", random_checkpoint("paper"))
    os.truncate(path, kept_bytes)
    with pytest.raises(IncompatibleFileError, match="not a readable safetensors file"):
        load_checkpoint(path)


def test_a_preset_on_a_file_with_a_spec_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", random_checkpoint("paper"))
    with pytest.raises(IncompatibleFileError, match="carries its own spec"):
        load_checkpoint(path, preset="caffe")


def test_labels_replace_the_files_own_and_must_match_in_number(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", random_checkpoint("paper"))
    labels = tuple(f"new {index}" for index in range(11))
    assert load_checkpoint(path, labels=labels).spec.labels == labels
    with pytest.raises(IncompatibleFileError, match="has 11 classes, the labels file names 2"):
        load_checkpoint(path, labels=("a", "b"))


def test_a_labels_file_is_one_name_a_line(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("caf\u00e9\nb c\r\nd\n\n", "utf-8")
    assert read_labels(path) == ("caf\u00e9", "b c", "d")
    path.write_text("a\n\nb\n", "utf-8")
    with pytest.raises(IncompatibleFileError, match="line 2 is empty"):
        read_labels(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(IncompatibleFileError, match="UTF-8"):
        read_labels(path)
