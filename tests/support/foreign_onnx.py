"""ONNX files as other programs write them, of small networks with random weights."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from alexnet_deploy.model.checkpoints import Checkpoint
from alexnet_deploy.model.spec import CONV_KERNELS, CONV_STRIDES, POOLED_CONVS, preset_spec

Array = NDArray[Any]
SIDE = 83
"""px; without padding conv1 has 19 x 19 positions, pool2 4 x 4, and pool5 2 x 2 if it is padded."""


def small_checkpoint(preset: str = "caffe", *, is_light: bool = True, **changes: Any) -> Checkpoint:
    """Return a network whose normalization matters: conv1 reaches some hundreds on raw pixels.

    All weights of fc7 are equal, and take no memory, unless `is_light` is False.
    """
    spec = dataclasses.replace(
        preset_spec(preset, num_classes=7),
        **{"input_size": SIDE, "pool_padding": (0, 0, 1), "widths": (8, 16, 12, 12, 8), **changes},
    )
    rng = np.random.default_rng(0)
    arrays: dict[str, Array] = {}
    for name, shape in spec.array_shapes().items():
        if name.endswith("bias"):
            arrays[name] = 0.1 * rng.standard_normal(shape, np.float32)
        elif name == "fc7.weight" and is_light:
            arrays[name] = np.broadcast_to(np.float32(1e-3), shape)
        else:
            deviation = np.float32((2 / np.prod(shape[1:])) ** 0.5)
            first = spec.preprocessing.std[0] if name.startswith("conv1") else 1
            arrays[name] = np.float32(first) * deviation * rng.standard_normal(shape, np.float32)
    return Checkpoint(spec=spec, arrays=arrays)


class ZooWriter:
    """Writes what the ONNX Model Zoo's files of Caffe's networks hold, under their names."""

    def __init__(self, checkpoint: Checkpoint, opset: int = 9) -> None:
        self.checkpoint, self.spec, self.opset = checkpoint, checkpoint.spec, opset
        self.nodes: list[onnx.NodeProto] = []
        self.arrays: dict[str, Array] = {}

    def add(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        if self.opset < 6 and op in ("Relu", "Dropout"):
            attributes["consumed_inputs"] = [0]
        node = helper.make_node(op, list(inputs), [output], name=f"n_{output}", **attributes)
        self.nodes.append(node)
        return output

    def array(self, name: str, array: Array) -> str:
        if array.size > 1 and not any(array.strides):
            value = numpy_helper.from_array(np.array([array.flat[0]], array.dtype))
            self.arrays[f"{name}__SHAPE"] = np.array(array.shape, np.int64)
            return self.add("ConstantOfShape", [f"{name}__SHAPE"], name, value=value)
        self.arrays[name] = array
        return name

    def weights(self, layer: str) -> tuple[str, str]:
        arrays = self.checkpoint.arrays
        weight, bias = arrays[f"{layer}.weight"], arrays[f"{layer}.bias"]
        return self.array(f"{layer}_w_0", weight), self.array(f"{layer}_b_0", bias)

    def begin(self) -> str:
        return "data_0"

    def convolution(self, x: str, number: int) -> str:
        kernel, stride = CONV_KERNELS[number - 1], CONV_STRIDES[number - 1]
        x = self.add(
            "Conv",
            [x, *self.weights(f"conv{number}")],
            f"conv{number}_1",
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=list(self.spec.conv_padding(number)),
            group=self.spec.groups[number - 1],
        )
        return self.add("Relu", [x], f"conv{number}_2")

    def normalization(self, x: str, number: int) -> str:
        lrn = self.spec.lrn
        assert lrn is not None
        numbers = {"size": lrn.size, "alpha": lrn.alpha, "beta": lrn.beta, "bias": lrn.k}
        return self.add("LRN", [x], f"norm{number}_1", **numbers)

    def pooling(self, x: str, number: int) -> str:
        beyond = self.spec.padding_of_pool(number)
        window = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, beyond, beyond]}
        return self.add("MaxPool", [x], f"pool{number}_1", **window)

    def flatten(self, x: str) -> str:
        fan_in = self.checkpoint.arrays["fc6.weight"].shape[1]
        if self.opset < 5:
            return self.add("Reshape", [x], "OC2_DUMMY_0", shape=[1, fan_in])
        target = self.array("OC2_DUMMY_1", np.array([1, fan_in], np.int64))
        return self.add("Reshape", [x, target], "OC2_DUMMY_0")

    def dense(self, x: str, layer: str) -> str:
        broadcast = {"broadcast": 1} if self.opset < 7 else {}
        return self.add("Gemm", [x, *self.weights(layer)], f"{layer}_1", transB=1, **broadcast)

    def dropout(self, x: str, layer: str) -> str:
        attributes = {} if self.opset >= 12 else {"ratio": 0.5}
        x = self.add("Dropout", [x], f"{layer}_3", **attributes)
        self.nodes[-1].output.append(f"_{layer}_mask_1")
        if self.opset < 7:
            self.nodes[-1].attribute.append(helper.make_attribute("is_test", 1))
        return x

    def model(self, image: onnx.ValueInfoProto | None = None) -> onnx.ModelProto:
        """Write all layers; `image` is the graph's input, of batch 1 if it is None."""
        x = self.begin()
        lrn = self.spec.lrn
        for number in range(1, 6):
            x = self.convolution(x, number)
            is_normalized = lrn is not None and number <= 2
            if is_normalized and lrn and lrn.position == "before_pool":
                x = self.normalization(x, number)
            if number in POOLED_CONVS:
                x = self.pooling(x, number)
            if is_normalized and lrn and lrn.position == "after_pool":
                x = self.normalization(x, number)
        x = self.flatten(x)
        for layer in ("fc6", "fc7"):
            x = self.add("Relu", [self.dense(x, layer)], f"{layer}_2")
            x = self.dropout(x, layer)
        if self.spec.has_head:
            x = self.add("Softmax", [self.dense(x, "fc8")], "prob_1")
        return self.finished(x, image)

    def finished(self, output: str, image: onnx.ValueInfoProto | None) -> onnx.ModelProto:
        side = self.spec.input_size
        image = image or helper.make_tensor_value_info(
            "data_0", TensorProto.FLOAT, [1, 3, side, side]
        )
        tensors = [numpy_helper.from_array(array, name) for name, array in self.arrays.items()]
        inputs = [
            helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            for tensor in tensors
        ]
        made = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "alexnet", [image, *inputs], [made], tensors)
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", self.opset)],
            producer_name="onnx-caffe2",
            ir_version=3,
        )


class KerasWriter(ZooWriter):
    """Writes as tf2onnx does: channels last outside, biases added, weights turned."""

    def begin(self) -> str:
        return self.add("Transpose", ["data_0"], "images", perm=[0, 3, 1, 2])

    def convolution(self, x: str, number: int) -> str:
        x = super().convolution(x, number)
        convolution, relu = self.nodes[-2:]
        bias = convolution.input.pop()
        self.arrays[bias] = self.arrays[bias].reshape(1, -1, 1, 1)
        self.nodes[-1:] = []
        added = self.add("Add", [convolution.output[0], bias], f"{bias}_added")
        return self.add("Relu", [added], relu.output[0])

    def flatten(self, x: str) -> str:
        last = self.add("Transpose", [x], "channels_last", perm=[0, 2, 3, 1])
        target = self.array("flat_shape", np.array([-1, self._fan_in()], np.int64))
        return self.add("Reshape", [last, target], "flat")

    def _fan_in(self) -> int:
        return int(self.checkpoint.arrays["fc6.weight"].shape[1])

    def dense(self, x: str, layer: str) -> str:
        arrays = self.checkpoint.arrays
        weight = arrays[f"{layer}.weight"]
        if layer == "fc6":
            channels, *sides = self.spec.layer_shapes()["pool5"]
            maps = weight.reshape(-1, channels, *sides).transpose(0, 2, 3, 1)
            weight = maps.reshape(weight.shape)
        name = self.array(f"{layer}/kernel", np.ascontiguousarray(weight.T))
        product = self.add("MatMul", [x, name], f"{layer}_product")
        bias = self.array(f"{layer}/bias", arrays[f"{layer}.bias"])
        return self.add("Add", [product, bias], f"{layer}_1")

    def image(self, batch: int | str = "N") -> onnx.ValueInfoProto:
        side = self.spec.input_size
        return helper.make_tensor_value_info("data_0", TensorProto.FLOAT, [batch, side, side, 3])


class ConvolutionalWriter(ZooWriter):
    """Writes the fully connected layers as convolutions."""

    def flatten(self, x: str) -> str:
        return x

    def dense(self, x: str, layer: str) -> str:
        weight, bias = self.weights(layer)
        side = self.spec.layer_shapes()["pool5"][1] if layer == "fc6" else 1
        matrix = self.checkpoint.arrays[f"{layer}.weight"]
        if weight in self.arrays:
            self.arrays[weight] = matrix.reshape(len(matrix), -1, side, side)
        else:
            self.arrays[f"{weight}__SHAPE"] = np.array([*matrix.shape, 1, 1], np.int64)
        return self.add("Conv", [x, weight, bias], f"{layer}_1", kernel_shape=[side, side])


class NormalizingWriter(ZooWriter):
    """Begins with operations on pixels, each with its constant."""

    operations: tuple[tuple[str, Any], ...] = ()

    def begin(self) -> str:
        x = "data_0"
        for number, (op, operand) in enumerate(self.operations):
            if op == "Cast":
                x = self.add(op, [x], f"x{number}", to=TensorProto.FLOAT)
            elif op == "Transpose":
                x = self.add(op, [x], f"x{number}", perm=[0, 3, 1, 2])
            else:
                constant = self.array(f"c{number}", np.array(operand, np.float32))
                x = self.add(op, [x, constant], f"x{number}")
        return x


def node_that_makes(model: onnx.ModelProto, output: str) -> onnx.NodeProto:
    """Return the node of that output."""
    (node,) = (node for node in model.graph.node if output in node.output)
    assert isinstance(node, onnx.NodeProto)
    return node


def written(model: onnx.ModelProto, folder: Path) -> Path:
    """Write a model into a folder and return where."""
    path = folder / "model.onnx"
    onnx.save(model, path)
    return path
