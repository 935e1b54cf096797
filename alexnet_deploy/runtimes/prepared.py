"""A network in the form that a runtime loads, with what its runner needs to know of it.

One is made from a model file, or comes out of the cache: then nothing here needs `onnx`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from alexnet_deploy.choices import Device, FilePrecision, Runtime
from alexnet_deploy.model.spec import ModelSpec
from alexnet_deploy.runtimes.processor import saturates_int8

if TYPE_CHECKING:
    from alexnet_deploy.graph.model_file import ModelFile

LOWERING_VERSION = 3
"""Incremented when the same model file would give another network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedNetwork:
    """An ONNX graph, lowered for one runtime on one device; any of its layers can be an output.

    Attributes:
        body: its bytes without outputs, in chunks.
        layers: for each layer, the bytes that make it an output if they follow the body's.
        spec: what the network expects and computes.
        identity: of the model file.
        precision: of the model file.
        source: where it comes from, for messages.
        is_compiled: whether the body is what OpenVINO made of the graph, for all of `layers`.
    """

    body: tuple[bytes | memoryview, ...]
    layers: Mapping[str, bytes]
    spec: ModelSpec
    identity: str
    precision: FilePrecision
    source: str
    is_compiled: bool = False

    def to_bytes(self, outputs: tuple[str, ...]) -> bytes:
        """Return the graph with the layers `outputs`, in this order, as its only outputs."""
        return b"".join([*self.body, *(self.layers[name] for name in outputs)])


def prepare(file: "ModelFile", runtime: Runtime, device: Device) -> PreparedNetwork:
    """Lower `file` into the form that `runtime` computes fastest on `device`.

    See `graph.lowering` and `graph.unsigned_int8`.
    """
    # Here, because a network out of the cache needs no `onnx`.
    from alexnet_deploy.graph.lowering import banded_convolution, split_towers
    from alexnet_deploy.graph.unsigned_int8 import unsigned_activations

    whole = file.with_outputs(tuple(file.spec.layer_shapes()))
    if runtime == "openvino" and file.precision not in ("int8", "fp16"):
        # In int8 not only slower: where towers are concatenated before quantization, OpenVINO
        # 2026.4 gives wrong results: on photographs a tenth of the classes changes.
        whole = split_towers(whole)
    elif device == "cpu":
        if runtime == "openvino" and file.precision == "int8":
            whole = unsigned_activations(whole, narrow_sums=saturates_int8())
        whole = banded_convolution(whole)
    body, layers = whole.in_pieces()
    return PreparedNetwork(
        body=body,
        layers=layers,
        spec=file.spec,
        identity=file.identity,
        precision=file.precision,
        source=file.source,
    )
