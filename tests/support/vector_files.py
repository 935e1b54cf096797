"""Files of vectors for the tests of indexes: as `embed` writes them, and as other programs do."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from alexnet_deploy.index.imported import ImportReport, import_files
from alexnet_deploy.index.model import ModelRequest
from alexnet_deploy.inference.embeddings import EmbedOptions, embed
from alexnet_deploy.runtimes.base import RunnerOptions
from tests.support.index_runner import LAYER, IndexRunner, Runners

MADE_BY = "clip-ViT-B/32"


def embedded(runners: Runners, photographs: Sequence[Path], output: Path) -> Path:
    """Write the vectors of photographs as `embed` does, and return the file."""
    runner = IndexRunner(runners, RunnerOptions(outputs=(LAYER,)))
    embed(runner, photographs, output, EmbedOptions(layers=(LAYER,)), threads=1)
    return output


def random_vectors(num_rows: int, dimension: int, seed: int = 0) -> NDArray[np.float32]:
    """Return (N, D) float32 that float16 holds exactly."""
    vectors = np.random.default_rng(seed).normal(size=(num_rows, dimension))
    return vectors.astype(np.float16).astype(np.float32)


def write_shards(
    folder: Path, shards: Sequence[NDArray[Any]], names: Sequence[Sequence[str]]
) -> Path:
    """Write arrays, (N, D) each, and names as clip-retrieval does, and return the folder."""
    for part in ("img_emb", "metadata"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for number, (vectors, some) in enumerate(zip(shards, names, strict=True)):
        np.save(folder / "img_emb" / f"img_emb_{number}.npy", vectors)
        columns = {"image_path": [f"{row:09}" for row in range(len(some))], "url": list(some)}
        write_columns(folder / "metadata" / f"metadata_{number}.parquet", columns)
    return folder


def write_columns(path: Path, columns: Mapping[str, Any]) -> Path:
    """Write a Parquet file with these columns, 500 rows a group, and return it."""
    pq.write_table(pa.table(dict(columns)), path, row_group_size=500)
    return path


def take_in(
    directory: Path, *sources: Path, layer: str | None = None, **options: Any
) -> ImportReport:
    """Run `import_files`; `options` are its others."""
    return import_files(directory, sources, ModelRequest(layer=layer), **options)


def outcome(report: ImportReport) -> tuple[int, int, int, int]:
    """Return what was imported, unchanged, replaced and failed, in the order of `line`."""
    return (
        report.num_imported,
        report.num_unchanged,
        report.num_replaced,
        report.num_failed,
    )
