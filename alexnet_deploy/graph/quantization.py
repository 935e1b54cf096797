"""A float32 graph whose convolutions and fully connected layers multiply in int8, as Q/DQ pairs.

    q = clip(round(x / scale), -128, 127)        x' = scale q

Weights have one scale for each output channel, their largest magnitude over 127; activations one
scale for the tensor, from calibration. All zero points are 0 and all types int8, as TensorRT
demands, so one file serves every runtime. Biases, normalisation, pooling and softmax stay float32.

Every layer with weights is quantised, the first and the last too, but for one kind: the second
factor of a factored layer. What it reads are coordinates of which few are large, and one scale for
all leaves nothing of the small ones. Measured on 256 test photographs of Caltech-101 with the
bundled checkpoint, lowest FC7 cosine: one layer by itself 0.9997 or more, one such factor 0.989;
all layers but these 0.9995, all layers 0.983.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.errors import Argument, IncompatibleFileError, MissingPackageError
from alexnet_deploy.graph.build import NETWORK_INPUT
from alexnet_deploy.graph.model_file import ModelFile, narrow_name, scale_name

try:
    import onnx
    from onnx import helper
except ImportError as error:
    raise MissingPackageError("onnx", "cpu", "exporting a checkpoint") from error

_LARGEST = 127
_SMALLEST_SCALE = float(np.finfo(np.float32).tiny)  # what is divided by it stays finite
_NUM_BINS = 4096
_QUANTIZED_OPS = ("Conv", "Gemm")


class Histogram:
    """Magnitudes counted in equal bins, whose width doubles when a larger one comes."""

    def __init__(self) -> None:
        self._counts = np.zeros(_NUM_BINS, np.int64)
        self._width = 0.0

    def add(self, values: NDArray[np.float32]) -> None:
        """Count finite values of any shape; zeros are left out, since they round to zeros."""
        # In float64, where a bin of float32's smallest numbers is not 0 wide.
        magnitudes = np.abs(values[values != 0], dtype=np.float64)
        largest = float(magnitudes.max(initial=0.0))
        if largest == 0.0:
            return
        if self._width == 0.0:
            self._width = largest / (_NUM_BINS - 1)
        while largest >= self._width * _NUM_BINS:
            pairs = self._counts.reshape(-1, 2).sum(1)
            self._counts = np.concatenate([pairs, np.zeros_like(pairs)])
            self._width *= 2
        bins = (magnitudes / self._width).astype(np.int64)
        self._counts += np.bincount(bins, minlength=_NUM_BINS)

    def threshold(self) -> float:
        """Return the largest value to represent: least squared error; 1 if all values were 0.

        Beyond it values are clipped, below it the steps are the finer the smaller it is.
        """
        used = np.flatnonzero(self._counts)
        if not used.size:
            return 1.0
        last = int(used[-1]) + 1
        counts, centres = self._counts[:last], (np.arange(last) + 0.5) * self._width
        best, least = last, np.inf
        for bound in np.unique(np.linspace(last / 8, last, 200).astype(int).clip(1)):
            step = bound * self._width / _LARGEST
            rounded = np.minimum(np.rint(centres / step), _LARGEST) * step
            error = float(counts @ (centres - rounded) ** 2)
            if error < least:
                best, least = int(bound), error
        return float(best * self._width)


def quantized_tensors(file: ModelFile) -> dict[str, str]:
    """Return the tensors to be rounded to int8, each with the layer that holds the same values.

    The network's input stands for itself.
    """
    layers = {name: name for name in (NETWORK_INPUT, *file.spec.layer_shapes())}
    found = {}
    for node in file.graph.graph.node:
        x = node.input[0]
        if node.op_type == "Flatten":
            layers[node.output[0]] = layers[x]
        elif node.op_type in _QUANTIZED_OPS and x in layers:
            found[x] = layers[x]
    return found


def input_threshold(file: ModelFile) -> float:
    """Return the largest magnitude that the network's input can have."""
    mean = file.arrays["mean"]
    return float((np.maximum(mean, 255 - mean) / file.arrays.get("std", np.float32(1))).max())


def quantize_model(file: ModelFile, thresholds: Mapping[str, float]) -> ModelFile:
    """Return `file` with int8 products in every layer that reads a tensor of `thresholds`.

    A weight `conv2.weight` becomes the arrays `conv2.weight_int8` and `conv2.weight_scale`, and a
    tensor of its own name again behind them.

    Args:
        file: a float32 file of `graph.build.build_model`, not lowered.
        thresholds: the largest magnitude to represent, by tensor; all above 0.

    Raises:
        IncompatibleFileError: the file is not float32.
    """
    if file.precision != "fp32":
        raise IncompatibleFileError(
            f"{file.source}: is {file.precision}, and only an fp32 graph can be quantised; export "
            "the checkpoint with ",
            Argument("precision", "int8"),
        )
    arrays: dict[str, NDArray[Any]] = {"int8_zero": np.array(0, np.int8)}
    nodes: list[onnx.NodeProto] = []
    rounded: set[str] = set()
    for node in file.graph.graph.node:
        inputs = list(node.input)
        if node.op_type in _QUANTIZED_OPS and inputs[0] in thresholds:
            x, weight = inputs[:2]
            if x not in rounded:
                rounded.add(x)
                scale = max(thresholds[x] / _LARGEST, _SMALLEST_SCALE)
                arrays[scale_name(x)] = np.array(scale, np.float32)
                nodes += _round(x)
            arrays |= _quantized(weight, file.arrays[weight])
            nodes.append(_dequantize(weight, weight, axis=0))
            inputs[0] = _dequantized(x)
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = inputs
        nodes.append(copy)
    made = {name for node in nodes for name in node.output}
    arrays |= {name: array for name, array in file.arrays.items() if name not in made}
    return file.with_nodes(nodes, arrays, "int8")


def dequantize_model(file: ModelFile) -> ModelFile:
    """Return an int8 file that rounds nothing, with the weights in float32 that its own stand for.

    Its precision stays "int8", by which engines choose how to compute the rest of the graph.
    """
    nodes: list[onnx.NodeProto] = []
    renamed: dict[str, str] = {}
    for node in file.graph.graph.node:
        if node.op_type == "QuantizeLinear":
            renamed[_dequantized(node.input[0])] = node.input[0]
        elif node.op_type != "DequantizeLinear":
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.input[:] = [renamed.get(name, name) for name in node.input]
            nodes.append(copy)
    return file.with_nodes(nodes, {**file.arrays, **file.weights().arrays})


def _quantized(name: str, weight: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """Return a weight in int8 and its scales, by output channel; a channel of zeros has scale 1."""
    largest = np.abs(weight.reshape(len(weight), -1)).max(1)
    scale = np.where(largest > 0, np.maximum(largest / _LARGEST, _SMALLEST_SCALE), 1)
    scale = scale.astype(np.float32)
    by_channel = scale.reshape(-1, *[1] * (weight.ndim - 1))
    return {
        narrow_name(name, "int8"): np.rint(weight / by_channel).astype(np.int8),
        scale_name(name): scale,
    }


def _round(x: str) -> list[onnx.NodeProto]:
    """Return the pair of nodes that rounds an activation."""
    narrow = narrow_name(x, "int8")
    # Without a zero point the type would be uint8.
    return [
        helper.make_node("QuantizeLinear", [x, scale_name(x), "int8_zero"], [narrow], name=narrow),
        _dequantize(x, _dequantized(x)),
    ]


def _dequantize(name: str, output: str, **attributes: Any) -> onnx.NodeProto:
    inputs = [narrow_name(name, "int8"), scale_name(name)]
    return helper.make_node("DequantizeLinear", inputs, [output], name=output, **attributes)


def _dequantized(x: str) -> str:
    return f"{x}_dequantized"
