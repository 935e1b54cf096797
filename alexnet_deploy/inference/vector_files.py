"""Describe vectors that `embed` wrote: `.npy`, its record `.json`, or `.parquet`."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_deploy.errors import IncompatibleFileError
from alexnet_deploy.files.path_text import path_fields
from alexnet_deploy.files.regular_files import read_file
from alexnet_deploy.inference.activations import STORED
from alexnet_deploy.inference.provenance import Provenance, StoredLayer, record_path
from alexnet_deploy.model.calibrated import readable_ranges
from alexnet_deploy.photographs.suffixes import describe_left_out

SUFFIXES = (".npy", ".json", ".parquet")
_AGAIN = "embed the photographs again"


@dataclass(frozen=True, slots=True)
class _Array:
    """What an `.npy` says of itself in its header."""

    shape: tuple[int, ...]
    dtype: str


def describe_vectors(path: Path) -> dict[str, Any]:
    """Return what a file of vectors, or its record, says of them, as JSON values.

    Keys: path, kind ("vectors"), size_bytes, provenance (the fields of a `Provenance`; None for an
    `.npy` without its record), shape and dtype (of an `.npy`; None for the others), missing (files
    that belong to an `.npy` and are not there). A path that is not UTF-8 comes with path_base64.

    Args:
        path: of an existing file with one of `SUFFIXES`.

    Raises:
        IncompatibleFileError: damaged, none of ours, or an array that is not that of its record.
        MissingPackageError: a `.parquet` without pyarrow.
    """
    described: dict[str, Any] = {
        **path_fields(path),
        "kind": "vectors",
        "size_bytes": os.path.getsize(path),
        "provenance": None,
        "shape": None,
        "dtype": None,
        "missing": [],
    }
    if path.suffix == ".json":
        made = Provenance.from_json(read_file(path, _AGAIN), str(path))
        return described | {"provenance": made.fields()}
    if path.suffix == ".parquet":
        from alexnet_deploy.inference.parquet_files import read_provenance

        return described | {"provenance": read_provenance(path).fields()}
    array = _header(path)
    described |= {"shape": list(array.shape), "dtype": array.dtype}
    record, layer = _record_of(path)
    paths = record.with_suffix(".paths.jsonl")
    described["missing"] = [str(file) for file in (record, paths) if not file.is_file()]
    if layer is not None or record.is_file():
        made = Provenance.from_json(read_file(record, _AGAIN), str(record))
        _check(path, array, record, made, layer)
        described["provenance"] = made.fields()
    return described


def readable_vectors(description: Mapping[str, Any]) -> list[str]:
    """Return the lines of `describe_vectors` for people."""
    size = f"{description['size_bytes'] / 1e6:.1f} MB"
    lines = [f"{description['path']}: vectors, {size}"]
    if description["shape"] is not None:
        shape = " x ".join(f"{number:,}" for number in description["shape"])
        lines.append(f"  array         {shape} {description['dtype']}")
    made = description["provenance"]
    if made is not None:
        lines += _readable_provenance(made)
    if description["missing"]:
        lines.append(f"  missing       {', '.join(description['missing'])}")
    if made is None:
        lines.append("  provenance    not known: it is in the .json beside the .npy")
    return lines


def _readable_provenance(made: Mapping[str, Any]) -> list[str]:
    network = f" ({made['network']})" if made["network"] else ""
    decode = made["decode"]
    left_out = describe_left_out(made["left_out"])
    return [
        f"  rows          {made['num_rows']:,}, of which {made['num_failed']:,} failed",
        *(f"  layer         {_readable_layer(layer, made['dtype'])}" for layer in made["layers"]),
        f"  identity      {made['identity']}{network}",
        f"  decode        {_flat(decode)}",
        *readable_ranges(made.get("ranges")),
        f"  computed in   {made['precision']} by {made['runtime']} {made['runtime_version']} on "
        f"{made['device']}",
        f"  made by       {made['tool']} {made['tool_version']}, {made['date']}",
        f"  command       {' '.join(made['command'])}",
        *([f"  {left_out}"] if left_out else []),
    ]


def _readable_layer(layer: Mapping[str, Any], dtype: str) -> str:
    shape = " x ".join(f"{number:,}" for number in layer["shape"])
    relu = "" if layer["relu"] == "none" else f", {layer['relu']} its ReLU"
    pool = "" if layer["pool"] == "none" else f", the {layer['pool']} of each map"
    return f"{layer['name']}, {shape} {dtype}{relu}{pool}"


def _flat(fields: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {json.dumps(fields[name])}" for name in fields)


def _header(path: Path) -> _Array:
    try:
        # Mapped, not read: its length is compared with the header's.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        return _Array(array.shape, array.dtype.name)
    except Exception as error:  # of a damaged header whatever Python's tokenizer raises, too
        # NumPy would advise to load it in a way that runs code from the file.
        is_foreign = "pickle" in str(error)
        reason = "it holds no array" if is_foreign else " ".join(str(error).split())[:200]
        raise IncompatibleFileError(
            f"{path}: cannot be read as .npy ({reason}); restore it from a copy, or {_AGAIN}"
        ) from error


def _record_of(path: Path) -> tuple[Path, str | None]:
    """Return where the record of an `.npy` is, and whose layer the array is by its name, if any.

    `vectors.fc7.npy` is an array of several of `vectors.json`, or the only one of
    `vectors.fc7.json`.
    """
    own = record_path(path)
    shared, _, layer = path.stem.rpartition(".")
    beside = path.with_name(f"{shared}.json")
    if not own.is_file() and shared and beside.is_file():
        return beside, layer
    return own, None


def _check(path: Path, array: _Array, record: Path, made: Provenance, layer: str | None) -> None:
    """Reject an array that is not the one of its record."""
    layers = {each.name: each for each in made.layers}
    stored: StoredLayer | None = layers.get(layer) if layer else made.layers[0]
    # `embed` names the array by its layer where there are several, and then only.
    if stored is None or (layer is None) != (len(layers) == 1):
        raise IncompatibleFileError(
            f"{path}: {record} is of {', '.join(layers)}, and of no array of this name; restore "
            f"both from a copy, or {_AGAIN}"
        )
    expected = _Array((made.num_rows, *stored.shape), STORED[made.dtype].name)
    if array != expected:
        raise IncompatibleFileError(
            f"{path}: is {array.shape} of {array.dtype}, and {record} says {expected.shape} of "
            f"{expected.dtype}, so they are not of one run; restore both from a copy, or {_AGAIN}"
        )
