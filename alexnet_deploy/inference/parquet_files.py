"""Write embeddings as Parquet, row group by row group; owns pyarrow.

Columns: `id` (int64, the row from 0), `path` (string), `path_base64` (string, null if the path is
valid UTF-8), then per layer a fixed-size list of float32; maps are flattened in (C, H, W) order,
their shape is in the field's metadata. The schema's metadata identifies the model:
`alexnet_deploy.spec` (`ModelSpec.to_json`), `alexnet_deploy.identity`, `alexnet_deploy.precision`,
the arithmetic of the network, and `alexnet_deploy.decode`, how files became pixels; vectors are
comparable if identity, precision and decode are the same. `alexnet_deploy.format` is 2.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.errors import MissingPackageError
from alexnet_deploy.files.path_text import path_base64, path_utf8
from alexnet_deploy.model.spec import ModelSpec
from alexnet_deploy.photographs.pixels import Decode

try:
    import pyarrow
    import pyarrow.parquet
except ImportError as error:
    raise MissingPackageError("pyarrow", "parquet", "writing .parquet") from error

FORMAT = 2

# Large enough to compress and scan well, small compared with the runner's memory.
_ROW_GROUP_BYTES = 16 * 2**20

Row = tuple[Path, Mapping[str, NDArray[np.float32]]]


@contextmanager
def parquet_rows(
    file: BinaryIO,
    spec: ModelSpec,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    identity: str,
    precision: str,
    decode: Decode,
) -> Iterator[Callable[[Path, Mapping[str, NDArray[np.float32]]], None]]:
    """Write a Parquet file to `file`; yields a function that appends one row.

    Args:
        file: open in binary mode for writing; left open.
        spec: of the model that computes the vectors.
        shapes: shape of one photograph's array per layer, in column order.
        identity: of the model.
        precision: arithmetic of the network, not "auto".
        decode: how files become pixels.
    """
    model = {
        "alexnet_deploy.format": str(FORMAT),
        "alexnet_deploy.spec": spec.to_json(),
        "alexnet_deploy.identity": identity,
        "alexnet_deploy.precision": precision,
        "alexnet_deploy.decode": json.dumps(dataclasses.asdict(decode)),
    }
    schema = _schema(shapes).with_metadata(model)
    row_bytes = 4 * sum(_size(shape) for shape in shapes.values())
    group_rows = max(1, _ROW_GROUP_BYTES // row_bytes)
    writer = pyarrow.parquet.ParquetWriter(
        file, schema, compression="zstd", use_dictionary=["path"]
    )
    pending: list[Row] = []
    num_written = 0

    def flush() -> None:
        nonlocal num_written
        if pending:
            writer.write_table(_table(schema, num_written, pending, shapes))
            num_written += len(pending)
            pending.clear()

    def append(path: Path, outputs: Mapping[str, NDArray[np.float32]]) -> None:
        pending.append((path, outputs))
        if len(pending) >= group_rows:
            flush()

    try:
        yield append
        flush()
        writer.close()
    finally:
        # Its destructor would write a footer to a file that is already closed.
        writer.is_open = False


def _size(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape))


def _schema(shapes: Mapping[str, tuple[int, ...]]) -> "pyarrow.Schema":
    fields = [
        pyarrow.field("id", pyarrow.int64(), nullable=False),
        pyarrow.field("path", pyarrow.string(), nullable=False),
        pyarrow.field("path_base64", pyarrow.string()),
    ]
    for layer, shape in shapes.items():
        vector = pyarrow.list_(pyarrow.float32(), _size(shape))
        metadata = {"alexnet_deploy.shape": json.dumps(shape)}
        fields.append(pyarrow.field(layer, vector, nullable=False, metadata=metadata))
    return pyarrow.schema(fields)


def _table(
    schema: "pyarrow.Schema", first_id: int, rows: list[Row], shapes: Mapping[str, tuple[int, ...]]
) -> "pyarrow.Table":
    """Return a row group, copying the arrays once."""
    columns = [
        pyarrow.array(range(first_id, first_id + len(rows)), pyarrow.int64()),
        pyarrow.array([path_utf8(path) for path, _ in rows], pyarrow.string()),
        pyarrow.array([path_base64(path) for path, _ in rows], pyarrow.string()),
    ]
    for layer, shape in shapes.items():
        values = np.concatenate([outputs[layer].reshape(-1) for _, outputs in rows])
        vectors = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(values), _size(shape))
        columns.append(vectors)
    return pyarrow.Table.from_arrays(columns, schema=schema)
