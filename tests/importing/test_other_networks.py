"""A file that is no AlexNet, or damaged, or made to harm, is refused with the reason."""

import contextlib
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from alexnet_deploy.errors import IncompatibleFileError
from alexnet_deploy.importing.onnx_files import read_foreign_network
from alexnet_deploy.importing.source import Source
from tests.support.foreign_onnx import (
    KerasWriter,
    ZooWriter,
    node_that_makes,
    small_checkpoint,
    written,
)

Change = Callable[[onnx.ModelProto], None]


def zoo() -> onnx.ModelProto:
    """Return a file with two constants more, for the changes."""
    writer = ZooWriter(small_checkpoint(), 13)
    writer.array("one", np.ones(1, np.float32))
    writer.array("amounts", np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64))
    return writer.model()


def attribute(output: str, **attributes: Any) -> Change:
    """Give the node of that output other attributes."""

    def change(model: onnx.ModelProto) -> None:
        node = node_that_makes(model, output)
        kept = [one for one in node.attribute if one.name not in attributes]
        del node.attribute[:]
        node.attribute.extend(kept)
        node.attribute.extend(helper.make_attribute(*item) for item in attributes.items())

    return change


def without(output: str) -> Change:
    """Take out the node of that output."""

    def change(model: onnx.ModelProto) -> None:
        node = node_that_makes(model, output)
        model.graph.node.remove(node)
        rename(model, output, node.input[0])

    return change


def rename(model: onnx.ModelProto, old: str, new: str) -> None:
    for node in model.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]


def after(output: str, op: str, *others: str, **attributes: Any) -> Change:
    """Put a node behind the one of that output."""

    def change(model: onnx.ModelProto) -> None:
        place = list(model.graph.node).index(node_that_makes(model, output)) + 1
        rename(model, output, "added")
        node = helper.make_node(op, [output, *others], ["added"], name="guest", **attributes)
        model.graph.node.insert(place, node)

    return change


def external(model: onnx.ModelProto) -> None:
    tensor = next(one for one in model.graph.initializer if one.name == "conv3_w_0")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../secret")
    tensor.ClearField("raw_data")


def of_domain(model: onnx.ModelProto) -> None:
    node_that_makes(model, "conv1_1").domain = "com.microsoft"


def second_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1, 2]))


def narrow_fc6(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        if tensor.name in ("fc6_w_0", "fc6_b_0"):
            array = numpy_helper.to_array(tensor)[:100]
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def integers(model: onnx.ModelProto) -> None:
    tensor = next(one for one in model.graph.initializer if one.name == "conv2_w_0")
    array = numpy_helper.to_array(tensor).astype(np.int8)
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def shorter(model: onnx.ModelProto) -> None:
    tensor = next(one for one in model.graph.initializer if one.name == "conv2_w_0")
    tensor.raw_data = tensor.raw_data[:-4]


def before_conv1(op: str, other: str) -> Change:
    """Change the images before conv1, which still reads them unchanged."""

    def change(model: onnx.ModelProto) -> None:
        node = helper.make_node(op, ["data_0", other], ["unused"], name="guest")
        model.graph.node.insert(0, node)

    return change


def cut_at_pool5(model: onnx.ModelProto) -> None:
    place = list(model.graph.node).index(node_that_makes(model, "pool5_1")) + 1
    del model.graph.node[place:]
    model.graph.output[0].name = "pool5_1"


CHANGES: dict[str, tuple[Change, str]] = {
    "stride": (
        attribute("conv1_1", strides=[2, 2]),
        r"'n_conv1_1' \(Conv\) after images, .* has strides of \[2, 2\], expected \[4, 4\]",
    ),
    "kernel": (attribute("conv2_1", kernel_shape=[7, 7]), r"has a window of \[7, 7\]"),
    "dilation": (attribute("conv3_1", dilations=[2, 2]), r"has dilations of \[2, 2\]"),
    "padding": (attribute("conv4_1", pads=[0, 0, 0, 0]), "expected 1 on each side"),
    "groups": (attribute("conv4_1", group=4), "in 4 groups, for 12 channels"),
    "no groups": (attribute("conv4_1", group=0), "in 0 groups"),
    "pool": (attribute("pool1_1", kernel_shape=[2, 2]), r"has a window of \[2, 2\]"),
    "pool's begin": (attribute("pool1_1", pads=[1, 1, 1, 1]), "above and on the left"),
    "batch norm": (
        after("conv1_1", "BatchNormalization", "g", "b", "m", "v"),
        "'guest' .BatchNormalization.* after conv1.* reads 'g', which nothing before it makes",
    ),
    "sigmoid": (
        after("fc6_1", "Sigmoid"),
        r"'guest' \(Sigmoid\) after fc6, where AlexNet has relu6, is none of its layers",
    ),
    "residual": (
        after("conv4_1", "Add", "conv3_2"),
        r"\(Add\) after conv4, .* combines two tensors of the network, as residual networks do",
    ),
    "second branch": (
        lambda model: rename(model, "conv4_2", "conv3_2"),
        r"\(Conv\) after relu4.* begins a second branch",
    ),
    "unused normalization": (
        before_conv1("Sub", "conv1_b_0"),
        r"\(Sub\) after images, .* computes with float32 \[8\] and \[1, 3, 83, 83\]",
    ),
    "second images": (
        before_conv1("Mul", "one"),
        r"\(Conv\) after images, .* begins a second branch",
    ),
    "channels last": (
        after("conv3_1", "Transpose", perm=[0, 2, 3, 1]),
        r"\(Relu\) after conv3, where AlexNet has relu3, reads \[1, 4, 4, 12\]",
    ),
    "padded relu": (after("conv3_1", "Pad", "amounts"), "reads maps with zeros around them"),
    "another layer": (
        after("conv5_2", "Conv", "conv5_w_0", "conv5_b_0", pads=[1, 1, 1, 1], group=2),
        r"\(Conv\) after relu5, where AlexNet has pool5",
    ),
    "no relu": (without("conv3_2"), r"'n_conv4_1' \(Conv\) after conv3, where AlexNet has relu3"),
    "no pool": (without("pool2_1"), r"'n_conv3_1' \(Conv\) after norm2, where AlexNet has pool2"),
    "one norm": (without("norm2_1"), "its normalizations are .*, expected the same"),
    "two norms": (attribute("norm2_1", alpha=2e-4), "its normalizations are .*, expected the same"),
    "even norm": (attribute("norm1_1", size=4), "size is 4, expected an odd number"),
    "no conv5": (
        lambda model: (without("conv5_2")(model), without("conv5_1")(model))[0],
        r"\(MaxPool\) after relu4, where AlexNet has conv5, is none of its layers",
    ),
    "alpha": (attribute("fc6_1", alpha=2.0), "has alpha, beta and transA"),
    "turned": (attribute("fc6_1", transB=0), r"has a weight of \[32, 4096\]"),
    "width": (narrow_fc6, "is fc6 with 100 outputs, expected 4096"),
    "integers": (integers, "has int8 as conv2.weight"),
    "too short": (shorter, "array 'conv2_w_0' is damaged"),
    "type": (attribute("conv2_1", group=2.0), "its group is of another type"),
    "average": (after("pool5_1", "AveragePool", kernel_shape=[2, 2]), "averages windows of"),
    "classes and more": (
        after("prob_1", "ArgMax"),
        r"\(ArgMax\) after probabilities, where AlexNet has nothing more",
    ),
    "training": (after("fc6_1", "Dropout", "", "yes"), "reads 'yes'"),
    "quantized": (after("fc6_1", "QuantizeLinear", "s"), "is quantized; .* Give the float file"),
    "external": (external, "'conv3_w_0' are in another file beside it, .*; put all into one file"),
    "domain": (of_domain, "'n_conv1_1' is 'Conv' of 'com.microsoft', not of ONNX"),
    "functions": (
        lambda model: model.functions.append(
            helper.make_function("", "Relu", ["x"], ["y"], [], [helper.make_opsetid("", 9)])
        ),
        r"functions of its own, .* expand them with onnx\.inliner",
    ),
    "two inputs": (second_input, "its inputs are 'data_0', 'mask'; an AlexNet has one"),
    "an end": (cut_at_pool5, "its network ends after pool5; an AlexNet goes on with fc6"),
    "cut shape": (
        lambda model: rename(model, "OC2_DUMMY_1", "fc6_w_0__SHAPE"),
        "reads 'fc6_w_0__SHAPE', which nothing",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_not_alexnets_is_named(name: str, tmp_path: Path) -> None:
    change, message = CHANGES[name]
    model = zoo()
    change(model)
    path = written(model, tmp_path)
    with pytest.raises(IncompatibleFileError, match=message) as caught:
        read_foreign_network(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        (TensorProto.FLOAT, [1, 1, 83, 83]),
        (TensorProto.FLOAT, [1, 3, 83, 99]),
        (TensorProto.FLOAT, [3, 83, 83]),
        (TensorProto.INT64, [1, 3, 83, 83]),
    ],
)
def test_an_input_that_is_no_image_is_refused(kind: int, shape: list[int], tmp_path: Path) -> None:
    image = helper.make_tensor_value_info("data_0", kind, shape)
    model = ZooWriter(small_checkpoint()).model(image)
    with pytest.raises(IncompatibleFileError, match="its input 'data_0' "):
        read_foreign_network(written(model, tmp_path))


def test_a_small_file_fills_no_memory(tmp_path: Path) -> None:
    model = zoo()
    shape = next(one for one in model.graph.initializer if one.name == "fc7_w_0__SHAPE")
    shape.CopyFrom(numpy_helper.from_array(np.array([2**40, 4096]), shape.name))
    with pytest.raises(IncompatibleFileError, match="its constants take more than"):
        read_foreign_network(written(model, tmp_path))


def test_constants_that_are_copied_over_and_over_fill_no_memory(tmp_path: Path) -> None:
    model = zoo()
    many = numpy_helper.from_array(np.zeros((1024, 1024), np.float32), "d0")
    shape = numpy_helper.from_array(np.array(many.dims), "square")
    model.graph.initializer.extend([many, shape])
    turned = [
        node
        for n in range(1000)
        for node in (
            helper.make_node("Transpose", [f"d{n}"], [f"t{n}"], perm=[1, 0]),
            helper.make_node("Reshape", [f"t{n}", "square"], [f"d{n + 1}"]),
        )
    ]
    nodes = list(model.graph.node)
    for bomb, message in (
        (turned, "its constants take more than"),
        ([helper.make_node("Concat", ["amounts"] * 10**5, ["d1"], axis=0)], "computes with"),
        ([helper.make_node("Cast", ["d0"], ["d1"], to=TensorProto.STRING)], "makes texts"),
    ):
        del model.graph.node[:]
        model.graph.node.extend([*bomb, *nodes])
        with pytest.raises(IncompatibleFileError, match=message):
            read_foreign_network(written(model, tmp_path))


def test_a_batch_that_no_machine_runs_is_refused(tmp_path: Path) -> None:
    image = helper.make_tensor_value_info("data_0", TensorProto.FLOAT, [10**7, 3, 83, 83])
    model = ZooWriter(small_checkpoint()).model(image)
    with pytest.raises(IncompatibleFileError, match="takes 10,000,000 images of 83 px at once"):
        read_foreign_network(written(model, tmp_path))


def test_a_graph_without_end_is_refused(tmp_path: Path) -> None:
    model = zoo()
    doubled = [helper.make_node("Concat", ["OC2_DUMMY_1"] * 2, ["d0"], axis=0)]
    doubled += [
        helper.make_node("Concat", [f"d{n}", f"d{n}"], [f"d{n + 1}"], axis=0) for n in range(40)
    ]
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*doubled, *nodes])
    with pytest.raises(IncompatibleFileError, match="computes with weights"):
        read_foreign_network(written(model, tmp_path))
    del model.graph.node[:]
    names = ["data_0", *(f"same{n}" for n in range(10_001))]
    model.graph.node.extend(
        helper.make_node("Identity", [old], [new]) for old, new in itertools.pairwise(names)
    )
    with pytest.raises(IncompatibleFileError, match="more than 10,000 nodes"):
        read_foreign_network(written(model, tmp_path))


def small_file(model: onnx.ModelProto) -> bytes:
    """Return a file whose numbers are few beside its graph: fc6 and fc8 hold one number, too."""
    for node in model.graph.node:
        node.ClearField("doc_string")
    for tensor in list(model.graph.initializer):
        array = numpy_helper.to_array(tensor)
        if array.size > 100:
            value = numpy_helper.from_array(np.array([0.1], np.float32))
            shape = numpy_helper.from_array(np.array(array.shape), f"{tensor.name}__SHAPE")
            model.graph.initializer.remove(tensor)
            model.graph.initializer.append(shape)
            made = helper.make_node("ConstantOfShape", [shape.name], [tensor.name], value=value)
            model.graph.node.insert(0, made)
    del model.graph.input[1:]
    content: bytes = model.SerializeToString()
    return content


CONTENTS = [
    small_file(zoo()),
    small_file(KerasWriter(small_checkpoint(), 13).model(KerasWriter(small_checkpoint()).image())),
]


@given(content=st.sampled_from(CONTENTS), data=st.data())
@settings(max_examples=60)
def test_a_damaged_file_is_refused_or_read(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, data: st.DataObject
) -> None:
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(0, 3))):
        place = data.draw(st.integers(0, len(content) - 1))
        damaged[place] = data.draw(st.integers(0, 255))
    end = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    path = tmp_path_factory.getbasetemp() / "damaged.onnx"
    path.write_bytes(damaged[:end])
    with contextlib.suppress(IncompatibleFileError):
        assert isinstance(read_foreign_network(path).source, Source)
