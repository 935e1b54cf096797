"""Vectors to experiment with, from files of `alexnet-deploy embed` or from photographs.

N vectors of D numbers.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow.parquet
from numpy.typing import NDArray

from alexnet_deploy.console.reporting import say
from alexnet_deploy.errors import IncompatibleFileError, UsageError
from alexnet_deploy.export.opening import open_runner_of
from alexnet_deploy.files.regular_files import read_file
from alexnet_deploy.index.compression import has_direction
from alexnet_deploy.index.manifest import VectorSpace, vector_space
from alexnet_deploy.inference.embeddings import EmbedOptions, embed
from alexnet_deploy.inference.parquet_files import read_provenance
from alexnet_deploy.inference.provenance import Provenance, record_path
from alexnet_deploy.photographs.finding import find_photographs
from alexnet_deploy.photographs.pixels import Decode
from alexnet_deploy.runtimes.base import RunnerOptions

_AGAIN = "embed the photographs again"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Vectors:
    """Photographs' vectors that have a direction.

    Attributes:
        space: what they are.
        rows: (N, D) float16, as an index keeps them.
        classes: (N,) names.
    """

    space: VectorSpace
    rows: NDArray[np.float16]
    classes: NDArray[np.str_]

    def select(self, chosen: NDArray[np.bool_]) -> "Vectors":
        """Return some of them."""
        return Vectors(space=self.space, rows=self.rows[chosen], classes=self.classes[chosen])


def read_vectors(paths: Sequence[Path]) -> Vectors:
    """Read files of vectors, and embed the photographs of folders as `index` does by default.

    Raises:
        UsageError: a file of another kind, or of several layers.
        IncompatibleFileError: a file is damaged, or its vectors are of another space.
    """
    parts = [_read(path) for path in paths]
    for path, part in zip(paths, parts, strict=True):
        if part.space != parts[0].space:
            raise IncompatibleFileError(
                f"{path}: its vectors are of another network, layer, precision or decoding than "
                f"those of {paths[0]}; embed both in the same way"
            )
    return Vectors(
        space=parts[0].space,
        rows=np.concatenate([part.rows for part in parts]),
        classes=np.concatenate([part.classes for part in parts]),
    )


def _read(path: Path) -> Vectors:
    if path.is_dir():
        return _embedded(path)
    if path.suffix == ".parquet":
        made = read_provenance(path)
        layer = made.layers[0].name
        table = pyarrow.parquet.read_table(path, columns=["path", layer]).drop_null()
        names = table["path"].to_pylist()
        rows = table[layer].combine_chunks().flatten().to_numpy().reshape(len(names), -1)
    elif path.suffix == ".npy":
        made, names, rows = _read_npy(path)
    else:
        raise UsageError(f"{path}: expected a .parquet or .npy file of vectors, or a folder")
    return _vectors(made, rows, [Path(name).parent.name for name in names], path)


def _read_npy(path: Path) -> tuple[Provenance, list[str], NDArray[np.floating]]:
    try:
        made = Provenance.from_json(read_file(record_path(path), _AGAIN), str(path))
        lines = path.with_suffix(".paths.jsonl").read_text("utf-8").splitlines()
        names = [json.loads(line)["path"] for line in lines]
        return made, names, np.load(path, allow_pickle=False).reshape(len(names), -1)
    except FileNotFoundError as error:
        raise UsageError(f"{error.filename}: no such file; {_AGAIN}") from error


def _vectors(
    made: Provenance, rows: NDArray[np.floating], classes: list[str], path: Path
) -> Vectors:
    space = vector_space(
        made.spec,
        identity=made.identity,
        layer=made.layers[0].name,
        precision=made.precision,
        decode=made.decode,
        ranges=made.ranges,
    )
    if len(made.layers) > 1 or rows.shape[1] != space.dimension:
        raise UsageError(f"{path}: expected vectors of one layer, not pooled; embed those")
    narrow = rows.astype(np.float16)
    usable = has_direction(narrow)
    return Vectors(space=space, rows=narrow[usable], classes=np.array(classes)[usable])


def _embedded(folder: Path) -> Vectors:
    with TemporaryDirectory() as temporary:
        output = Path(temporary) / "vectors.parquet"
        as_in_an_index = EmbedOptions(decode=Decode.of("scaled"))
        with open_runner_of(None, RunnerOptions(outputs=("fc7",)), notify=say) as runner:
            embed(runner, find_photographs([folder]), output, as_in_an_index, notify=say)
        return _read(output)
