"""The `.onnx` file of a coder: the half of an auto-encoder that makes binary codes of vectors.

    vectors (N, D) float32 -> unit length -> Gemm, ReLU, ..., Gemm -> `code` (N, bits) float32

A bit is 1 where its number is above 0: `code` holds logits. The input has the name of the layer
that the vectors are of. A file is its matrices and its record; as in `reading`, the graph that
follows from them is built again and must be the file's, so that nothing else can be in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy import __version__
from alexnet_deploy.choices import CODE_BITS
from alexnet_deploy.errors import IncompatibleFileError, MissingPackageError
from alexnet_deploy.files.output_files import atomic_write
from alexnet_deploy.files.regular_files import read_file
from alexnet_deploy.graph.build import OPSET, OPSETS
from alexnet_deploy.graph.reading import arrays_of, canonical
from alexnet_deploy.graph.serialization import graph_chunks, shell_bytes

try:
    import onnx
    from google.protobuf.message import DecodeError
    from onnx import TensorProto, helper
except ImportError as error:
    raise MissingPackageError("onnx", "cpu", "reading or writing a coder") from error

CODE = "code"
RECORD_KEY = "alexnet_deploy.coder"
_MAX_LAYERS = 8
_AGAIN = "export the coder again"


@dataclass(frozen=True, kw_only=True)
class CoderFile:
    """A coder's layers, and what it says of itself.

    Attributes:
        layer: of the network, whose vectors it takes; the name of the graph's input.
        weights: (out, in) float32 of each fully connected layer, first to last.
        biases: (out,) float32 of each.
        record: text for readers of the file; the vector space, as JSON. Unchecked.
    """

    layer: str
    weights: Sequence[NDArray[np.float32]]
    biases: Sequence[NDArray[np.float32]]
    record: str

    def to_bytes(self) -> bytes:
        """Return the content of the file."""
        model = _graph(self)
        arrays = _arrays(self)
        metadata = {RECORD_KEY: self.record}
        return b"".join([shell_bytes(model, metadata), *graph_chunks(model.graph, arrays)])


def write_coder(coder: CoderFile, path: Path) -> None:
    """Write a coder's file atomically.

    Raises:
        OutputError: it cannot be written.
    """
    with atomic_write(path) as file:
        file.write(coder.to_bytes())


def read_coder(path: Path) -> CoderFile:
    """Read a coder's file of at most `regular_files.MAX_BYTES`, which may be a stranger's.

    Raises:
        FileNotFoundError: there is none.
        IncompatibleFileError: it cannot be read, or holds anything but what `to_bytes` writes.
    """
    content = read_file(path, _AGAIN)
    try:
        return _parsed(content)
    except (DecodeError, ValueError) as error:
        raise IncompatibleFileError(f"{path}: is not a coder's file ({error}); {_AGAIN}") from error


def _parsed(content: bytes) -> CoderFile:
    """Return what `content` holds.

    Raises:
        DecodeError, ValueError: naming what is wrong.
    """
    model = onnx.load_model_from_string(content)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if RECORD_KEY not in metadata:
        raise ValueError(f"its metadata has no {RECORD_KEY}")
    arrays = arrays_of(model.graph.initializer)
    num_layers, odd = divmod(len(arrays), 2)
    if odd or not 1 <= num_layers <= _MAX_LAYERS or len(model.graph.input) != 1:
        raise ValueError(f"it has {len(arrays)} arrays and {len(model.graph.input)} inputs")
    names = [_names(number) for number in range(num_layers)]
    if arrays.keys() != {name for pair in names for name in pair}:
        raise ValueError(f"its arrays are {', '.join(arrays)[:100]}")
    coder = CoderFile(
        layer=model.graph.input[0].name,
        weights=[arrays[weight] for weight, _ in names],
        biases=[arrays[bias] for _, bias in names],
        record=metadata[RECORD_KEY],
    )
    _check_arrays(coder)
    del model.graph.initializer[:]
    del model.metadata_props[:]
    if canonical(model) != canonical(_graph(coder)):
        raise ValueError("its graph is not the one that follows from its arrays")
    return coder


def _check_arrays(coder: CoderFile) -> None:
    """Raise a ValueError unless the layers follow each other, and end in a number of bits."""
    width = None
    for number, (weight, bias) in enumerate(zip(coder.weights, coder.biases, strict=True)):
        is_float = weight.dtype == bias.dtype == np.float32
        is_matrix = weight.ndim == 2 and 0 not in weight.shape
        if not is_float or not is_matrix or width not in (None, weight.shape[1]):
            raise ValueError(f"the matrix of layer {number} is {weight.dtype} {weight.shape}")
        width = weight.shape[0]
        if bias.shape != (width,):
            raise ValueError(f"the bias of layer {number} has shape {bias.shape}, not ({width},)")
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise ValueError(f"layer {number} holds NaN or infinity")
    if width not in CODE_BITS:
        raise ValueError(f"it gives {width} bits, expected {', '.join(map(str, CODE_BITS))}")


def _names(number: int) -> tuple[str, str]:
    return f"layer{number}.weight", f"layer{number}.bias"


def _arrays(coder: CoderFile) -> dict[str, NDArray[np.float32]]:
    pairs = zip(coder.weights, coder.biases, strict=True)
    return {
        name: array
        for number, pair in enumerate(pairs)
        for name, array in zip(_names(number), pair, strict=True)
    }


def _graph(coder: CoderFile) -> onnx.ModelProto:
    """Return the graph without its arrays, of which only the shapes count."""
    nodes = [helper.make_node("LpNormalization", [coder.layer], ["unit"], axis=-1, p=2)]
    for number in range(len(coder.weights)):
        is_last = number == len(coder.weights) - 1
        output = CODE if is_last else f"layer{number}"
        inputs = [nodes[-1].output[0], *_names(number)]
        nodes.append(helper.make_node("Gemm", inputs, [output], transB=1))
        if not is_last:
            nodes.append(helper.make_node("Relu", [output], [f"relu{number}"]))
    dimension, bits = coder.weights[0].shape[1], coder.weights[-1].shape[0]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", width])
        for name, width in ((coder.layer, dimension), (CODE, bits))
    ]
    return onnx.ModelProto(
        ir_version=OPSETS[OPSET],
        producer_name="alexnet-deploy",
        producer_version=__version__,
        opset_import=[helper.make_opsetid("", OPSET)],
        graph=helper.make_graph(nodes, "coder", values[:1], values[1:]),
    )
