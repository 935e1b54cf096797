"""Read a directory as the Hugging Face hub has it: a file of weights, or an index of shards."""

import os
from collections.abc import Mapping
from pathlib import Path

from alexnet_deploy.errors import IncompatibleFileError
from alexnet_deploy.files.records import json_object
from alexnet_deploy.files.regular_files import read_file
from alexnet_deploy.importing.containers import container_of
from alexnet_deploy.importing.source import Array
from alexnet_deploy.model.checkpoints import read_arrays

# In the order in which transformers looks for them.
_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_AGAIN = "download the directory again"


def read_directory(folder: Path) -> tuple[Mapping[str, Array], str]:
    """Return the arrays of a directory, and what kind it is.

    Its files may be links, as in a cached snapshot.

    Raises:
        IncompatibleFileError: no weights in it, a shard is missing or damaged.
        MissingPackageError: its weights are torch's, and torch is not installed.
    """
    found = next((folder / name for name in _FILES if os.path.isfile(folder / name)), None)
    if found is None:
        raise IncompatibleFileError(
            f"{folder}: holds none of {', '.join(_FILES)}; give the file with the weights"
        )
    if found.suffix != ".json":
        return _arrays(found), f"directory with {found.name}"
    arrays: dict[str, Array] = {}
    shards = _shards(found)
    for shard in shards:
        path = folder / shard
        if not os.path.isfile(path):  # which no name is too long for
            raise IncompatibleFileError(f"{path}: is missing, {found.name} names it; {_AGAIN}")
        arrays |= _arrays(path)
    return arrays, f"directory with {len(shards)} shards"


def _shards(index: Path) -> list[str]:
    """Return the names of the shards, each of a file beside the index."""
    fields = json_object(read_file(index, _AGAIN), str(index), _AGAIN)
    weights = fields.get("weight_map")
    values = weights.values() if isinstance(weights, dict) else ()
    names = sorted({value for value in values if isinstance(value, str)})
    if not names or any(Path(name).name != name for name in names):
        raise IncompatibleFileError(
            f"{index}: its weight_map does not name files beside it; {_AGAIN}"
        )
    return names


def _arrays(path: Path) -> Mapping[str, Array]:
    kind = container_of(path)
    if kind not in ("torch", "safetensors"):
        raise IncompatibleFileError(
            f"{path}: is of the kind {kind!r}, expected safetensors or torch; import it by itself"
        )
    arrays, _ = read_arrays(path, kind)
    return arrays
