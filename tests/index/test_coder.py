"""A coder gives the bits of its network, packed as FAISS reads them, and fits one vector space."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from alexnet_deploy.choices import CODE_BITS
from alexnet_deploy.errors import IncompatibleFileError, UsageError
from alexnet_deploy.graph.coder_file import CoderFile, write_coder
from alexnet_deploy.index.coder import open_coder
from tests.support.coders import random_coder, space_of

SPACE = space_of()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_coder(random_coder(SPACE), tmp_path / "head.onnx")
    return tmp_path / "head.onnx"


def logits(file: CoderFile, vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    """Compute a coder's network in float64."""
    x = vectors.astype(np.float64)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    hidden = np.maximum(x @ file.weights[0].T + file.biases[0], 0)
    out: NDArray[np.float64] = hidden @ file.weights[1].T + file.biases[1]
    return out


@pytest.mark.parametrize("bits", CODE_BITS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_codes_are_the_signs_of_the_networks_numbers(
    bits: int, dtype: type[np.floating], tmp_path: Path
) -> None:
    file = random_coder(SPACE, bits)
    write_coder(file, tmp_path / "head.onnx")
    vectors = (40 * np.random.default_rng(0).random((1500, 4096), np.float32)).astype(dtype)
    codes = open_coder(tmp_path / "head.onnx", SPACE).codes(vectors)
    assert codes.shape == (1500, bits // 8)
    expected = logits(file, vectors)
    is_sure = np.abs(expected) > 1e-4  # float32's error; only the sign of a smaller one is in doubt
    ones = np.unpackbits(codes, axis=1, bitorder="little").astype(bool)
    assert is_sure.mean() > 0.99
    assert np.array_equal(ones[is_sure], expected[is_sure] > 0)


def test_a_code_depends_neither_on_length_nor_on_its_neighbours(path: Path) -> None:
    coder = open_coder(path, SPACE)
    vectors = np.random.default_rng(2).random((1030, 4096), np.float32)
    together = coder.codes(vectors)
    assert coder.widths[-1] == 64
    assert np.array_equal(coder.codes(64 * vectors), together)
    assert np.array_equal(coder.codes(vectors[[0, 1029]]), together[[0, 1029]])
    assert coder.codes(vectors[:0]).shape == (0, 8)


def test_a_vector_of_zeros_has_the_code_of_no_direction(path: Path) -> None:
    file = random_coder(SPACE)
    at_zero = np.maximum(file.biases[0], 0) @ file.weights[1].T + file.biases[1]
    code = open_coder(path, SPACE).codes(np.zeros((1, 4096), np.float16))
    assert np.array_equal(code[0], np.packbits(at_zero > 0, bitorder="little"))


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (space_of(identity="another"), "identity is a network, those to be coded have another"),
        (space_of("fc6"), "layer is fc7, those to be coded have fc6"),
        (dataclasses.replace(SPACE, precision="bf16"), "precision is fp32, .* have bf16"),
    ],
)
def test_a_coder_of_another_vector_space_is_refused(
    path: Path, other: object, difference: str
) -> None:
    with pytest.raises(IncompatibleFileError, match=difference):
        open_coder(path, other)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [("layer", "fc6", "its graph of"), ("dimension", 4095, "its graph of"), ("identity", 7, "7")],
)
def test_a_record_that_does_not_fit_its_network_is_refused(
    tmp_path: Path, field: str, value: object, reason: str
) -> None:
    file = random_coder(SPACE)
    record = json.loads(file.record)
    record["space"][field] = value
    write_coder(dataclasses.replace(file, record=json.dumps(record)), tmp_path / "head.onnx")
    with pytest.raises(IncompatibleFileError, match=reason):
        open_coder(tmp_path / "head.onnx", SPACE)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file; give a coder"):
        open_coder(tmp_path / "none.onnx", SPACE)
