"""Follow a foreign graph from its image along its layers, node by node.

Every node is computed with stand-ins: constants as arrays, the network's tensors as their shape
and what led to them. A node that is no layer of AlexNet in its place ends the walk.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

from alexnet_deploy.errors import IncompatibleFileError
from alexnet_deploy.files.path_text import printable
from alexnet_deploy.importing.onnx_constants import (
    RESHAPING,
    Folding,
    Node,
    arrays_of,
    reshaped,
    text_of,
)
from alexnet_deploy.importing.onnx_flow import Flow, Normalization, Padding
from alexnet_deploy.importing.onnx_layers import (
    check_average,
    connected,
    connected_as_maps,
    convolved,
    following,
    pooled,
    vector,
)
from alexnet_deploy.importing.onnx_lrn import Divisor, lrn_of, pad_amounts
from alexnet_deploy.importing.source import Array
from alexnet_deploy.model.spec import LrnPosition, LrnSpec

_MAX_NODES = 10_000
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)
_ARITHMETIC = ("Add", "Sub", "Mul", "Div", "Pow")
_LARGEST = float(np.finfo(np.float32).max)
_NO_LAYER = "is none of its layers"


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """Numbers of the file, and the name that it stores them under."""

    array: Array
    name: str


Value = Constant | Flow | Divisor


class Walk:
    """What has been read of a network so far.

    Attributes:
        done: names of the layers, "images" first; see `onnx_layers`.
        values: of the graph's tensors by name.
        arrays: weights and biases in the package's layout, by the file's names.
        places: the paper's names to the file's.
        conv1_padding: px: top, left, bottom, right.
        groups: of conv1 .. conv5.
        pool_padding: see `ModelSpec`.
        lrns: the normalizations.
        normalization: of the pixels.
        notes: for people.
    """

    def __init__(self, path: Path, opset: int) -> None:
        self.done = ["images"]
        self.values: dict[str, Value] = {}
        self.arrays: dict[str, Array] = {}
        self.places: dict[str, str] = {}
        self.conv1_padding: Padding = (0, 0, 0, 0)
        self.groups: list[int] = []
        self.pool_padding: list[int] = []
        self.lrns: list[LrnSpec] = []
        self.normalization = Normalization()
        self.notes: list[str] = []
        self._path, self._opset = path, opset
        self._folding = Folding()
        self._num_nodes = 0
        self._head: Flow | None = None

    def begin(self, name: str, images: Flow, constants: Mapping[str, Array]) -> None:
        """Give the graph its input and its initializers."""
        self._head = self.values[name] = images
        self.values |= {key: Constant(array, key) for key, array in constants.items()}

    def follow(self, nodes: Iterable[onnx.NodeProto]) -> None:
        """Compute nodes in their order.

        Raises:
            IncompatibleFileError: naming the node that is none of AlexNet's.
        """
        for proto in nodes:
            node = Node(proto)
            try:
                self._num_nodes += 1
                if self._num_nodes > _MAX_NODES:
                    raise ValueError(f"is one of more than {_MAX_NODES:,} nodes")
                results = self._results(node)
            except (ValueError, LookupError, TypeError, ArithmeticError) as error:
                reason = error if isinstance(error, ValueError) else f"is damaged ({error})"
                raise IncompatibleFileError(
                    f"{self._path}: node {node.name[:100]!r} ({printable(node.op[:50])}) after "
                    f"{self.done[-1]}, where AlexNet has {self._expected()}, {reason}"
                ) from error
            self.values |= dict(zip(node.outputs, results, strict=False))

    def end(self) -> None:
        """Give a last layer without a bias one."""
        self._complete_bias()

    def _results(self, node: Node) -> Sequence[Value]:
        values = [self._value(name) for name in node.inputs]
        if node.op == "If":
            return self._branch(node, values[0])
        if node.op == "Shape" and values[0] is not None:
            shape = _shape(values[0])
            cut = slice(node.integer("start", 0), node.integer("end", len(shape)))
            return [Constant(np.array(shape, np.int64)[cut], node.name)]
        if any(isinstance(value, Flow | Divisor) for value in values):
            return [self._computed(node, values)]
        arrays = [value.array if isinstance(value, Constant) else None for value in values]
        array = self._folding.compute(node, arrays)
        first = values[0] if values else None
        if isinstance(first, Constant) and node.op != "ConstantOfShape":
            # A weight that was turned or widened keeps the name that it is stored under.
            return [Constant(array, first.name)]
        return [Constant(array, node.outputs[0])]

    def _value(self, name: str) -> Value | None:
        if name and name not in self.values:
            raise ValueError(f"reads {name[:100]!r}, which nothing before it makes")
        return self.values[name] if name else None

    def _branch(self, node: Node, condition: Value | None) -> Sequence[Value]:
        """Follow the branch of an If that is taken, where the file itself says which."""
        if not isinstance(condition, Constant) or condition.array.size != 1:
            raise ValueError("depends on the picture")
        graph = node.branch("then_branch" if condition.array.item() else "else_branch")
        if any(inner.op_type == "If" for inner in graph.node):
            raise ValueError("has branches in its branches")
        for name, array in arrays_of(graph.initializer).items():
            self.values[name] = Constant(array, name)
        self.follow(graph.node)
        return [self.values[text_of(output.name)] for output in graph.output]

    def _computed(self, node: Node, values: Sequence[Value | None]) -> Value:
        """Compute a node that reads a tensor of the network."""
        first = values[0]
        others = [value.array if isinstance(value, Constant) else None for value in values[1:]]
        if node.op in _ARITHMETIC:
            return self._arithmetic(node, values)
        if first is None or isinstance(first, Constant):
            raise ValueError("does not begin with the tensor that it changes")
        if any(isinstance(value, Flow | Divisor) for value in values[1:]):
            raise ValueError("reads two tensors of the network")
        if node.op in RESHAPING:
            shape = reshaped(node, first.shape, others)
            return self._moved(first, first.reshaped(shape))
        if node.op == "Identity" or self._is_cast(node):
            return first
        if node.op == "Pad":
            return self._moved(first, first.padded(pad_amounts(node, len(first.shape), others)))
        if isinstance(first, Divisor):
            if node.op == "AveragePool":
                return first.averaged(node)
            raise ValueError("computes with squares what no normalization does")
        return self._layer(node, first, values)

    def _layer(self, node: Node, flow: Flow, values: Sequence[Value | None]) -> Value:
        """Compute a layer of the network, or a node that leaves its tensor as it is."""
        match node.op:
            case "Dropout":
                training = values[2] if len(values) > 2 else None
                if isinstance(training, Constant) and training.array.any():
                    raise ValueError("drops activations at random; export the network for use")
                return flow
            case "Transpose":
                return self._moved(flow, flow.transposed(node.ints("perm")))
            case "AveragePool" | "GlobalAveragePool":
                check_average(node, flow)
                return flow
            case "Conv":
                return self._convolution(node, flow, _weights(values), _bias(values))
            case "Gemm" | "MatMul":
                return self._matrix(node, flow, _weights(values), _bias(values))
            case "Relu":
                return self._next("Relu", flow, flow.size)
            case "Clip":
                return self._clip(node, flow, values[1:])
        return self._layer_without_weights(node, flow)

    def _layer_without_weights(self, node: Node, flow: Flow) -> Flow:
        if node.op == "LRN":
            return self._normalized(flow, lrn_of(node, flow.towers, self._lrn_position()))
        if node.op == "MaxPool":
            self._expect("MaxPool", flow)
            padding, size = pooled(node, flow)
            self.pool_padding.append(padding)
            return self._next("MaxPool", flow, size)
        if node.op == "Softmax":
            axis = node.integer("axis", 1 if self._opset < 13 else -1)
            if flow.size[2:] not in ((), (1, 1)) or axis not in (1, 1 - len(flow.size)):
                raise ValueError("is not over the classes")
            return self._next("Softmax", flow, flow.size)
        raise ValueError(_NO_LAYER)

    def _lrn_position(self) -> LrnPosition:
        return "after_pool" if self.done[-1].startswith("pool") else "before_pool"

    def _expected(self) -> str:
        return " or ".join(following(self.done).values()) or "nothing more"

    def _is_cast(self, node: Node) -> bool:
        if node.op != "Cast":
            return False
        if node.integer("to", 0) not in _FLOATS:
            raise ValueError("makes integers of activations")
        return True

    def _moved(self, before: Flow | Divisor, after: Flow | Divisor) -> Value:
        """Let the chain of layers go on with another view of its last tensor."""
        if isinstance(before, Flow) and isinstance(after, Flow):
            self._check_head(before)
            self._head = after
        return after

    def _check_head(self, flow: Flow) -> None:
        if flow is not self._head:
            raise ValueError("begins a second branch; AlexNet is one chain of layers")

    def _expect(self, op: str, flow: Flow) -> str:
        """Return the layer that `op` computes here."""
        layer = following(self.done).get(op)
        if layer is None:
            raise ValueError(_NO_LAYER)
        self._check_head(flow)
        if flow.channels_last or (flow.towers > 1 and op != "LRN"):
            raise ValueError(f"reads {list(flow.shape)}, expected maps (N, C, H, W)")
        return layer

    def _next(self, op: str, flow: Flow, size: tuple[int, ...]) -> Flow:
        """Return the output of a layer, which is now the last."""
        layer = self._expect(op, flow)
        self._complete_bias()
        if flow.padding != (0, 0, 0, 0) and op not in ("Conv", "MaxPool"):
            raise ValueError("reads maps with zeros around them")
        self.done.append(layer)
        self._head = Flow(size=size, num_done=len(self.done) - 1, towers=flow.towers)
        return self._head

    def _convolution(self, node: Node, flow: Flow, weight: Constant, bias: Value | None) -> Flow:
        if "Gemm" in following(self.done):
            layer = self._expect("Gemm", flow)
            dense = connected_as_maps(layer, node, flow, weight.array)
            result = self._next("Gemm", flow, (flow.size[0], len(dense), 1, 1))
            self._keep(layer, weight, dense, bias)
            return result
        layer = self._expect("Conv", flow)
        padding, groups, size = convolved(node, flow, weight.array, int(layer[-1]))
        if layer == "conv1":
            self.conv1_padding = padding
        self.groups.append(groups)
        result = self._next("Conv", flow, size)
        self._keep(layer, weight, weight.array, bias)
        return result

    def _matrix(self, node: Node, flow: Flow, weight: Constant, bias: Value | None) -> Flow:
        layer, is_gemm = self._expect("Gemm", flow), node.op == "Gemm"
        factors = (node.number("alpha", 1), node.number("beta", 1), node.integer("transA", 0))
        if is_gemm and factors != (1, 1, 0):
            raise ValueError(f"has alpha, beta and transA of {list(factors)}, expected 1, 1 and 0")
        is_turned = is_gemm and bool(node.integer("transB", 0))
        dense = connected(layer, flow, weight.array if is_turned else weight.array.T)
        result = self._next("Gemm", flow, (flow.size[0], len(dense)))
        self._keep(layer, weight, dense, bias if is_gemm else None)
        return result

    def _keep(self, layer: str, weight: Constant, array: Array, bias: Value | None) -> None:
        self._store(f"{layer}.weight", weight.name, array)
        if isinstance(bias, Constant):
            given = bias.array
            self._store(f"{layer}.bias", bias.name, vector(given, len(array), max(2, given.ndim)))

    def _store(self, place: str, name: str, array: Array) -> None:
        if array.dtype.name == "bfloat16":  # which NumPy lacks
            array = array.astype(np.float32)
        if array.dtype.kind != "f":
            raise ValueError(f"has {array.dtype} as {place}, expected floating-point numbers")
        if name in self.arrays and not np.array_equal(self.arrays[name], array):
            name = f"{name} ({place})"  # one array for two layers, in two layouts
        self.arrays[name] = np.ascontiguousarray(array)
        self.places[place] = name

    def _complete_bias(self) -> None:
        """Give the last layer zeros for a bias, if it has none."""
        layer = self.done[-1]
        if layer.startswith(("conv", "fc")) and f"{layer}.bias" not in self.places:
            weight = self.arrays[self.places[f"{layer}.weight"]]
            self._store(f"{layer}.bias", f"{layer}.bias", np.zeros(len(weight), weight.dtype))
            self.notes.append(f"{layer} has no bias; zeros stand for it")

    def _clip(self, node: Node, flow: Flow, bounds: Sequence[Value | None]) -> Flow:
        """A Clip is a ReLU, or leaves all as it is; anything between is another network's."""
        low, high = node.number("min", -_LARGEST), node.number("max", _LARGEST)
        given = [value.array.item() if isinstance(value, Constant) else None for value in bounds]
        low = given[0] if given and given[0] is not None else low
        high = given[1] if len(given) > 1 and given[1] is not None else high
        if high < _LARGEST or low not in (0, -_LARGEST, -np.inf):
            raise ValueError(f"cuts off at {low} and {high}")
        return self._next("Relu", flow, flow.size) if low == 0 else flow

    def _normalized(self, flow: Flow, lrn: LrnSpec) -> Flow:
        self._expect("LRN", flow)
        self.lrns.append(lrn)
        return self._next("LRN", flow, flow.size)

    def _arithmetic(self, node: Node, values: Sequence[Value | None]) -> Value:
        first, second = values
        if node.op == "Mul" and first is second and isinstance(first, Flow):
            return Divisor.squares(first)
        for value, other in ((first, second), (second, first)):
            if not isinstance(value, Constant):
                continue
            if isinstance(other, Divisor) and (value is second or node.op in ("Add", "Mul")):
                return other.computed(node.op, value.array)
            if isinstance(other, Flow):
                return self._with_constant(node, other, value, comes_first=value is first)
        flow, divisor = (first, second) if isinstance(first, Flow) else (second, first)
        if not isinstance(flow, Flow) or not isinstance(divisor, Divisor):
            raise ValueError("combines two tensors of the network, as residual networks do")
        if divisor.base is not flow or (node.op != "Mul" and flow is second):
            raise ValueError("combines a tensor with squares of another")
        return self._normalized(flow, divisor.applied(node.op, self._lrn_position()))

    def _with_constant(
        self, node: Node, flow: Flow, constant: Constant, *, comes_first: bool
    ) -> Value:
        """Normalize pixels, add a bias, or square."""
        array = constant.array
        if self._opset < 7 and node.has("axis"):
            axis = node.integer("axis", 0)
            array = array.reshape(array.shape + (1,) * (len(flow.shape) - axis - array.ndim))
        layer = self.done[-1]
        if node.op == "Pow" and not comes_first and array.size == 1 and array.item() == 2:
            return Divisor.squares(flow)
        if flow.padding != (0, 0, 0, 0):
            raise ValueError("computes with maps with zeros around them")
        is_linear = layer.startswith(("conv", "fc")) and f"{layer}.bias" not in self.places
        if layer == "images" and node.op != "Pow":
            self.normalization.apply(node.op, array, flow, comes_first=comes_first)
        elif node.op == "Add" and is_linear and not flow.channels_last:
            bias = vector(array, flow.size[1], len(flow.size))
            self._store(f"{layer}.bias", constant.name, bias)
        else:
            raise ValueError(_NO_LAYER)
        # Another tensor than before: what still reads that one is on a second branch.
        return self._moved(flow, dataclasses.replace(flow))


def _shape(value: Value) -> tuple[int, ...]:
    return value.array.shape if isinstance(value, Constant) else value.shape


def _weights(values: Sequence[Value | None]) -> Constant:
    value = values[1]
    if not isinstance(value, Constant):
        raise ValueError("has weights that are not in the file")
    return value


def _bias(values: Sequence[Value | None]) -> Value | None:
    bias = values[2] if len(values) > 2 else None
    if bias is not None and not isinstance(bias, Constant):
        raise ValueError("has a bias that is not in the file")
    return bias
