"""Checkpoints: round trips, the identity, and every way in which a file can be wrong."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from alexnet_deploy.errors import IncompatibleFileError, UsageError
from alexnet_deploy.model.checkpoints import Checkpoint, load_checkpoint, save_checkpoint, widened
from alexnet_deploy.model.labels import read_labels
from alexnet_deploy.model.spec import SPEC_KEY
from tests.support.networks import random_checkpoint


def changed(checkpoint: Checkpoint, **arrays: NDArray[Any]) -> Checkpoint:
    renamed = {name.replace("__", "."): array for name, array in arrays.items()}
    return Checkpoint(spec=checkpoint.spec, arrays=dict(checkpoint.arrays) | renamed)


def write(path: Path, checkpoint: Checkpoint) -> Path:
    save_file(dict(checkpoint.arrays), path, {SPEC_KEY: checkpoint.spec.to_json()})
    return path


NO_RANK = {"left": (4096, 0), "right": (0, 9216)}


def test_a_saved_checkpoint_reads_back_bit_for_bit(tmp_path: Path) -> None:
    checkpoint = random_checkpoint("paper")
    halves = {name: array.astype(np.float16) for name, array in checkpoint.arrays.items()}
    checkpoint = Checkpoint(spec=checkpoint.spec, arrays=halves)
    save_checkpoint(checkpoint, tmp_path / "a.safetensors")
    loaded = load_checkpoint(tmp_path / "a.safetensors")
    assert loaded.spec == checkpoint.spec
    assert loaded.identity == checkpoint.identity
    for name, array in checkpoint.arrays.items():
        assert loaded.arrays[name].dtype == np.float16
        np.testing.assert_array_equal(loaded.arrays[name], array)


def test_the_identity_sees_every_stored_bit_and_no_label() -> None:
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
    prints = {checkpoint.identity, *(other.identity for other in others)}
    assert len(prints) == 4
    unnamed = dataclasses.replace(checkpoint.spec, labels=(), provenance={"note": "x"})
    same = Checkpoint(spec=unnamed, arrays=checkpoint.arrays)
    assert same.identity == checkpoint.identity


def test_factors_load_as_their_product() -> None:
    checkpoint = random_checkpoint("paper")
    left, right = (checkpoint.arrays[f"fc7.weight.{side}"] for side in ("left", "right"))
    product = checkpoint.dense("fc7", np.dtype(np.float64))
    np.testing.assert_array_equal(product, left.astype(np.float64) @ right.astype(np.float64))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"conv4.bias": None}, r"conv4\.bias \[384\] is missing"),
        ({"conv9.bias": np.zeros(3, np.float32)}, r"conv9\.bias is unexpected"),
        ({"conv2.weight": np.zeros((256, 96, 5, 5), np.float32)}, r"conv2\.weight.*5.*expected"),
        (
            {"fc6.weight.right": np.zeros((16, 9215), np.float32)},
            r"fc6\.weight\.right.*9215.*expected",
        ),
        ({"fc7.bias": np.zeros(4096, np.int32)}, "int32, expected float16"),
        (
            {f"fc6.weight.{side}": np.zeros(shape, np.float32) for side, shape in NO_RANK.items()},
            r"left is \[4096, 0\], expected \[4096, 1\]",
        ),
        ({"fc6.weight.left": np.array(1, np.float32)}, r"left is \[\], expected"),
    ],
    ids=["missing", "extra", "groups", "factor", "integers", "rank of zero", "number"],
)
def test_arrays_of_another_network_are_named(
    tmp_path: Path, arrays: dict[str, NDArray[Any] | None], message: str
) -> None:
    known = random_checkpoint("paper")
    every = {**known.arrays, **arrays}
    present = {name: array for name, array in every.items() if array is not None}
    path = write(tmp_path / "a.safetensors", Checkpoint(spec=known.spec, arrays=present))
    with pytest.raises(IncompatibleFileError, match=message):
        load_checkpoint(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, (np.inf, -np.inf)])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, value: Any) -> None:
    bias = random_checkpoint("paper").arrays["fc7.bias"].copy()
    bias[[5, 9]] = value
    path = write(tmp_path / "a.safetensors", changed(random_checkpoint("paper"), fc7__bias=bias))
    with pytest.raises(IncompatibleFileError, match=r"fc7\.bias holds 2 values that are NaN"):
        load_checkpoint(path)


def test_float64_that_float32_cannot_hold_is_counted(tmp_path: Path) -> None:
    bias = np.full(4096, 0.5)
    path = write(tmp_path / "a.safetensors", changed(random_checkpoint("paper"), fc7__bias=bias))
    assert load_checkpoint(path).arrays["fc7.bias"].dtype == np.float64
    bias[:3] = 1e305
    path = write(tmp_path / "a.safetensors", changed(random_checkpoint("paper"), fc7__bias=bias))
    with pytest.raises(IncompatibleFileError, match="3 values that are NaN or infinite in float32"):
        load_checkpoint(path)


@pytest.mark.parametrize("with_ml_dtypes", [True, False])
def test_bfloat16_becomes_float32_whatever_else_is_imported(
    tmp_path: Path, with_ml_dtypes: bool
) -> None:
    torch = pytest.importorskip("torch", reason="writes bfloat16")
    from safetensors.torch import save_file as save_tensors

    arrays = random_checkpoint("paper").arrays
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    for name in ("conv2.weight", "fc6.weight.right"):
        tensors[name] = tensors[name].bfloat16()
    spec = random_checkpoint("paper").spec
    save_tensors(tensors, tmp_path / "a.safetensors", {SPEC_KEY: spec.to_json()})
    program = (
        "import sys, pathlib\n"
        f"{'import ml_dtypes' if with_ml_dtypes else ''}\n"
        "from alexnet_deploy.model.checkpoints import load_checkpoint\n"
        "print(load_checkpoint(pathlib.Path(sys.argv[1])).identity)\n"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "a.safetensors"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    expected = {name: tensor.float().numpy() for name, tensor in tensors.items()}
    assert printed.strip() == Checkpoint(spec=spec, arrays=expected).identity


def test_a_number_type_that_numpy_lacks_is_named(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="writes float8")
    from safetensors.torch import save_file as save_tensors

    tensors = {"conv1.bias": torch.zeros(96).to(torch.float8_e4m3fn)}
    save_tensors(tensors, tmp_path / "a.safetensors")
    with pytest.raises(IncompatibleFileError, match=r"conv1\.bias is F8_E4M3, expected float16"):
        load_checkpoint(tmp_path / "a.safetensors")


@pytest.mark.parametrize("name", ["net", "net.bin", "net.pt"])
def test_a_file_is_known_by_its_content_whatever_its_name(tmp_path: Path, name: str) -> None:
    checkpoint = random_checkpoint("paper")
    save_checkpoint(checkpoint, tmp_path / name)
    assert load_checkpoint(tmp_path / name).identity == checkpoint.identity


def test_a_spec_that_cannot_be_is_refused_with_the_files_path(tmp_path: Path) -> None:
    checkpoint = random_checkpoint("paper")
    text = checkpoint.spec.to_json().replace("before_pool", "sideways")
    save_file(dict(checkpoint.arrays), tmp_path / "a.safetensors", {SPEC_KEY: text})
    with pytest.raises(IncompatibleFileError, match=r"a\.safetensors: damaged .lrn\.position is"):
        load_checkpoint(tmp_path / "a.safetensors")


@pytest.mark.parametrize("kept_bytes", [0, 5, 5000, 1_000_000])
def test_a_truncated_file_is_refused(tmp_path: Path, kept_bytes: int) -> None:
    path = write(tmp_path / "a.safetensors", random_checkpoint("paper"))
    os.truncate(path, kept_bytes)
    with pytest.raises(IncompatibleFileError, match="not a readable safetensors file"):
        load_checkpoint(path)


def test_labels_replace_its_own_and_must_match_in_number() -> None:
    checkpoint = random_checkpoint("paper")
    labels = tuple(f"new {index}" for index in range(11))
    renamed = checkpoint.with_labels(labels)
    assert renamed.spec.labels == labels
    assert renamed.identity == checkpoint.identity
    with pytest.raises(IncompatibleFileError, match="2 labels for 11 classes"):
        checkpoint.with_labels(("a", "b"))


def test_a_file_without_a_spec_is_to_be_imported(tmp_path: Path) -> None:
    arrays = {name: np.asarray(array) for name, array in random_checkpoint("paper").arrays.items()}
    save_file(arrays, tmp_path / "a.safetensors")
    with pytest.raises(IncompatibleFileError, match="alexnet-deploy import FILE"):
        load_checkpoint(tmp_path / "a.safetensors")


def test_a_labels_file_is_one_name_a_line(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("caf\u00e9\nb c\r\nd\n\n", "utf-8")
    assert read_labels(path) == ("caf\u00e9", "b c", "d")
    path.write_text("a\n\nb\n", "utf-8")
    with pytest.raises(IncompatibleFileError, match="line 2 is empty"):
        read_labels(path)
    path.write_bytes(b"\xef\xbb\xbfa\nb\n")
    assert read_labels(path) == ("a", "b")
    with pytest.raises(UsageError, match="no such file"):
        read_labels(tmp_path / "missing.txt")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(IncompatibleFileError, match="UTF-8"):
        read_labels(path)


def test_every_float16_is_widened_exactly() -> None:
    every = np.arange(2**16, dtype=np.uint16).view(np.float16).reshape(256, 256)
    for array in (every, every.T, every[::3, ::-1]):
        wide = widened(array)
        assert wide.dtype == np.float32
        np.testing.assert_array_equal(wide, array.astype(np.float64))
