"""Unsigned activations: the same function as the signed file, and no pair of products too large."""

import dataclasses

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from alexnet_deploy.graph.build import build_model
from alexnet_deploy.graph.model_file import ModelFile
from alexnet_deploy.graph.quantization import quantize_model, quantized_tensors
from alexnet_deploy.graph.unsigned_int8 import unsigned_activations
from alexnet_deploy.model.spec import PRESET_NAMES
from tests.support.networks import noise, random_checkpoint, relative_error
from tests.support.plain_session import plain_session


def int8_file(preset: str) -> ModelFile:
    """Return a network that clips: the largest values of every tensor are beyond its range."""
    checkpoint = random_checkpoint(preset)
    file = build_model(checkpoint, ("fc7",))
    tensors = quantized_tensors(file)
    session = plain_session(
        with_outputs(file, dict.fromkeys(tensors, TensorProto.FLOAT)).SerializeToString()
    )
    values = session.run(list(tensors), {"images": noise(checkpoint.spec, 2)})
    ranges = {
        name: float(np.abs(value).max() / 2) for name, value in zip(tensors, values, strict=True)
    }
    return quantize_model(file, ranges).with_outputs(tuple(checkpoint.spec.layer_shapes()))


def with_outputs(file: ModelFile, tensors: dict[str, int]) -> onnx.ModelProto:
    model = onnx.load_model_from_string(file.to_bytes())
    del model.graph.output[:]
    for name, kind in tensors.items():
        model.graph.output.append(helper.make_tensor_value_info(name, kind, None))
    return model


def run(file: ModelFile) -> dict[str, NDArray[np.float32]]:
    onnx.checker.check_model(file.to_bytes(), full_check=True)
    session = plain_session(file.to_bytes())
    return dict(
        zip(file.outputs(), session.run(None, {"images": noise(file.spec, 2)}), strict=True)
    )


@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_every_layer_is_bitwise_that_of_the_file(preset: str) -> None:
    file = int8_file(preset)
    expected, actual = run(file), run(unsigned_activations(file, narrow_sums=False))
    for layer, values in expected.items():
        np.testing.assert_array_equal(actual[layer], values, err_msg=layer)


def test_an_input_split_by_its_sign_gives_the_same_products() -> None:
    file = int8_file("paper").with_outputs(("conv1",))
    actual = run(unsigned_activations(file, narrow_sums=True))["conv1"]
    assert relative_error(actual, run(file)["conv1"]) < 1e-6  # added in another order


@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_no_pair_of_products_leaves_16_bits(preset: str) -> None:
    file = unsigned_activations(int8_file(preset), narrow_sums=True)
    rounded = [node.output[0] for node in file.graph.graph.node if node.op_type == "QuantizeLinear"]
    model = with_outputs(file, dict.fromkeys(rounded, TensorProto.UINT8))
    session = plain_session(model.SerializeToString())
    values = session.run(rounded, {"images": noise(file.spec, 2)})
    assert len(values) == len(quantized_tensors(build_model(random_checkpoint(preset), ("fc7",))))
    for value in values:
        assert 127 <= value.max() <= 128
        assert int(value.max()) * 127 * 2 < 2**15


def test_a_weight_without_an_int8_negative_is_not_split() -> None:
    file = int8_file("paper")
    weight = file.arrays["conv1.weight_int8"].copy()
    weight[0, 0, 0, 0] = -128
    file = dataclasses.replace(file, arrays={**file.arrays, "conv1.weight_int8": weight})
    expected, actual = run(file), run(unsigned_activations(file, narrow_sums=True))
    np.testing.assert_array_equal(actual["conv1"], expected["conv1"])
