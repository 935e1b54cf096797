"""Checkpoint to ONNX: the network as about 25 standard nodes, built from the weights.

Input `images`: uint8 [N, H, W, 3], RGB, resized and cropped. Outputs: any layers of
`ModelSpec.layer_shapes`, float32, `probabilities` and `fc7` by default. N is free. Every layer
is a tensor under its own name, so a reader can take any of them as an output later.

The file's metadata holds the spec with its labels, the checkpoint's fingerprint, a hash of the
initialisers and the verification report.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from alexnet_deploy import __version__
from alexnet_deploy.checkpoints import Checkpoint, array_digest
from alexnet_deploy.errors import IncompatibleFileError
from alexnet_deploy.model_spec import (
    CONV_STRIDES,
    NORMALISED_CONVS,
    POOL_SIZE,
    POOL_STRIDE,
    POOLED_CONVS,
    LrnSpec,
    ModelSpec,
)
from alexnet_deploy.output_files import atomic_write

OPSET, IR_VERSION = 20, 10
INPUT = "images"
GRAPH_VERSION = 1
"""Raised when the same checkpoint would give another graph; part of the cache's key."""

_SPEC, _FINGERPRINT = "alexnet_deploy.spec", "alexnet_deploy.fingerprint"
_WEIGHTS, _REPORT = "alexnet_deploy.weights_sha256", "alexnet_deploy.report"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """An `.onnx` model of ours: the graph and its arrays kept apart, so that no weight is copied.

    Attributes:
        graph: nodes, inputs, outputs and metadata, without initialisers.
        arrays: the initialisers by name.
        spec: what the network expects and computes.
        fingerprint: of the checkpoint that it was made from.
        report: the verification's result as JSON, or None if it was never verified.
        source: its path, or a name for messages.
    """

    graph: onnx.ModelProto
    arrays: Mapping[str, NDArray[Any]]
    spec: ModelSpec
    fingerprint: str
    report: Mapping[str, Any] | None
    source: str

    def weights(self) -> Checkpoint:
        """Return the file's own weights as a checkpoint."""
        names = self.spec.array_shapes()
        arrays = {
            name: array
            for name, array in self.arrays.items()
            if name.removesuffix(".left").removesuffix(".right") in names
        }
        mean = self.arrays["mean"]
        if mean.shape[2:] != (1, 1):
            arrays["mean_image"] = mean[0]
        return Checkpoint(spec=self.spec, arrays=arrays)

    def weights_are_intact(self) -> bool:
        """Compare the initialisers with the hash that was written with them."""
        return _metadata(self.graph).get(_WEIGHTS) == _weights_sha256(self.arrays, {})

    def with_report(self, report: Mapping[str, Any]) -> "ModelFile":
        """Return the same file with `report` in its metadata."""
        graph = onnx.ModelProto()
        graph.CopyFrom(self.graph)
        helper.set_model_props(graph, _metadata(graph) | {_REPORT: json.dumps(report)})
        return dataclasses.replace(self, graph=graph, report=report)

    def to_bytes(self) -> bytes:
        """Return the whole `.onnx` file."""
        return b"".join(self.chunks())

    def chunks(self) -> Iterator[bytes | memoryview]:
        """Yield the `.onnx` file in pieces, the arrays as views of their own memory.

        Protobuf's own writer copies a full-size network three times, more than a second's work;
        its wire format lets the arrays be put between the messages as they are.
        """
        rest = onnx.ModelProto()
        rest.CopyFrom(self.graph)
        rest.ClearField("graph")
        yield rest.SerializeToString()
        pieces: list[bytes | memoryview] = [self.graph.graph.SerializeToString()]
        for name, array in self.arrays.items():
            data = np.ascontiguousarray(array).data.cast("B")
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            head = TensorProto(name=name, dims=array.shape, data_type=kind).SerializeToString()
            head += _field_header(TensorProto.RAW_DATA_FIELD_NUMBER, len(data))
            field = onnx.GraphProto.INITIALIZER_FIELD_NUMBER
            pieces += [_field_header(field, len(head) + len(data)) + head, data]
        size = sum(len(piece) for piece in pieces)
        yield _field_header(onnx.ModelProto.GRAPH_FIELD_NUMBER, size)
        yield from pieces


def build_model(checkpoint: Checkpoint, outputs: tuple[str, ...]) -> ModelFile:
    """Return the checkpoint as an fp32 ONNX model.

    Args:
        checkpoint: weights of any stored precision; factored layers stay factored.
        outputs: layers to offer as graph outputs, in this order.
    """
    spec = checkpoint.spec
    graph = _GraphBuilder(checkpoint)
    x = graph.normalised_input()
    for number in range(1, 6):
        x = graph.convolution(x, number)
        lrn = spec.lrn if number in NORMALISED_CONVS else None
        if lrn is not None and lrn.position == "before_pool":
            x = graph.local_response_norm(x, number, lrn)
        if number in POOLED_CONVS:
            x = graph.max_pool(x, number)
        if lrn is not None and lrn.position == "after_pool":
            x = graph.local_response_norm(x, number, lrn)
    x = graph.add("Flatten", [x], "flat")
    x = graph.add("Relu", [graph.fully_connected(x, "fc6", "fc6_pre")], "fc6")
    x = graph.add("Relu", [graph.fully_connected(x, "fc7", "fc7_pre")], "fc7")
    graph.add("Softmax", [graph.fully_connected(x, "fc8", "logits")], "probabilities", axis=-1)
    metadata = {
        _SPEC: spec.to_json(),
        _FINGERPRINT: checkpoint.fingerprint,
        _WEIGHTS: _weights_sha256(graph.arrays, checkpoint.digests),
    }
    model = graph.finish(outputs)
    helper.set_model_props(model, metadata)
    return ModelFile(
        graph=model,
        arrays=graph.arrays,
        spec=spec,
        fingerprint=checkpoint.fingerprint,
        report=None,
        source="the exported graph",
    )


def read_model(path: Path) -> ModelFile:
    """Read an `.onnx` file that `build_model` made.

    Raises:
        IncompatibleFileError: unreadable, truncated, or without our metadata.
    """
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except (OSError, DecodeError) as error:
        raise IncompatibleFileError(
            f"{path}: not a readable ONNX file ({error}); export it again"
        ) from error
    metadata = _metadata(model)
    if _SPEC not in metadata or _FINGERPRINT not in metadata:
        producer = model.producer_name or "an unknown program"
        raise IncompatibleFileError(
            f"{path}: was written by {producer}, not by alexnet-deploy, so nothing says how to "
            "prepare its input; export the checkpoint with: alexnet-deploy export CKPT -o FILE"
        )
    report = metadata.get(_REPORT)
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    del model.graph.initializer[:]
    return ModelFile(
        graph=model,
        arrays=arrays,
        spec=ModelSpec.from_json(metadata[_SPEC]),
        fingerprint=metadata[_FINGERPRINT],
        report=None if report is None else json.loads(report),
        source=str(path),
    )


def write_model(file: ModelFile, path: Path) -> None:
    """Write a model file by a temporary name and a rename.

    Raises:
        OutputError: the file cannot be written.
    """
    with atomic_write(path) as target:
        target.writelines(file.chunks())


def with_outputs(file: ModelFile, names: tuple[str, ...]) -> ModelFile:
    """Return `file` with the layers `names`, in this order, as its only outputs."""
    graph = onnx.ModelProto()
    graph.CopyFrom(file.graph)
    del graph.graph.output[:]
    graph.graph.output.extend(_value_info(name, file.spec) for name in names)
    return dataclasses.replace(file, graph=graph)


class _GraphBuilder:
    """Nodes and initialisers under construction; one method for each kind of layer."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._spec = checkpoint.spec
        self.arrays: dict[str, NDArray[Any]] = {}
        self._model = onnx.ModelProto(
            ir_version=IR_VERSION,
            producer_name="alexnet-deploy",
            producer_version=__version__,
            opset_import=[helper.make_opsetid("", OPSET)],
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
        return self.constant(name, self._checkpoint.arrays[name].astype(np.float32, copy=False))

    def normalised_input(self) -> str:
        # Transposed first, while a pixel is one byte.
        x = self.add("Transpose", [INPUT], "images_nchw", perm=[0, 3, 1, 2])
        x = self.add("Cast", [x], "pixels", to=TensorProto.FLOAT)
        mean = self.constant("mean", self._checkpoint.mean()[np.newaxis].astype(np.float32))
        std = np.array(self._spec.preprocessing.std, np.float32).reshape(1, 3, 1, 1)
        if (std == 1).all():
            return self.add("Sub", [x, mean], "input")
        x = self.add("Sub", [x, mean], "centred")
        return self.add("Div", [x, self.constant("std", std)], "input")

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
        size, stride = [POOL_SIZE] * 2, [POOL_STRIDE] * 2
        return self.add("MaxPool", [x], f"pool{number}", kernel_shape=size, strides=stride)

    def fully_connected(self, x: str, layer: str, output: str) -> str:
        weight = f"{layer}.weight"
        if weight not in self._checkpoint.arrays:
            right = self.array(f"{weight}.right")
            x = self.add("Gemm", [x, right], f"{layer}_rank", transB=1)
            weight = f"{weight}.left"
        bias = self.array(f"{layer}.bias")
        return self.add("Gemm", [x, self.array(weight), bias], output, transB=1)

    def finish(self, outputs: tuple[str, ...]) -> onnx.ModelProto:
        size = self._spec.input_size
        images = helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["N", size, size, 3])
        self._model.graph.name = f"alexnet_{self._spec.preset}"
        self._model.graph.input.append(images)
        self._model.graph.output.extend(_value_info(name, self._spec) for name in outputs)
        return self._model


def _value_info(name: str, spec: ModelSpec) -> onnx.ValueInfoProto:
    shape: list[str | int | None] = ["N", *spec.layer_shapes()[name]]
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _metadata(model: onnx.ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}


def _field_header(number: int, size: int) -> bytes:
    """Encode the tag and the length that precede a protobuf field of `size` bytes."""
    header = bytearray()
    for value in (number << 3 | 2, size):  # 2 is the wire type "length-delimited"
        while value > 0x7F:
            header.append(value & 0x7F | 0x80)
            value >>= 7
        header.append(value)
    return bytes(header)


def _weights_sha256(arrays: Mapping[str, NDArray[Any]], known: Mapping[str, str]) -> str:
    """Hash all initialisers; `known` holds digests of arrays that are stored unchanged."""
    lines = []
    for name in sorted(arrays):
        digest = known.get(name, "")
        if not digest.startswith("float32 "):
            digest = array_digest(arrays[name])
        lines.append(f"{name} {digest}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
