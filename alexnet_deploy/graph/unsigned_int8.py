"""Rewrite an int8 graph so that a CPU adds its 8-bit products exactly, and fast: the same function.

The file's activations are signed, as TensorRT requires. x86 multiplies unsigned activations by
signed weights, so OpenVINO adds 128 to each and takes the weights' sums off again. Without VNNI
it also adds pairs of products in 16 bits, where 255 * 127 * 2 saturates: of the bundled network
the FC7 vectors of photographs then have a mean cosine of .9982 with the reference, not .9999.

Behind a ReLU the file uses 0 to 127 only. As unsigned numbers with zero point 0 they need no such
correction, and 127 * 127 * 2 fits 16 bits. Max-pooling commutes with rounding, so it is done on
bytes, and rounding fuses into what comes before it. For a signed input, where sums are narrow, the
layer reads its positive and its negative part, the latter with the weights' negatives.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.errors import MissingPackageError
from alexnet_deploy.graph.model_file import ModelFile

try:
    import onnx
    from onnx import helper
except ImportError as error:
    raise MissingPackageError("onnx", "cpu", "reading a model file") from error

_ZERO = "uint8_zero"
_KEEP_SIGN = ("Flatten", "MaxPool", "LRN", "Reshape")


def unsigned_activations(file: ModelFile, *, narrow_sums: bool) -> ModelFile:
    """Return an int8 file whose layers read unsigned activations wherever none is negative.

    Args:
        file: from `graph.quantization.quantize_model`, not lowered.
        narrow_sums: whether the processor adds pairs of products in 16 bits. Then convolutions
            without groups read signed activations as two unsigned parts: twice the products.
    """
    rewriter = _Rewriter(file, narrow_sums)
    nodes = list(file.graph.graph.node)
    while nodes:
        rewriter.take(nodes)
    return file.with_nodes(rewriter.nodes, rewriter.arrays)


class _Rewriter:
    """Nodes and arrays under construction."""

    def __init__(self, file: ModelFile, narrow_sums: bool) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.arrays: dict[str, NDArray[Any]] = {**file.arrays, _ZERO: np.array(0, np.uint8)}
        self._narrow_sums = narrow_sums
        nodes = file.graph.graph.node
        self._producer = {output: node for node in nodes for output in node.output}
        self._reader = {node.input[0]: node for node in nodes if node.op_type in ("Conv", "Gemm")}

    def take(self, nodes: list[onnx.NodeProto]) -> None:
        """Append the first of `nodes`, rewritten with its DequantizeLinear if it rounds."""
        node = nodes.pop(0)
        if node.op_type != "QuantizeLinear":
            self.nodes.append(node)
            return
        rounded = nodes[0].output[0]
        if self._is_unsigned(node.input[0]):
            self._round_before_pooling(node, rounded)
        elif self._narrow_sums and self._can_split(self._reader[rounded]):
            self._split_by_sign(node, rounded)
        else:
            self.nodes.append(node)
            return
        del nodes[0]

    def _is_unsigned(self, tensor: str) -> bool:
        node = self._producer.get(tensor)
        while node is not None and node.op_type in _KEEP_SIGN:
            node = self._producer.get(node.input[0])
        return node is not None and node.op_type == "Relu"

    def _can_split(self, layer: onnx.NodeProto) -> bool:
        grouped = any(a.i > 1 for a in layer.attribute if a.name == "group")
        # The negative of -128 is no int8; a file of ours has none.
        return layer.op_type == "Conv" and not grouped and self._weight(layer)[1].min() > -128

    def _weight(self, layer: onnx.NodeProto) -> tuple[str, NDArray[Any]]:
        name = self._producer[layer.input[1]].input[0]
        return name, self.arrays[name]

    def _round_before_pooling(self, quantize: onnx.NodeProto, rounded: str) -> None:
        """Append the Q/DQ pair of an unsigned tensor before the pooling that makes it."""
        after: list[onnx.NodeProto] = []
        x = quantize.input[0]
        while self._producer[x].op_type in ("Flatten", "MaxPool"):
            after.insert(0, self._producer[x])
            x = self._producer[x].input[0]
        outputs = [f"{name}_dequantized" for name in (x, *(node.output[0] for node in after))]
        outputs[-1] = rounded
        self._round(self._clip(x, quantize), quantize, outputs[0])
        for node, source, output in zip(after, outputs, outputs[1:], strict=False):
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.name, copy.input[0], copy.output[0] = output, source, output
            self.nodes.append(copy)

    def _split_by_sign(self, quantize: onnx.NodeProto, rounded: str) -> None:
        """Append the Q/DQ pair of x and -x, each 0 where negative; extend the weights to match."""
        x = self._clip(quantize.input[0], quantize)
        negative = self._add("Neg", [x], f"{x}_negative")
        both = self._add("Concat", [x, negative], f"{x}_by_sign", axis=1)
        self._round(both, quantize, rounded)
        name, weight = self._weight(self._reader[rounded])
        self.arrays[name] = np.concatenate([weight, -weight], axis=1)

    def _clip(self, x: str, quantize: onnx.NodeProto) -> str:
        """Append what clips as int8 does; uint8 reaches further, except below 0."""
        scale = self.arrays[quantize.input[1]]
        bounds = [f"{x}_smallest", f"{x}_largest"]
        for name, bound in zip(bounds, (-128, 127), strict=True):
            self.arrays[name] = np.array(scale * np.float32(bound), np.float32)
        return self._add("Clip", [x, *bounds], f"{x}_clipped")

    def _round(self, x: str, quantize: onnx.NodeProto, output: str) -> None:
        scale, narrow = quantize.input[1], quantize.output[0]
        self._add("QuantizeLinear", [x, scale, _ZERO], narrow)
        self._add("DequantizeLinear", [narrow, scale], output)

    def _add(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output
