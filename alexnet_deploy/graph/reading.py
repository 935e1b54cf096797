"""Read an `.onnx` file of ours, and hold it to what its spec says.

A file is its spec, its arrays, its precision and its outputs; its graph follows from them. So that
graph is built again and must be the file's: no other operator, function, loop or external file can
be in it, and every array has the shape and the type that the graph needs.
"""

import math
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.choices import FILE_PRECISIONS, FilePrecision
from alexnet_deploy.errors import IncompatibleFileError, MissingPackageError, UsageError
from alexnet_deploy.files.input_files import existing_file
from alexnet_deploy.files.path_text import printable
from alexnet_deploy.files.records import json_object, read_record
from alexnet_deploy.graph.build import OPSETS, build_model
from alexnet_deploy.graph.casting import cast_model
from alexnet_deploy.graph.interface import GRAPH_VERSION
from alexnet_deploy.graph.model_file import (
    CALIBRATION_KEY,
    CHECKPOINT_KEY,
    CONTENT_KEY,
    GRAPH_VERSION_KEY,
    PRECISION_KEY,
    REPORT_KEY,
    ModelFile,
    follows_from_spec,
    narrow_name,
    scale_name,
)
from alexnet_deploy.graph.quantization import (
    LARGEST_SCALE,
    SMALLEST_SCALE,
    quantize_model,
    quantized_tensors,
)
from alexnet_deploy.graph.report import check_report
from alexnet_deploy.model.calibrated import Calibration
from alexnet_deploy.model.checkpoints import CHECKPOINT_SUFFIXES, FACTORED, Checkpoint
from alexnet_deploy.model.ranges import check_range, largest_sum, magnitude
from alexnet_deploy.model.spec import SPEC_KEY, ModelSpec

try:
    import onnx
    from google.protobuf.message import DecodeError
    from onnx import TensorProto, helper
except ImportError as error:
    raise MissingPackageError("onnx", "cpu", "reading a model file") from error

_AGAIN = "export it again"
_MAX_BYTES = 2**31 - 1
"""Of a protobuf message."""


class RewrittenFileError(IncompatibleFileError):
    """A file whose graph or arrays are not those that a spec of ours gives, or that has no spec.

    Attributes:
        reason: what is different.
        precision: that the file states; fp32 where it states none.
    """

    def __init__(self, message: str, reason: str, precision: FilePrecision = "fp32") -> None:
        super().__init__(message)
        self.reason, self.precision = reason, precision


def read_model(path: Path) -> ModelFile:
    """Read an `.onnx` file that this version exported.

    Raises:
        RewrittenFileError: damaged, rewritten by another tool, or without our metadata.
        IncompatibleFileError: unreadable, truncated, or of another version.
        UsageError: the file is missing, or is a checkpoint.
    """
    existing_file(path, "an .onnx file")
    if path.suffix in CHECKPOINT_SUFFIXES:
        raise UsageError(f"{path}: is a checkpoint; export it first: alexnet-deploy export")
    model = parsed_model(path)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    _check_ours(model, metadata, path)
    source = str(path)
    spec = ModelSpec.from_json(metadata[SPEC_KEY], source)
    precision = _precision(metadata.get(PRECISION_KEY, ""), path)
    report = calibration = None
    if REPORT_KEY in metadata:
        report = json_object(metadata[REPORT_KEY], f"{path}: its report", _AGAIN)
        check_report(report, source, _AGAIN)
    if CALIBRATION_KEY in metadata:
        text = metadata[CALIBRATION_KEY]
        calibration = read_record(Calibration, text, f"{path}: its calibration", _AGAIN)
    try:
        arrays = arrays_of(model.graph.initializer)
        del model.graph.initializer[:]
        del model.metadata_props[:]
        file = ModelFile(
            graph=model,
            arrays=arrays,
            spec=spec,
            origin=metadata.get(CHECKPOINT_KEY, ""),
            content_sha256=metadata.get(CONTENT_KEY, ""),
            report=report,
            precision=precision,
            calibration=calibration,
            source=source,
        )
        _check_graph(file)
    except ValueError as error:
        raise RewrittenFileError(
            f"{path}: damaged, or rewritten by another tool ({error}); export it again, or "
            "compare it with its checkpoint: alexnet-deploy verify FILE --against CKPT",
            str(error),
            precision,
        ) from error
    return file


def parsed_model(path: Path) -> onnx.ModelProto:
    """Parse any `.onnx` file, arrays and metadata included; nothing of it is checked.

    Raises:
        IncompatibleFileError: not there, unreadable, truncated or too large.
    """
    try:
        size = os.stat(path).st_size
        if size > _MAX_BYTES:
            raise OSError(f"it has {size:,} bytes, more than {_MAX_BYTES:,}")
        return onnx.load_model_from_string(path.read_bytes())
    except (OSError, DecodeError) as error:
        raise IncompatibleFileError(
            f"{path}: not a readable ONNX file ({error}); export it again"
        ) from error


def _check_ours(model: onnx.ModelProto, metadata: Mapping[str, str], path: Path) -> None:
    """Reject a file of another program or another version, before anything else of it is read."""
    if SPEC_KEY not in metadata:
        name = printable(model.producer_name[:100])
        producer = f" (its producer is {name})" if name else ""
        raise RewrittenFileError(
            f"{path}: was not written by alexnet-deploy{producer}: it does not say how to prepare "
            "its input; if it is an AlexNet, take its weights: alexnet-deploy import FILE -o CKPT",
            "it has no spec",
        )
    version = metadata.get(GRAPH_VERSION_KEY, "1")
    if version != str(GRAPH_VERSION):
        raise IncompatibleFileError(
            f"{path}: its graph is of version {version[:20]}, this alexnet-deploy reads version "
            f"{GRAPH_VERSION}; export it again"
        )


def _precision(text: str, path: Path) -> FilePrecision:
    for precision in FILE_PRECISIONS:
        if text == precision:
            return precision
    raise IncompatibleFileError(
        f"{path}: its precision is {text[:20]!r}, this version knows {', '.join(FILE_PRECISIONS)}; "
        "export it again"
    )


def arrays_of(tensors: Collection[TensorProto]) -> dict[str, NDArray[Any]]:
    """Return initializers by name, as views of their own bytes.

    Raises:
        ValueError: two have one name, or one is not stored as `serialization` stores them.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for tensor in tensors:
        allowed = {"name", "dims", "data_type", "raw_data"}
        if {field.name for field, _ in tensor.ListFields()} - allowed or tensor.name in arrays:
            raise ValueError(f"array {tensor.name[:100]!r} is stored in another way")
        try:
            dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
        except KeyError as error:
            raise ValueError(f"array {tensor.name[:100]!r} is of an unknown type") from error
        data = tensor.raw_data
        if min(tensor.dims, default=0) < 0 or math.prod(tensor.dims) * dtype.itemsize != len(data):
            raise ValueError(f"array {tensor.name[:100]!r} does not have the size that it states")
        arrays[tensor.name] = np.frombuffer(data, dtype).reshape(tensor.dims)
    return arrays


def _check_graph(file: ModelFile) -> None:
    """Compare graph and arrays with what the spec, the precision and the outputs give.

    Raises:
        ValueError: naming what differs.
    """
    layers, outputs = file.spec.layer_shapes(), file.outputs()
    if not outputs or len(set(outputs) & layers.keys()) != len(outputs):
        raise ValueError("its outputs are no layers of the network")
    opset = next((entry.version for entry in file.graph.opset_import if not entry.domain), 0)
    if opset not in OPSETS:
        raise ValueError(f"its operators are of version {opset}")
    expected = _skeleton(file, outputs, opset)
    if canonical(file.graph) != canonical(expected.graph):
        raise ValueError("its graph is not the one that its spec gives")
    shapes = _shapes(file.spec, file.arrays)
    magnitudes: dict[str, float] = {}
    for name, like in expected.arrays.items():
        if name not in file.arrays:
            raise ValueError(f"array {name} is missing")
        array = file.arrays[name]
        shape = like.shape if follows_from_spec(name) else shapes.get(name, ())
        if array.shape != shape or array.dtype != like.dtype:
            raise ValueError(
                f"array {name} is {array.dtype} {list(array.shape)}, expected {like.dtype} "
                f"{list(shape)}"
            )
        # So does a mean of one pixel; a mean image is of the checkpoint.
        is_given = follows_from_spec(name) or (name == "mean" and shape == like.shape)
        if is_given and not np.array_equal(array, like):
            raise ValueError(f"array {name} does not follow from its spec")
        is_scale = name.endswith("_scale")
        if is_scale and not ((array >= SMALLEST_SCALE) & (array <= LARGEST_SCALE)).all():
            raise ValueError(f"array {name} holds scales that are not above 0, or too large")
        if array.dtype.kind not in "iu":
            magnitudes[name] = magnitude(array)
            if not math.isfinite(magnitudes[name]):
                raise ValueError(f"array {name} holds NaN or infinity")
    if extra := file.arrays.keys() - expected.arrays.keys():
        raise ValueError(f"array {min(extra)[:100]!r} is in no layer")
    _check_range(file, magnitudes)


def _check_range(file: ModelFile, magnitudes: Mapping[str, float]) -> None:
    """Reject a network that could overflow, by the magnitudes of its floating-point arrays."""
    sums = {}
    for name, array in file.arrays.items():
        weight = name.removesuffix("_int8")
        if weight != name:
            rows = array.reshape(len(array), -1).astype(np.int16)  # -128 has no magnitude in int8
            largest = np.abs(rows).max(1) * file.arrays[scale_name(weight)].astype(np.float64)
            sums[weight] = largest_sum(float(largest.max()), array.shape)
        elif name in magnitudes:
            sums[name] = largest_sum(magnitudes[name], array.shape)
    check_range(file.spec, sums, magnitudes["mean"], file.source)


def canonical(graph: onnx.ModelProto) -> bytes:
    """Return the bytes to compare: all but the version of the package that exported."""
    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    copy.ClearField("producer_version")
    content: bytes = copy.SerializeToString(deterministic=True)
    return content


def _skeleton(file: ModelFile, outputs: tuple[str, ...], opset: int) -> ModelFile:
    """Return what the spec of `file` gives, with arrays of the right types and next to no elements.

    The names of its arrays tell the factored layers.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for name, shape in file.spec.array_shapes().items():
        for part in _parts(name, file.arrays.keys()):
            # Of the shapes, only that of a kernel is in the graph.
            arrays[part] = np.zeros((1,) * min(len(shape), 2) + shape[2:], np.float32)
    wide = build_model(Checkpoint(spec=file.spec, arrays=arrays), outputs, opset)
    if file.precision == "fp32":
        return wide
    if file.precision == "int8":
        return quantize_model(wide, dict.fromkeys(quantized_tensors(wide), 1.0))
    return cast_model(wide, file.precision)


def _parts(name: str, names: Collection[str]) -> tuple[str, ...]:
    """Return the names under which an array of the spec is stored: its own, or two factors'."""
    left, right = f"{name}.left", f"{name}.right"
    is_factored = left in names or narrow_name(left, "int8") in names
    layer = name.split(".")[0]
    return (left, right) if layer in FACTORED and is_factored else (name,)


def _shapes(spec: ModelSpec, arrays: Mapping[str, NDArray[Any]]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all arrays that hold numbers of the checkpoint, or scales."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in spec.array_shapes().items():
        parts = _parts(name, arrays)
        if len(parts) == 1:
            shapes[name] = shape
            continue
        left, right = parts
        stored = arrays.get(left, arrays.get(narrow_name(left, "int8")))
        rank = max(1, stored.shape[-1]) if stored is not None and stored.ndim else 1
        shapes |= {left: (shape[0], rank), right: (rank, shape[1])}
    for name, shape in list(shapes.items()):
        shapes |= {narrow_name(name, "int8"): shape, scale_name(name): shape[:1]}
    size = spec.input_size
    mean = arrays.get("mean")
    is_image = mean is not None and mean.shape[2:] == (size, size)
    return shapes | {"mean": (1, 3, size, size) if is_image else (1, 3, 1, 1)}
