"""Rewrite LRN in a loaded model into the form that a runtime computes fastest.

The file folds the towers into the batch (Reshape, LRN, Reshape): exact, and standard ONNX. Two
other forms of the same function:

- `split_towers` (OpenVINO): each tower runs as its own chain of convolution, ReLU, LRN and pool
  up to the layer that sees both, as on the paper's two GPUs (Figure 2); 1.04 to 1.16 times the
  folded form's images per second.
- `banded_convolution` (ONNX Runtime): the sum over the window is a 1x1 convolution of the squares
  with a banded matrix, and s^-0.75 is 1 / (sqrt(s) * sqrt(sqrt(s))); 1.5 to 1.9 times
  the folded form, because ONNX Runtime's LRN is a scalar loop.

Files in int8 and fp16 are fastest in the banded form on OpenVINO, too: 1.23 and 1.11 times the
folded form, where split towers reach 0.83 and 0.90.

Measured by `tools/cpu_alternatives.py` on the whole bundled network, two CPU cores. Only an
exact match of the folded form is rewritten: a graph that computes something else must keep doing
so, or verification would pass on a wrong file.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
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

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Norm:
    """One LRN found in a graph: its nodes, and what it computes."""

    nodes: tuple[str, ...]
    input: str
    output: str
    attributes: Mapping[str, Any]
    channels: int
    towers: int


def banded_convolution(file: ModelFile) -> ModelFile:
    """Replace every LRN, folded or not, by a banded 1x1 convolution of the squares."""
    norms = {norm.nodes[0]: norm for norm in find_norms(file)}
    dropped = {name for norm in norms.values() for name in norm.nodes}
    nodes: list[onnx.NodeProto] = []
    arrays = dict(file.arrays)
    for node in file.graph.graph.node:
        if node.name in norms:
            nodes += _banded(norms[node.name], arrays)
        elif node.name not in dropped:
            nodes.append(node)
    return file.with_nodes(nodes, arrays)


def split_towers(file: ModelFile) -> ModelFile:
    """Run the layers around each folded LRN as separate towers.

    A convolution is split when only a ReLU stands between it and a folded LRN. The nodes after it
    that work tower by tower (ReLU, LRN, pooling, a convolution with one group per tower) stay
    split; before any other node the towers are concatenated.
    """
    norms = {norm.nodes[0]: norm for norm in find_norms(file) if norm.towers > 1}
    towers = _convolutions_to_split(file, norms.values())
    dropped = {name for norm in norms.values() for name in norm.nodes}
    splitter = _TowerSplitter(dict(file.arrays))
    for node in file.graph.graph.node:
        if node.name in norms:
            splitter.normalize(norms[node.name])
        elif node.name not in dropped:
            splitter.take(node, towers.get(node.name, 1))
    for output in file.graph.graph.output:
        splitter.join(output.name)
    return file.with_nodes(splitter.nodes, splitter.arrays)


class _TowerSplitter:
    """Nodes under construction, and which tensors exist as one tensor per tower."""

    def __init__(self, arrays: Arrays) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.arrays = arrays
        self._parts: dict[str, list[str]] = {}
        self._joined: set[str] = set()

    def take(self, node: onnx.NodeProto, split_into: int) -> None:
        """Append `node`, once per tower where possible, else unchanged."""
        parts = self._parts.get(node.input[0])
        group = _attribute(node, "group", 1)
        if node.op_type == "Conv" and split_into > 1 and group in (1, split_into):
            self._convolve(node, split_into, group)
        elif parts and node.op_type in ("Relu", "MaxPool"):
            outputs = self._split(node.output[0], len(parts))
            for part, output in zip(parts, outputs, strict=True):
                self._copy(node, [part, *node.input[1:]], output)
        else:
            for name in node.input:
                self.join(name)
            self.nodes.append(node)

    def normalize(self, norm: Norm) -> None:
        """Append one LRN per tower."""
        parts = self._parts.get(norm.input)
        if parts is None:
            parts = self._split(norm.input, norm.towers)
            sizes = np.full(norm.towers, norm.channels // norm.towers, np.int64)
            self.arrays[f"{norm.input}_sizes"] = sizes
            split = helper.make_node("Split", [norm.input, f"{norm.input}_sizes"], parts, axis=1)
            self.nodes.append(split)
            self._joined.add(norm.input)
        for part, output in zip(parts, self._split(norm.output, norm.towers), strict=True):
            self.nodes.append(
                helper.make_node("LRN", [part], [output], name=output, **norm.attributes)
            )

    def join(self, tensor: str) -> None:
        """Ensure that `tensor` exists whole, concatenating its towers the first time."""
        parts = self._parts.get(tensor)
        if parts and tensor not in self._joined:
            self._joined.add(tensor)
            self.nodes.append(helper.make_node("Concat", parts, [tensor], name=tensor, axis=1))

    def _convolve(self, node: onnx.NodeProto, towers: int, group: int) -> None:
        """Append one convolution per tower, each with its share of the kernels."""
        x, weight, bias = node.input
        parts = self._parts.get(x, [])
        if group == 1:
            self.join(x)
            inputs = [x] * towers
        elif len(parts) == towers:
            inputs = parts
        else:  # the input is whole, or split otherwise: each tower would need a slice of it
            self.join(x)
            self.nodes.append(node)
            return
        outputs = self._split(node.output[0], towers)
        weights = np.split(self.arrays.pop(weight), towers)
        biases = np.split(self.arrays.pop(bias), towers)
        for index, output in enumerate(outputs):
            names = [f"{weight}_{index}", f"{bias}_{index}"]
            self.arrays |= {names[0]: weights[index], names[1]: biases[index]}
            self._copy(node, [inputs[index], *names], output, group=1)

    def _split(self, tensor: str, towers: int) -> list[str]:
        self._parts[tensor] = [f"{tensor}_{index}" for index in range(towers)]
        return self._parts[tensor]

    def _copy(self, node: onnx.NodeProto, inputs: list[str], output: str, **changed: Any) -> None:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute} | changed
        self.nodes.append(
            helper.make_node(node.op_type, inputs, [output], name=output, **attributes)
        )


def find_norms(file: ModelFile) -> list[Norm]:
    """Find the LRN nodes that normalize a layer of the spec, with the Reshapes that fold towers."""
    nodes = list(file.graph.graph.node)
    producer = {output: node for node in nodes for output in node.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    found = []
    for node in nodes:
        if node.op_type != "LRN":
            continue
        before = producer.get(node.input[0])
        after = readers.get(node.output[0], [])
        if before is not None and len(after) == 1 and len(readers[before.output[0]]) == 1:
            towers = _folded_towers(file, before, after[0])
            if towers is not None:
                found.append(_norm(file, [before, node, after[0]], towers))
                continue
        if node.output[0] in file.spec.layer_shapes():
            found.append(_norm(file, [node], towers=1))
    return found


def _folded_towers(file: ModelFile, before: onnx.NodeProto, after: onnx.NodeProto) -> int | None:
    """Return how many towers two Reshapes fold into the batch, or None if they do anything else."""
    layer = file.spec.layer_shapes().get(after.output[0])
    if before.op_type != "Reshape" or after.op_type != "Reshape" or layer is None:
        return None
    channels, *map_size = layer
    inner, outer = (file.arrays[node.input[1]].tolist() for node in (before, after))
    if outer != [-1, channels, *map_size] or inner[:1] + inner[2:] != [-1, *map_size]:
        return None
    return channels // inner[1] if inner[1] > 0 and channels % inner[1] == 0 else None


def _norm(file: ModelFile, nodes: list[onnx.NodeProto], towers: int) -> Norm:
    """Describe an LRN by its nodes: one alone, or one between its two Reshapes."""
    (lrn,) = (node for node in nodes if node.op_type == "LRN")
    output = nodes[-1].output[0]
    return Norm(
        nodes=tuple(node.name for node in nodes),
        input=nodes[0].input[0],
        output=output,
        attributes={a.name: helper.get_attribute_value(a) for a in lrn.attribute},
        channels=file.spec.layer_shapes()[output][0],
        towers=towers,
    )


def _convolutions_to_split(file: ModelFile, norms: Iterable[Norm]) -> dict[str, int]:
    """Name the convolutions whose ReLU feeds a folded LRN, with the number of towers."""
    producer = {output: node for node in file.graph.graph.node for output in node.output}
    found = {}
    for norm in norms:
        node = producer.get(norm.input)
        if node is not None and node.op_type == "Relu":
            node = producer.get(node.input[0])
        # A quantized convolution's weights are the output of a node.
        if node is not None and node.op_type == "Conv" and node.input[1] in file.arrays:
            found[node.name] = norm.towers
    return found


def _banded(norm: Norm, arrays: Arrays) -> list[onnx.NodeProto]:
    """Return the nodes of x / (k + alpha/n * window sum of x^2)^beta; add their constants."""
    width = norm.channels // norm.towers
    distance = np.abs(np.subtract.outer(np.arange(width), np.arange(width)))
    size, alpha = norm.attributes["size"], norm.attributes["alpha"]
    band = np.where(distance <= size // 2, np.float32(alpha / size), np.float32(0))
    name, x = norm.output, norm.input
    arrays[f"{name}_band"] = np.tile(band, (norm.towers, 1))[:, :, np.newaxis, np.newaxis]
    arrays[f"{name}_k"] = np.full(norm.channels, norm.attributes["bias"], np.float32)

    nodes: list[onnx.NodeProto] = []

    def add(op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    squares = add("Mul", [x, x], f"{name}_squares")
    weights = [f"{name}_band", f"{name}_k"]
    sums = add("Conv", [squares, *weights], f"{name}_sum", kernel_shape=[1, 1], group=norm.towers)
    if norm.attributes["beta"] == 0.75:
        root = add("Sqrt", [sums], f"{name}_root")
        power = add("Mul", [root, add("Sqrt", [root], f"{name}_root4")], f"{name}_power")
    else:
        arrays[f"{name}_beta"] = np.array(norm.attributes["beta"], np.float32)
        power = add("Pow", [sums, f"{name}_beta"], f"{name}_power")
    add("Div", [x, power], name)
    return nodes


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    values = [helper.get_attribute_value(a) for a in node.attribute if a.name == name]
    return values[0] if values else default
