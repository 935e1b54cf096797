"""Describe a model in any form, vectors, or an index: identity, provenance, verification."""

import dataclasses
import math
import os
import textwrap
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from alexnet_deploy.errors import Argument, IncompatibleFileError, UsageError
from alexnet_deploy.files.input_files import existing_file
from alexnet_deploy.files.path_text import path_fields, printable
from alexnet_deploy.files.records import plain_fields
from alexnet_deploy.graph.coder_file import read_coder
from alexnet_deploy.graph.model_file import ModelFile, narrow_name
from alexnet_deploy.graph.reading import read_model
from alexnet_deploy.importing.opening import open_weights
from alexnet_deploy.index.coder import CoderRecord, coder_of
from alexnet_deploy.index.status import describe_index, readable_index
from alexnet_deploy.inference.vector_files import (
    SUFFIXES,
    describe_vectors,
    readable_vectors,
)
from alexnet_deploy.model.spec import ModelSpec
from alexnet_deploy.photographs.pixels import Decode
from alexnet_deploy.runtimes.engine_file import (
    ENGINE_SUFFIXES,
    NORMALIZED_BY,
    RTX_OWN_CHOICE,
    RUNTIME_NAMES,
    read_engine,
)


def describe(path: Path, *, check: bool = False) -> dict[str, Any]:
    """Read a file and describe it as JSON values.

    For a directory see `describe_index`, for vectors, `.npy`, `.json` or `.parquet`,
    `describe_vectors`. Of a coder: path, kind ("coder"), size_bytes, bits (of a code), widths (of
    its layers, the vector's first), and the fields of the vectors' `VectorSpace`. The others:

    Keys: path, kind ("checkpoint", "onnx" or "engine"), size_bytes, identity, preset, parameters
    (weights and biases of the dense network), spec (all of it but labels and provenance), layers
    (name to shape without the batch), labels, provenance. For "checkpoint" and "onnx" also arrays
    (name to "dtype shape"); for "onnx" and "engine" outputs, precision and report (the
    file's own word; None if never verified); for "onnx" unchanged (since it was exported) and
    calibration ("photographs" and "are_samples" of int8, None for other precisions); for
    "engine" the other fields of `EngineRecord`, and status. A path that is not UTF-8 comes
    with path_base64.

    Args:
        path: a checkpoint, an .onnx or .engine file, a coder, vectors, or the directory of an
            index.
        check: read an index completely, and name the problems.

    Raises:
        UsageError: the file is missing or not readable, or `check` is given for a file.
        IncompatibleFileError: not one of ours, or damaged.
    """
    if os.path.isdir(path):  # Path.is_dir raises if a name is too long
        return describe_index(path, check=check)
    if check:
        raise UsageError(
            f"{path}: ",
            Argument("check", True),
            " is for an index; for a model use alexnet-deploy verify",
        )
    existing_file(path, "a checkpoint, an .onnx or .engine file, vectors, or an index")
    is_sidecar = path.suffix == ".json" and Path(path.stem).suffix in ENGINE_SUFFIXES
    if path.suffix in SUFFIXES and not is_sidecar:
        return describe_vectors(path)
    if path.suffix in ENGINE_SUFFIXES:
        return _described_engine(path)
    if path.suffix == ".onnx":
        try:
            file = read_model(path)
        except IncompatibleFileError:
            with suppress(IncompatibleFileError):
                return _described_coder(path)
            raise
        return {
            **_described(path, "onnx", file.spec, file.identity),
            "arrays": _arrays(_as_stored(file)),
            "precision": file.precision,
            "calibration": file.calibration and dataclasses.asdict(file.calibration),
            "checkpoint": file.checkpoint_identity,
            "outputs": list(file.outputs()),
            "unchanged": file.is_unchanged(),
            "report": file.report,
        }
    checkpoint = open_weights(path)
    described = _described(path, "checkpoint", checkpoint.spec, checkpoint.identity)
    return {**described, "arrays": _arrays(checkpoint.arrays)}


def readable(description: dict[str, Any]) -> str:
    """Return `describe`'s result as text for a terminal, whatever the file's strings hold."""
    if description["kind"] == "index":
        return readable_index(description)
    if description["kind"] == "vectors":
        made = description["provenance"]
        vectors = [*readable_vectors(description), *(_readable_input(made["spec"]) if made else ())]
        return "\n".join(map(printable, vectors))
    if description["kind"] == "coder":
        return "\n".join(map(printable, _readable_coder(description)))
    spec = description["spec"]
    claimed = " (claimed: a plan hides its weights)" if description["kind"] == "engine" else ""
    lines = [
        f"{description['path']}: {description['kind']}, {description['size_bytes'] / 1e6:.1f} MB",
        f"  identity      {description['identity']}{claimed}",
        f"  network       {description['preset']} AlexNet, {len(description['labels'])} labels, "
        f"{description['parameters']:,} parameters",
        *_readable_input(spec),
        f"  normalization {_normalization(spec['lrn'])}",
    ]
    if description["kind"] == "engine":
        lines += _readable_engine(description)
    else:
        lines.append(f"  stored as     {_stored(description['arrays'])}")
    if "outputs" in description:
        calibration = description.get("calibration")
        if calibration is not None:
            whose = " of the package's samples" if calibration["are_samples"] else ""
            lines.append(f"  calibration   on {calibration['photographs']:,} photographs{whose}")
        lines.append(f"  outputs       {', '.join(description['outputs'])}")
        lines.append(f"  verification  {_verification(description)}")
    labels = description["labels"]
    if labels:
        lines.append(f"  labels        {', '.join(labels[:6])}{', ...' if len(labels) > 6 else ''}")
    for key, value in description["provenance"].items():
        text = printable(f"  {key:<13} {_flat(value)}")
        lines += textwrap.wrap(text, 100, subsequent_indent=" " * 16, break_long_words=False)
    return "\n".join(map(printable, lines))


def _readable_input(spec: dict[str, Any]) -> list[str]:
    size, preprocessing = spec["input_size"], spec["preprocessing"]
    return [
        f"  input         RGB {size}x{size}; {preprocessing['resize'].replace('_', ' ')} to "
        f"{preprocessing['resize_to']} px ({preprocessing['filter']}), centre crop",
        f"  mean, std     {_numbers(preprocessing['mean'])}; {_numbers(preprocessing['std'])}",
    ]


def _described(path: Path, kind: str, spec: ModelSpec, identity: str) -> dict[str, Any]:
    return {
        **path_fields(path),
        "kind": kind,
        "size_bytes": path.stat().st_size,
        "identity": identity,
        "preset": spec.preset,
        "parameters": sum(math.prod(shape) for shape in spec.array_shapes().values()),
        "spec": spec.result_fields(),
        "layers": {name: list(shape) for name, shape in spec.layer_shapes().items()},
        "labels": list(spec.labels),
        "provenance": dict(spec.provenance),
    }


def _as_stored(file: ModelFile) -> dict[str, NDArray[Any]]:
    """Return the file's weights as stored, int8 included."""
    weights = file.weights().arrays
    return {
        name: file.arrays.get(narrow_name(name, "int8"), array) for name, array in weights.items()
    }


def _arrays(arrays: Mapping[str, NDArray[Any]]) -> dict[str, str]:
    return {name: f"{array.dtype.name} {list(array.shape)}" for name, array in arrays.items()}


def _described_coder(path: Path) -> dict[str, Any]:
    file = read_coder(path)
    widths = list(coder_of(file).widths)
    return {
        **path_fields(path),
        "kind": "coder",
        "size_bytes": path.stat().st_size,
        "bits": widths[-1],
        "widths": widths,
        **plain_fields(CoderRecord.of(file, str(path)).space),
    }


def _readable_coder(description: dict[str, Any]) -> list[str]:
    return [
        f"{description['path']}: coder, {description['size_bytes'] / 1e6:.1f} MB",
        f"  codes         {description['bits']} bits, by layers of "
        f"{', '.join(map(str, description['widths']))} numbers",
        f"  of vectors    {description['layer']}, {description['precision']}, decoded by "
        f"{Decode(**description['decode'])}",
        f"  identity      {description['identity']}",
    ]


def _described_engine(path: Path) -> dict[str, Any]:
    """Describe an engine by its record; its weights cannot be seen."""
    record = read_engine(path).record
    return {
        **_described(path, "engine", record.spec, record.identity),
        "checkpoint": record.checkpoint,
        "runtime": record.runtime,
        "runtime_version": record.runtime_version,
        "cuda_version": record.cuda_version,
        "gpu_name": record.gpu_name,
        "compute_capabilities": list(record.compute_capabilities),
        "profile": dataclasses.asdict(record.profile),
        "precision": record.precision,
        "lrn": record.lrn,
        "plugin_sha256": record.plugin_sha256,
        "version_compatible": record.version_compatible,
        "hardware_compatibility": record.hardware_compatibility,
        "outputs": list(record.outputs),
        "status": record.status,
        "report": record.report,
    }


def _readable_engine(description: dict[str, Any]) -> list[str]:
    profile = description["profile"]
    name, capabilities = description["gpu_name"], description["compute_capabilities"]
    gpus = [name] if name else []
    gpus += [f"compute capability {' or '.join(capabilities)}"] if capabilities else []
    library = f"{RUNTIME_NAMES[description['runtime']]} {description['runtime_version']}"
    if description["version_compatible"]:
        library += " and later"
    level = description["hardware_compatibility"]
    if level != "none":
        gpus.append(f"compatible at TensorRT's level {level}")
    return [
        f"  engine        {library}, {description['precision']}, batches of {profile['min']} to "
        f"{profile['max']}, best at {profile['opt']}; {NORMALIZED_BY[description['lrn']]}",
        f"  runs on       {', '.join(gpus) or RTX_OWN_CHOICE}",
    ]


def _flat(value: object) -> str:
    """Return nested JSON as readable text."""
    if isinstance(value, dict):
        return ", ".join(f"{key.replace('_', ' ')}: {_flat(part)}" for key, part in value.items())
    return str(value)


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.2f}" for value in values)


def _normalization(lrn: dict[str, Any] | None) -> str:
    if lrn is None:
        return "none"
    where = "before" if lrn["position"] == "before_pool" else "after"
    towers = f"within each of {lrn['towers']} towers" if lrn["towers"] > 1 else "all channels"
    constants = f"k={lrn['k']:g} n={lrn['size']} alpha={lrn['alpha']:g}/n beta={lrn['beta']:g}"
    return f"LRN {constants}, {towers}, {where} pooling"


def _stored(arrays: dict[str, str]) -> str:
    kinds = sorted({line.split()[0] for line in arrays.values()})
    factored = sorted({name.split(".")[0] for name in arrays if name.endswith(".left")})
    return ", ".join(kinds) + (f"; {' and '.join(factored)} as two factors" if factored else "")


def _verification(description: dict[str, Any]) -> str:
    if not description.get("unchanged", True):
        return "CHANGED since it was exported: copy it again or export it again"
    report = description["report"]
    if report is None and description["kind"] == "engine":
        return f"{description['status']}; run: alexnet-deploy verify FILE --against CKPT"
    if report is None:
        return "never verified; run: alexnet-deploy verify FILE"
    verdict = "passed" if report["passed"] else "FAILED"
    return (
        f"says that it {verdict} on {report['num_photographs']} photographs, {report['runs']}; "
        "to be sure run: alexnet-deploy verify FILE --against CKPT"
    )
