"""A coder's file is its matrices: whatever else somebody put into it is refused before it runs."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from alexnet_deploy.errors import IncompatibleFileError
from alexnet_deploy.graph.coder_file import CoderFile, read_coder, write_coder
from tests.support.coders import random_coder, space_of

SPACE = space_of()


def test_what_is_written_is_read_and_is_valid_onnx(tmp_path: Path) -> None:
    coder = random_coder(SPACE, 128)
    write_coder(coder, tmp_path / "head.onnx")
    onnx.checker.check_model(tmp_path / "head.onnx", full_check=True)
    read = read_coder(tmp_path / "head.onnx")
    assert (read.layer, read.record) == (coder.layer, coder.record)
    pairs = zip((*coder.weights, *coder.biases), (*read.weights, *read.biases), strict=True)
    for own, came in pairs:
        assert np.array_equal(own, came)


def set_array(model: onnx.ModelProto, name: str, array: np.ndarray) -> None:
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(array, name))


def outside(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="elsewhere")


def looped(model: onnx.ModelProto) -> None:
    body = helper.make_graph([], "body", [], [])
    model.graph.node.append(helper.make_node("Loop", ["", ""], ["x"], body=body))


EDITS: dict[str, Callable[[onnx.ModelProto], object]] = {
    "another operator": lambda model: setattr(model.graph.node[1], "op_type", "MatMul"),
    "a loop": looped,
    "a function": lambda model: model.functions.add(name="f", domain="x"),
    "an array outside": outside,
    "another array": lambda model: model.graph.initializer.add(name="x", data_type=1),
    "no arrays": lambda model: model.graph.ClearField("initializer"),
    "no input": lambda model: model.graph.ClearField("input"),
    "no record": lambda model: model.ClearField("metadata_props"),
    "float64": lambda model: set_array(model, "layer0.bias", np.zeros(8)),
    "a shorter bias": lambda model: set_array(model, "layer0.bias", np.zeros(1, np.float32)),
    "not a number": lambda model: set_array(
        model, "layer0.bias", np.full(8, np.nan, dtype=np.float32)
    ),
    "layers that do not meet": lambda model: set_array(
        model, "layer1.weight", np.zeros((64, 9), np.float32)
    ),
    "an operator set of another": lambda model: setattr(model.opset_import[0], "version", 17),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_file_with_anything_else_is_refused(edit: str, tmp_path: Path) -> None:
    model = onnx.load_model_from_string(random_coder(SPACE).to_bytes())
    EDITS[edit](model)
    (tmp_path / "head.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(IncompatibleFileError, match=r"head.onnx: is not a coder's file \("):
        read_coder(tmp_path / "head.onnx")


@pytest.mark.parametrize("bits", [8, 60, 1024])
def test_other_numbers_of_bits_are_refused(bits: int, tmp_path: Path) -> None:
    write_coder(random_coder(SPACE, bits), tmp_path / "head.onnx")
    with pytest.raises(IncompatibleFileError, match=f"gives {bits} bits, expected 64, 128, 256"):
        read_coder(tmp_path / "head.onnx")


def test_a_deep_coder_is_read_and_an_endless_one_is_not(tmp_path: Path) -> None:
    shallow = random_coder(SPACE, 64, hidden=64)

    def deepened(times: int) -> CoderFile:
        weights = [*shallow.weights, *[shallow.weights[1]] * times]
        return dataclasses.replace(
            shallow, weights=weights, biases=[*shallow.biases, *[shallow.biases[1]] * times]
        )

    write_coder(deepened(6), tmp_path / "deep.onnx")
    assert len(read_coder(tmp_path / "deep.onnx").weights) == 8
    write_coder(deepened(7), tmp_path / "endless.onnx")
    with pytest.raises(IncompatibleFileError, match="18 arrays"):
        read_coder(tmp_path / "endless.onnx")


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"not protobuf"])
def test_what_is_no_onnx_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "head.onnx").write_bytes(content)
    with pytest.raises(IncompatibleFileError, match="is not a coder's file"):
        read_coder(tmp_path / "head.onnx")


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "head.onnx").open("wb") as file:
        file.truncate(2**26 + 1)
    with pytest.raises(IncompatibleFileError, match="more than"):
        read_coder(tmp_path / "head.onnx")
