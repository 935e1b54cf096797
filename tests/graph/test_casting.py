"""A cast graph is the same network in narrow types, with nothing cast that need not be."""

import dataclasses

import ml_dtypes
import numpy as np
import onnx
import pytest

from alexnet_deploy.errors import IncompatibleFileError
from alexnet_deploy.graph.build import build_model
from alexnet_deploy.graph.casting import NarrowPrecision, cast_model
from alexnet_deploy.graph.lowering import banded_convolution
from alexnet_deploy.graph.model_file import ModelFile
from alexnet_deploy.model.checkpoints import Checkpoint
from alexnet_deploy.model.reference import Reference
from alexnet_deploy.model.spec import PRESET_NAMES
from tests.support.networks import noise, random_checkpoint, relative_error
from tests.support.plain_session import plain_session

PRECISIONS: tuple[NarrowPrecision, ...] = ("fp16", "bf16")
TYPES = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16}


def cast(preset: str, precision: NarrowPrecision, *outputs: str) -> ModelFile:
    return cast_model(build_model(random_checkpoint(preset), outputs), precision)


def tensor_types(file: ModelFile) -> dict[str, int]:
    """Return the element type of every tensor, as ONNX itself infers it."""
    model = onnx.shape_inference.infer_shapes(
        onnx.load_model_from_string(file.to_bytes()), check_type=True, strict_mode=True
    )
    values = (*model.graph.value_info, *model.graph.output)
    return {value.name: value.type.tensor_type.elem_type for value in values}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_what_computes_in_the_narrow_type_and_what_does_not(
    preset: str, precision: NarrowPrecision
) -> None:
    file = cast(preset, precision, "probabilities", "fc7")
    onnx.checker.check_model(file.to_bytes(), full_check=True)
    types = tensor_types(file)
    narrow = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(TYPES[precision]))
    for node in file.graph.graph.node:
        expected = narrow if node.output[0].endswith(f"_{precision}") else onnx.TensorProto.FLOAT
        assert types[node.output[0]] == expected, node.output[0]
        if node.op_type in ("Conv", "Gemm", "MaxPool"):
            assert expected == narrow, node.name
        if node.op_type in ("LRN", "Softmax"):
            assert expected == onnx.TensorProto.FLOAT, node.name
    for name, array in file.arrays.items():
        if name.startswith(("conv", "fc")):
            assert array.dtype == TYPES[precision], name


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        # Into the narrow type after the mean; out and in around each of two LRNs; out at the end.
        (
            ("probabilities",),
            ["images_float", "input_X", *("conv1", "norm1_X", "conv2", "norm2_X"), "logits"],
        ),
        (
            ("logits", "conv1", "norm1", "pool5"),
            [
                "images_float",
                "input_X",
                *("conv1", "norm1_X", "conv2", "norm2_X"),
                "logits",
                "pool5",
            ],
        ),
    ],
)
def test_there_is_no_stray_cast(
    precision: NarrowPrecision, outputs: tuple[str, ...], expected: list[str]
) -> None:
    file = cast("paper", precision, *outputs)
    casts = [node.output[0] for node in file.graph.graph.node if node.op_type == "Cast"]
    assert casts == [name.replace("X", precision) for name in expected]


@pytest.mark.parametrize("preset", PRESET_NAMES)
@pytest.mark.parametrize("lowered", [False, True], ids=["folded", "banded"])
def test_float16_equals_the_reference_within_its_rounding(preset: str, lowered: bool) -> None:
    checkpoint = random_checkpoint(preset)
    layers = tuple(checkpoint.spec.layer_shapes())
    file = cast(preset, "fp16", "fc7").with_outputs(layers)
    file = banded_convolution(file) if lowered else file
    session = plain_session(file.to_bytes())
    images = noise(checkpoint.spec, 2)
    expected = Reference(checkpoint).run(images)
    for name, value in zip(layers, session.run(list(layers), {"images": images}), strict=True):
        assert value.dtype == np.float32
        # 2^-11 a rounding, of weights and of activations, through eight layers.
        assert relative_error(value, expected[name].astype(np.float64)) < 3e-3, name


def test_outputs_can_be_chosen_again_and_again() -> None:
    file = cast("paper", "fp16", "probabilities")
    names = [node.name for node in file.graph.graph.node]
    assert len(set(names)) == len(names)
    again = file.with_outputs(("norm1", "fc7")).with_outputs(("probabilities",))
    assert again.graph == file.graph


def test_a_weight_beyond_float16_is_refused_and_fits_bfloat16() -> None:
    checkpoint = random_checkpoint("paper")
    large = checkpoint.arrays["conv3.weight"] * np.float32(1e6)
    file = build_model(
        Checkpoint(spec=checkpoint.spec, arrays=dict(checkpoint.arrays) | {"conv3.weight": large}),
        ("fc7",),
    )
    with pytest.raises(IncompatibleFileError, match=r"conv3\.weight reaches .*65504.*bf16"):
        cast_model(file, "fp16")
    assert cast_model(file, "bf16").precision == "bf16"


def test_a_narrow_file_is_not_cast_again() -> None:
    file = cast("paper", "fp16", "fc7")
    with pytest.raises(IncompatibleFileError, match=r'is fp16.*precision="bf16"'):
        cast_model(dataclasses.replace(file, source="m.onnx"), "bf16")


def test_bfloat16_weights_survive_the_file() -> None:
    file = cast("paper", "bf16", "fc7")
    read = onnx.load_model_from_string(file.to_bytes())
    for tensor in read.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        assert array.dtype == file.arrays[tensor.name].dtype
        np.testing.assert_array_equal(array, file.arrays[tensor.name])
