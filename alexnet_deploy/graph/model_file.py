"""An `.onnx` file of ours: graph and arrays in memory, and how it is read and written.

The file's metadata holds the spec with its labels, the checkpoint's fingerprint, a hash of
everything that affects its results, and the verification report.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.choices import FILE_PRECISIONS, FilePrecision
from alexnet_deploy.errors import IncompatibleFileError, MissingPackageError, UsageError
from alexnet_deploy.files.input_files import existing_file
from alexnet_deploy.files.output_files import atomic_write
from alexnet_deploy.files.records import Within, json_object, read_record
from alexnet_deploy.graph.report import check_report
from alexnet_deploy.graph.serialization import graph_chunks, shell_bytes
from alexnet_deploy.model.checkpoints import CHECKPOINT_SUFFIXES, Checkpoint, array_digest
from alexnet_deploy.model.spec import SPEC_KEY, ModelSpec

try:
    import onnx
    from google.protobuf.message import DecodeError
    from onnx import TensorProto, helper, numpy_helper
except ImportError as error:
    raise MissingPackageError("onnx", "cpu", "reading or writing a model file") from error

INPUT = "images"

_FINGERPRINT, _REPORT = "alexnet_deploy.fingerprint", "alexnet_deploy.report"
_CONTENT, _PRECISION = "alexnet_deploy.content_sha256", "alexnet_deploy.precision"
_CALIBRATION = "alexnet_deploy.export.calibration"
_AGAIN = "export it again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """The data that an int8 file's ranges come from.

    Attributes:
        photographs: how many were used.
        are_samples: whether they were the package's own samples.
    """

    photographs: Annotated[int, Within(1, 2**31)]
    are_samples: bool


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """An `.onnx` model of ours: the graph and its arrays, kept apart so that no weight is copied.

    Attributes:
        graph: nodes, inputs and outputs, without initializers and without our metadata.
        arrays: the initializers by name.
        spec: what the network expects and computes.
        origin: the checkpoint that it was built from, or its fingerprint.
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

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of the checkpoint that it was built from."""
        return self.origin if isinstance(self.origin, str) else self.origin.fingerprint

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
        """Compare spec, fingerprint, graph and arrays with the hash that the file holds of them."""
        return self.content_sha256 in (None, self.computed_sha256())

    def computed_sha256(self) -> str:
        """Hash everything in the file except its report."""
        digest = hashlib.sha256(f"{self.spec.to_json()}\n{self.fingerprint}\n".encode())
        digest.update(f"{self.precision} {self.calibration}\n".encode())
        digest.update(self.graph.graph.SerializeToString(deterministic=True))
        for name in sorted(self.arrays):
            digest.update(f"{name} {self._digest(name)}\n".encode())
        return digest.hexdigest()

    def _digest(self, name: str) -> str:
        """Return the digest of an array, without hashing the checkpoint's own arrays again."""
        array = self.arrays[name]
        if isinstance(self.origin, Checkpoint) and self.origin.arrays.get(name) is array:
            return self.origin.digests[name]
        return array_digest(array)

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
            _FINGERPRINT: self.fingerprint,
            _CONTENT: self.computed_sha256(),
            _PRECISION: self.precision,
        }
        if self.calibration is not None:
            metadata[_CALIBRATION] = json.dumps(dataclasses.asdict(self.calibration))
        return metadata | ({} if self.report is None else {_REPORT: json.dumps(self.report)})


def narrow_name(layer: str, precision: str) -> str:
    """Return the name of a layer's tensor, or an int8 weight, in the narrow type: `conv1_fp16`."""
    return f"{layer}_{precision}"


def scale_name(tensor: str) -> str:
    """Return the name of an int8 tensor's or weight's scale."""
    return f"{tensor}_scale"


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


def read_model(path: Path) -> ModelFile:
    """Read an `.onnx` file that `graph.build.build_model` made.

    Raises:
        IncompatibleFileError: unreadable, truncated, damaged, or without our metadata.
        UsageError: the file is missing, or is a checkpoint.
    """
    existing_file(path, "an .onnx file")
    if path.suffix in CHECKPOINT_SUFFIXES:
        raise UsageError(f"{path}: is a checkpoint; export it first: alexnet-deploy export")
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except (OSError, DecodeError) as error:
        raise IncompatibleFileError(
            f"{path}: not a readable ONNX file ({error}); export it again"
        ) from error
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if SPEC_KEY not in metadata or _FINGERPRINT not in metadata:
        producer = f" (its producer is {model.producer_name})" if model.producer_name else ""
        raise IncompatibleFileError(
            f"{path}: was not written by alexnet-deploy{producer}: it does not say how to prepare "
            "its input; export the checkpoint with: alexnet-deploy export CKPT -o FILE"
        )
    spec = ModelSpec.from_json(metadata[SPEC_KEY], str(path))
    try:
        arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    except (ValueError, TypeError) as error:
        raise IncompatibleFileError(f"{path}: damaged ({error}); export it again") from error
    report = calibration = None
    if _REPORT in metadata:
        report = json_object(metadata[_REPORT], f"{path}: its report", _AGAIN)
        check_report(report, str(path), _AGAIN)
    if _CALIBRATION in metadata:
        source = f"{path}: its calibration"
        calibration = read_record(Calibration, metadata[_CALIBRATION], source, _AGAIN)
    del model.graph.initializer[:]
    del model.metadata_props[:]
    _check_complete(model.graph, arrays, spec, path)
    return ModelFile(
        graph=model,
        arrays=arrays,
        spec=spec,
        origin=metadata[_FINGERPRINT],
        content_sha256=metadata.get(_CONTENT, ""),
        report=report,
        precision=_precision(metadata.get(_PRECISION, "fp32"), path),
        calibration=calibration,
        source=str(path),
    )


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


def _check_complete(
    graph: onnx.GraphProto, arrays: Mapping[str, NDArray[Any]], spec: ModelSpec, path: Path
) -> None:
    """Reject a graph that reads a missing tensor, or lacks one of the weights."""
    made = {INPUT, *arrays, *(output for node in graph.node for output in node.output)}
    read = [name for node in graph.node for name in node.input]
    factors = {
        name: (f"{name}.left", f"{name}.right") if f"{name}.left" in made else (name,)
        for name in spec.array_shapes()
    }
    needed = ["mean", *(name for names in factors.values() for name in names)]
    for name in (*read, *(output.name for output in graph.output), *needed):
        if name not in made:
            raise IncompatibleFileError(f"{path}: damaged, {name} is missing; export it again")


def _precision(text: str, path: Path) -> FilePrecision:
    for precision in FILE_PRECISIONS:
        if text == precision:
            return precision
    raise IncompatibleFileError(
        f"{path}: its precision is {text!r}, this version knows {', '.join(FILE_PRECISIONS)}; "
        "export it again"
    )


def _value_info(name: str, spec: ModelSpec) -> onnx.ValueInfoProto:
    shape: list[str | int | None] = ["N", *spec.layer_shapes()[name]]
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
