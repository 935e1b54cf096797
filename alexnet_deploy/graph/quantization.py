"""A float32 graph whose convolutions and fully connected layers multiply in int8, as Q/DQ pairs.

    q = clip(round(x / scale), -128, 127)        x' = scale q

Weights are quantized per channel, scale = largest magnitude / 127; activations per tensor, with
scales from calibration. All zero points are 0 and all types int8, as TensorRT requires, so one file
serves every runtime. Biases, LRN, pooling and softmax stay float32.

Every layer with weights is quantized, the first and the last included, except the second factor of
a factored layer. Its input has a few large coordinates, and a per-tensor scale rounds the small
ones to nothing. Lowest FC7 cosine, measured on 256 test photographs of Caltech-101 with the bundled
checkpoint: one layer alone 0.9997 or more, one such factor 0.989; all layers but these 0.9995, all
layers 0.983.
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
SMALLEST_SCALE = float(np.finfo(np.float32).tiny)
"""Of a file of ours: dividing by it stays finite."""
LARGEST_SCALE = 1e30
"""Likewise: multiplying by it stays finite."""
_NUM_BINS = 4096
_QUANTIZED_OPS = ("Conv", "Gemm")


class Histogram:
    """Counts of magnitudes in equal bins, whose width doubles when a larger value arrives."""

    def __init__(self) -> None:
        self._counts = np.zeros(_NUM_BINS, np.int64)
        self._width = 0.0

    def add(self, values: NDArray[np.float32]) -> None:
        """Count finite values of any shape; zeros are skipped, since they round exactly."""
        # In float64, so that bins of float32's smallest numbers have a width above 0.
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
        """Return the clipping threshold with the least squared error; 1 if all values were 0.

        Values beyond it are clipped; the smaller it is, the finer the steps below it.
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
    """Return the tensors to quantize, each with the layer that holds the same values.

    The network's input maps to itself.
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
    """Return the largest magnitude that the network's input can take."""
    mean = file.arrays["mean"]
    return float((np.maximum(mean, 255 - mean) / file.arrays.get("std", np.float32(1))).max())


def quantize_model(file: ModelFile, thresholds: Mapping[str, float]) -> ModelFile:
    """Return `file` with int8 products in every layer that reads a tensor of `thresholds`.

    A weight `conv2.weight` becomes the arrays `conv2.weight_int8` and `conv2.weight_scale`, and
    their dequantized product, a tensor with the original name.

    Args:
        file: a float32 file from `graph.build.build_model`, not lowered.
        thresholds: the largest magnitude to represent, by tensor; all above 0.

    Raises:
        IncompatibleFileError: the file is not float32.
    """
    if file.precision != "fp32":
        raise IncompatibleFileError(
            f"{file.source}: is {file.precision}, and only an fp32 graph can be quantized; export "
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
                scale = max(thresholds[x] / _LARGEST, SMALLEST_SCALE)
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
    """Return an int8 file without its rounding, with its weights dequantized to float32.

    Its precision stays "int8", by which runners choose how to compute the rest of the graph.
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
    """Return a weight in int8 and its per-channel scales; a channel of zeros has scale 1."""
    largest = np.abs(weight.reshape(len(weight), -1)).max(1)
    scale = np.where(largest > 0, np.maximum(largest / _LARGEST, SMALLEST_SCALE), 1)
    scale = scale.astype(np.float32)
    by_channel = scale.reshape(-1, *[1] * (weight.ndim - 1))
    return {
        narrow_name(name, "int8"): np.rint(weight / by_channel).astype(np.int8),
        scale_name(name): scale,
    }


def _round(x: str) -> list[onnx.NodeProto]:
    """Return the Q/DQ pair that rounds an activation."""
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
