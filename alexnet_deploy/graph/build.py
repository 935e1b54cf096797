"""Checkpoint to ONNX: the network as about 25 standard nodes, built from the weights.

Input `images`: uint8 [N, H, W, 3], RGB, resized and cropped. Outputs: any layers of
`ModelSpec.layer_shapes`, float32, by default `probabilities` and `fc7`. N is dynamic. Every layer
is a tensor under its own name, so that any of them can be made an output later.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy import __version__
from alexnet_deploy.errors import ArgumentError, MissingPackageError
from alexnet_deploy.graph.interface import INPUT
from alexnet_deploy.graph.model_file import ModelFile
from alexnet_deploy.model.checkpoints import Checkpoint, widened
from alexnet_deploy.model.spec import (
    CONV_STRIDES,
    NORMALIZED_CONVS,
    POOL_SIZE,
    POOL_STRIDE,
    POOLED_CONVS,
    LrnSpec,
)

try:
    import onnx
    from onnx import TensorProto, helper
except ImportError as error:
    raise MissingPackageError("onnx", "cpu", "exporting a checkpoint") from error

OPSET = 20
OPSETS: Mapping[int, int] = MappingProxyType({17: 8, 18: 8, 19: 9, 20: 10, 21: 10, 22: 10})
"""The versions of ONNX's operators that a file may have, each with that of the file format."""

NETWORK_INPUT = "input"
"""The tensor that conv1 reads: pixels minus the mean, divided by the standard deviation."""


def build_model(checkpoint: Checkpoint, outputs: tuple[str, ...], opset: int = OPSET) -> ModelFile:
    """Return the checkpoint as an fp32 ONNX model.

    Args:
        checkpoint: weights in any stored precision; factored layers stay factored.
        outputs: layers to expose as graph outputs, in this order.
        opset: one of `OPSETS`.

    Raises:
        ArgumentError: another opset.
    """
    if opset not in OPSETS:
        raise ArgumentError("opset", opset, f"{min(OPSETS)} to {max(OPSETS)}")
    spec = checkpoint.spec
    graph = _GraphBuilder(checkpoint, opset)
    x = graph.normalized_input()
    for number in range(1, 6):
        x = graph.convolution(x, number)
        lrn = spec.lrn if number in NORMALIZED_CONVS else None
        if lrn is not None and lrn.position == "before_pool":
            x = graph.local_response_norm(x, number, lrn)
        if number in POOLED_CONVS:
            x = graph.max_pool(x, number)
        if lrn is not None and lrn.position == "after_pool":
            x = graph.local_response_norm(x, number, lrn)
    x = graph.add("Flatten", [x], "flat")
    x = graph.add("Relu", [graph.fully_connected(x, "fc6", "fc6_pre")], "fc6")
    x = graph.add("Relu", [graph.fully_connected(x, "fc7", "fc7_pre")], "fc7")
    if spec.has_head:
        logits = graph.fully_connected(x, "fc8", "logits")
        graph.add("Softmax", [logits], "probabilities", axis=-1)
    file = ModelFile(graph=graph.finish(), arrays=graph.arrays, spec=spec, origin=checkpoint)
    return file.with_outputs(outputs)


class _GraphBuilder:
    """Nodes and initializers under construction; one method for each kind of layer."""

    def __init__(self, checkpoint: Checkpoint, opset: int) -> None:
        self._checkpoint = checkpoint
        self._spec = checkpoint.spec
        self.arrays: dict[str, NDArray[Any]] = {}
        self._model = onnx.ModelProto(
            ir_version=OPSETS[opset],
            producer_name="alexnet-deploy",
            producer_version=__version__,
            opset_import=[helper.make_opsetid("", opset)],
        )

    def add(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Append one node named after its output, and return that."""
        node = helper.make_node(op, inputs, [output], name=output, **attributes)
        self._model.graph.node.append(node)
        return output

    def constant(self, name: str, array: NDArray[Any]) -> str:
        self.arrays[name] = array
        return name

    def array(self, name: str) -> str:
        """Add one of the checkpoint's arrays in float32, under its own name."""
        return self.constant(name, widened(self._checkpoint.arrays[name]))

    def normalized_input(self) -> str:
        # Cast first: TensorRT's parser takes no Transpose of bytes.
        x = self.add("Cast", [INPUT], "images_float", to=TensorProto.FLOAT)
        x = self.add("Transpose", [x], "pixels", perm=[0, 3, 1, 2])
        mean = self.constant("mean", self._checkpoint.mean()[np.newaxis].astype(np.float32))
        std = np.array(self._spec.preprocessing.std, np.float32).reshape(1, 3, 1, 1)
        if (std == 1).all():
            return self.add("Sub", [x, mean], NETWORK_INPUT)
        x = self.add("Sub", [x, mean], "centred")
        return self.add("Div", [x, self.constant("std", std)], NETWORK_INPUT)

    def convolution(self, x: str, number: int) -> str:
        weight, bias = f"conv{number}.weight", f"conv{number}.bias"
        kernel = self._checkpoint.arrays[weight].shape[-1]
        stride = CONV_STRIDES[number - 1]
        x = self.add(
            "Conv",
            [x, self.array(weight), self.array(bias)],
            f"conv{number}_pre",
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=list(self._spec.conv_padding(number)),
            group=self._spec.groups[number - 1],
        )
        return self.add("Relu", [x], f"conv{number}")

    def local_response_norm(self, x: str, number: int, lrn: LrnSpec) -> str:
        """Fold the towers into the batch, so that ONNX's LRN stops at their edges."""
        name = f"norm{number}"
        constants = {"size": lrn.size, "alpha": lrn.alpha, "beta": lrn.beta, "bias": lrn.k}
        if lrn.towers == 1:
            return self.add("LRN", [x], name, **constants)
        channels, height, width = self._spec.layer_shapes()[name]
        tower = [-1, channels // lrn.towers, height, width]
        x = self._reshape(x, f"{name}_towers", tower)
        x = self.add("LRN", [x], f"{name}_lrn", **constants)
        return self._reshape(x, name, [-1, channels, height, width])

    def _reshape(self, x: str, output: str, shape: list[int]) -> str:
        return self.add(
            "Reshape", [x, self.constant(f"{output}_shape", np.array(shape, np.int64))], output
        )

    def max_pool(self, x: str, number: int) -> str:
        attributes = {"kernel_shape": [POOL_SIZE] * 2, "strides": [POOL_STRIDE] * 2}
        padding = self._spec.padding_of_pool(number)
        if padding:
            attributes["pads"] = [0, 0, padding, padding]
        return self.add("MaxPool", [x], f"pool{number}", **attributes)

    def fully_connected(self, x: str, layer: str, output: str) -> str:
        weight = f"{layer}.weight"
        if weight not in self._checkpoint.arrays:
            right = self.array(f"{weight}.right")
            x = self.add("Gemm", [x, right], f"{layer}_rank", transB=1)
            weight = f"{weight}.left"
        bias = self.array(f"{layer}.bias")
        return self.add("Gemm", [x, self.array(weight), bias], output, transB=1)

    def finish(self) -> onnx.ModelProto:
        """Return the graph, without outputs yet."""
        size = self._spec.input_size
        images = helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["N", size, size, 3])
        self._model.graph.name = f"alexnet_{self._spec.preset}"
        self._model.graph.input.append(images)
        return self._model
