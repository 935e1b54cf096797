"""An `.onnx` file of ours: graph and arrays in memory, and how it is read and written.

The graph follows from the spec, the precision and the outputs: see `graph.reading`. The file's
metadata holds the spec with its labels, a hash of everything that affects its results, and the
verification report.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.choices import FilePrecision
from alexnet_deploy.errors import MissingPackageError
from alexnet_deploy.files.output_files import atomic_write
from alexnet_deploy.graph.interface import GRAPH_VERSION
from alexnet_deploy.graph.serialization import graph_chunks, shell_bytes, without_outputs
from alexnet_deploy.model.calibrated import Calibration
from alexnet_deploy.model.checkpoints import Checkpoint, identity
from alexnet_deploy.model.spec import SPEC_KEY, ModelSpec

try:
    import onnx
    from onnx import TensorProto, helper
except ImportError as error:
    raise MissingPackageError("onnx", "cpu", "reading or writing a model file") from error

GRAPH_VERSION_KEY = "alexnet_deploy.graph_version"
CHECKPOINT_KEY = "alexnet_deploy.checkpoint"
CONTENT_KEY = "alexnet_deploy.content_sha256"
PRECISION_KEY = "alexnet_deploy.precision"
CALIBRATION_KEY = "alexnet_deploy.calibration"
REPORT_KEY = "alexnet_deploy.report"


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """An `.onnx` model of ours: the graph and its arrays, kept apart so that no weight is copied.

    Attributes:
        graph: nodes, inputs and outputs, without initializers and without our metadata.
        arrays: the initializers by name.
        spec: what the network expects and computes.
        origin: the checkpoint that it was built from, or the identity that the file claims for it.
        content_sha256: the hash that the file holds of itself; None before it is written.
        report: the verification report as JSON, or None if never verified.
        precision: dtype of the convolutions in the graph: "fp32", "fp16", "bf16" or "int8".
        calibration: for int8 files; else None.
        source: its path, or a name for messages.
    """

    graph: onnx.ModelProto
    arrays: Mapping[str, NDArray[Any]]
    spec: ModelSpec
    origin: Checkpoint | str
    content_sha256: str | None = None
    report: Mapping[str, Any] | None = None
    precision: FilePrecision = "fp32"
    calibration: Calibration | None = None
    source: str = "the exported graph"

    @property
    def checkpoint_identity(self) -> str:
        """Identity of the checkpoint that it was built from; read from a file, it is a claim."""
        if isinstance(self.origin, str):
            return self.origin
        return self.identity if self.precision == "fp32" else self.origin.identity

    @cached_property
    def identity(self) -> str:
        """See `checkpoints.identity`: of the file's own arrays, before any runner lowers it.

        In fp32 it is the checkpoint's. A narrower file has its own, unless the checkpoint's weights
        are as narrow; the vectors that it computes are others all the same.
        """
        own = {name: array for name, array in self.arrays.items() if not follows_from_spec(name)}
        return identity(self.spec, own)

    def outputs(self) -> tuple[str, ...]:
        """Return the names of the graph's outputs."""
        return tuple(output.name for output in self.graph.graph.output)

    def weights(self) -> Checkpoint:
        """Return the file's own weights as a checkpoint, int8 weights dequantized."""
        arrays = {}
        for name in self.spec.array_shapes():
            for part in (name, f"{name}.left", f"{name}.right"):
                if part in self.arrays:
                    arrays[part] = self.arrays[part]
                elif narrow_name(part, "int8") in self.arrays:
                    arrays[part] = self._dequantized(part)
        mean = self.arrays["mean"]
        if mean.shape[2:] != (1, 1):
            arrays["mean_image"] = mean[0]
        return Checkpoint(spec=self.spec, arrays=arrays)

    def _dequantized(self, name: str) -> NDArray[np.float32]:
        narrow, scale = self.arrays[narrow_name(name, "int8")], self.arrays[scale_name(name)]
        wide: NDArray[np.float32] = narrow * scale.reshape(-1, *[1] * (narrow.ndim - 1))
        return wide

    def is_unchanged(self) -> bool:
        """Compare what affects results, and the labels, with the hash that the file holds of it."""
        return self.content_sha256 in (None, self.computed_sha256())

    def computed_sha256(self) -> str:
        """Hash the file's identity, precision, calibration and whole spec."""
        parts = (self.identity, self.checkpoint_identity, self.precision, self.calibration)
        text = "\n".join([*map(str, parts), self.spec.to_json()])
        return hashlib.sha256(text.encode()).hexdigest()

    def with_outputs(self, names: tuple[str, ...]) -> "ModelFile":
        """Return the file with the layers `names`, in this order, as its only outputs."""
        file = self.with_nodes(self.graph.graph.node, self.arrays)
        graph = file.graph.graph
        del graph.output[:]
        graph.output.extend(_value_info(name, self.spec) for name in names)
        if self.precision in ("fp16", "bf16"):
            _cast_outputs(graph, self.precision)
        return file

    def with_nodes(
        self,
        nodes: Iterable[onnx.NodeProto],
        arrays: Mapping[str, NDArray[Any]],
        precision: FilePrecision | None = None,
    ) -> "ModelFile":
        """Return the file with copies of `nodes`, and those of `arrays` that any of them reads.

        Args:
            nodes: all nodes of the new graph, in topological order.
            arrays: initializers by name.
            precision: of the new graph, if it changes.
        """
        kept = list(nodes)
        graph = onnx.ModelProto()
        graph.CopyFrom(self.graph)
        del graph.graph.node[:]
        graph.graph.node.extend(kept)
        read = {name for node in kept for name in node.input}
        return dataclasses.replace(
            self,
            graph=graph,
            arrays={name: array for name, array in arrays.items() if name in read},
            precision=precision or self.precision,
        )

    def to_bytes(self) -> bytes:
        """Return the file without our metadata, for a runtime."""
        return b"".join([shell_bytes(self.graph, {}), *graph_chunks(self.graph.graph, self.arrays)])

    def in_pieces(self) -> tuple[tuple[bytes | memoryview, ...], dict[str, bytes]]:
        """Return `to_bytes` without outputs, in chunks, and what makes each output, to append."""
        graph, outputs = without_outputs(self.graph)
        return (shell_bytes(graph, {}), *graph_chunks(graph.graph, self.arrays)), outputs

    def chunks(self) -> Iterator[bytes | memoryview]:
        """Yield the whole file in pieces, the arrays as views of their own memory.

        The metadata comes last: its hashes, half the work of a full-size export, are computed while
        the arrays are being written.
        """
        with ThreadPoolExecutor(max_workers=1) as thread:
            metadata = thread.submit(self._metadata)
            yield from graph_chunks(self.graph.graph, self.arrays)
            yield shell_bytes(self.graph, metadata.result())

    def _metadata(self) -> dict[str, str]:
        metadata = {
            SPEC_KEY: self.spec.to_json(),
            GRAPH_VERSION_KEY: str(GRAPH_VERSION),
            CHECKPOINT_KEY: self.checkpoint_identity,
            CONTENT_KEY: self.computed_sha256(),
            PRECISION_KEY: self.precision,
        }
        if self.calibration is not None:
            metadata[CALIBRATION_KEY] = json.dumps(dataclasses.asdict(self.calibration))
        return metadata | ({} if self.report is None else {REPORT_KEY: json.dumps(self.report)})


def narrow_name(layer: str, precision: str) -> str:
    """Return the name of a layer's tensor, or an int8 weight, in the narrow type: `conv1_fp16`."""
    return f"{layer}_{precision}"


def scale_name(tensor: str) -> str:
    """Return the name of an int8 tensor's or weight's scale."""
    return f"{tensor}_scale"


def follows_from_spec(name: str) -> bool:
    """Return whether an array holds no weights: a shape, a standard deviation, a zero point."""
    return name in ("std", "int8_zero") or name.endswith("_shape")


def _cast_outputs(graph: onnx.GraphProto, precision: str) -> None:
    """Cast the outputs that exist only in the narrow type; drop casts that nothing reads."""
    outputs = {output.name for output in graph.output}
    read = outputs | {name for node in graph.node for name in node.input}
    kept = [node for node in graph.node if node.op_type != "Cast" or node.output[0] in read]
    made = {name for node in kept for name in node.output}
    kept += [
        helper.make_node(
            "Cast", [narrow_name(name, precision)], [name], name=name, to=TensorProto.FLOAT
        )
        for name in sorted(outputs - made)
    ]
    del graph.node[:]
    graph.node.extend(kept)


def write_model(file: ModelFile, path: Path) -> None:
    """Write a model file atomically.

    Raises:
        OutputError: the file cannot be written.
    """
    with atomic_write(path) as target:
        target.writelines(file.chunks())


def check_onnx(file: ModelFile) -> str:
    """Run ONNX's own full check; return what it finds wrong, or "valid"."""
    try:
        onnx.checker.check_model(file.to_bytes(), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return str(error).splitlines()[0]
    return "valid"


def _value_info(name: str, spec: ModelSpec) -> onnx.ValueInfoProto:
    shape: list[str | int | None] = ["N", *spec.layer_shapes()[name]]
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
