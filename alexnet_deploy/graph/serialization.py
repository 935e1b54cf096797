"""The bytes of an `.onnx` file, with the arrays as views of their own memory.

Protobuf's own writer copies the arrays three times. Its wire format allows placing them between the
messages uncopied: a 244 MB file (`paper`, 1000 classes, not factored) takes 0.14 to 0.18 s instead
of 1.0 to 1.1 s (two CPU cores, five runs), and is written without a copy.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.errors import MissingPackageError

try:
    import onnx
    from onnx import TensorProto, helper
except ImportError as error:
    raise MissingPackageError("onnx", "cpu", "reading or writing a model file") from error


def graph_chunks(
    graph: onnx.GraphProto, arrays: Mapping[str, NDArray[Any]]
) -> Iterator[bytes | memoryview]:
    """Yield a model's `graph` field, with `arrays` as its initializers."""
    pieces: list[bytes | memoryview] = [graph.SerializeToString()]
    for name, array in arrays.items():
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        head = TensorProto(name=name, dims=array.shape, data_type=kind).SerializeToString()
        head += _field_header(TensorProto.RAW_DATA_FIELD_NUMBER, len(data))
        field = onnx.GraphProto.INITIALIZER_FIELD_NUMBER
        pieces += [_field_header(field, len(head) + len(data)) + head, data]
    size = sum(len(piece) for piece in pieces)
    yield _field_header(onnx.ModelProto.GRAPH_FIELD_NUMBER, size)
    yield from pieces


def shell_bytes(model: onnx.ModelProto, metadata: dict[str, str]) -> bytes:
    """Return all other fields of a model, with `metadata` instead of its own."""
    shell = onnx.ModelProto()
    shell.CopyFrom(model)
    shell.ClearField("graph")
    helper.set_model_props(shell, metadata)
    content: bytes = shell.SerializeToString()
    return content


def without_outputs(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, bytes]]:
    """Take the outputs off a model, each with the casts and joins that only it needs.

    Returns:
        The rest, and for each output the bytes that, appended to the rest's, make it one again:
        protobuf merges messages that follow each other.
    """
    rest = onnx.ModelProto()
    rest.CopyFrom(model)
    graph = rest.graph
    producer = {node.output[0]: node for node in model.graph.node}
    read = Counter(name for node in graph.node for name in node.input)
    outputs = {}
    for output in model.graph.output:
        piece = onnx.GraphProto(output=[output])
        node = producer[output.name]
        while node.op_type in ("Cast", "Concat") and not read[node.output[0]]:
            piece.node.insert(0, node)
            graph.node.remove(node)
            read.subtract(node.input)
            node = producer[node.input[0]]
        outputs[output.name] = onnx.ModelProto(graph=piece).SerializeToString()
    del graph.output[:]
    return rest, outputs


def _field_header(number: int, size: int) -> bytes:
    """Encode the tag and the length that precede a protobuf field of `size` bytes."""
    header = bytearray()
    for value in (number << 3 | 2, size):  # 2 is the wire type "length-delimited"
        while value > 0x7F:
            header.append(value & 0x7F | 0x80)
            value >>= 7
        header.append(value)
    return bytes(header)
