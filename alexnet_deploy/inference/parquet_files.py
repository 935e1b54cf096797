"""Vectors as Parquet, row group by row group; owns pyarrow.

Columns: `id` (int64, the row from 0), `path` (string), `path_base64` (string, null if the path is
valid UTF-8), `error` (string, null unless the photograph could not be read), then per layer a
list of float32 or float16, null where there is an error; maps are flattened in (C, H, W) order,
their shape is in the field's metadata. The lists are not of Arrow's fixed size: before pyarrow 26
those can be neither written nor read if one is null. The schema's metadata has a `Provenance` as
JSON under `alexnet_deploy.provenance`.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from alexnet_deploy.errors import IncompatibleFileError, MissingPackageError
from alexnet_deploy.files.output_files import atomic_write
from alexnet_deploy.files.path_text import path_base64, path_utf8, printable
from alexnet_deploy.inference.partial_rows import RowGroup
from alexnet_deploy.inference.provenance import Provenance, StoredLayer

try:
    import pyarrow
    import pyarrow.parquet
except ImportError as error:
    raise MissingPackageError("pyarrow", "parquet", "a .parquet file") from error

PROVENANCE_KEY = b"alexnet_deploy.provenance"
LEADING = (
    pyarrow.field("id", pyarrow.int64(), nullable=False),
    pyarrow.field("path", pyarrow.string(), nullable=False),
    pyarrow.field("path_base64", pyarrow.string()),
    pyarrow.field("error", pyarrow.string()),
)
"""The columns before the vectors."""


def write_parquet(path: Path, made: Provenance, groups: Iterable[RowGroup]) -> None:
    """Write a Parquet file, which appears when it is whole.

    Args:
        path: replaced if it exists.
        made: the record of the vectors.
        groups: the rows, each group a row group.

    Raises:
        OutputError: it cannot be written.
    """
    with atomic_write(path) as file:
        _write(file, made, groups)


def _write(file: BinaryIO, made: Provenance, groups: Iterable[RowGroup]) -> None:
    schema = _schema(made)
    num_written = 0
    with parquet_writer(file, schema) as writer:
        for group in groups:
            writer.write_table(_table(schema, num_written, group, made.layers))
            num_written += len(group.paths)


@contextmanager
def parquet_writer(
    file: BinaryIO, schema: "pyarrow.Schema"
) -> Iterator["pyarrow.parquet.ParquetWriter"]:
    """Yield what writes row groups to a file, whose end it writes when the block succeeds."""
    writer = pyarrow.parquet.ParquetWriter(
        file, schema, compression="zstd", use_dictionary=["path"]
    )
    try:
        yield writer
        writer.close()
    finally:
        # Its destructor would write a footer to a file that is already closed.
        writer.is_open = False


def read_provenance(path: Path) -> Provenance:
    """Return the record of the vectors in a Parquet file.

    Raises:
        IncompatibleFileError: damaged, or without such a record.
    """
    with parquet_errors(path), pyarrow.parquet.ParquetFile(path) as file:
        schema, num_rows = file.schema_arrow, file.metadata.num_rows
    content = (schema.metadata or {}).get(PROVENANCE_KEY)
    if content is None:
        raise IncompatibleFileError(
            f"{path}: does not say how its vectors were made (alexnet_deploy.provenance is "
            "missing), so embed of this version has not written it; embed the photographs again"
        )
    made = Provenance.from_json(content, str(path))
    if num_rows != made.num_rows or not schema.equals(_schema(made)):
        raise IncompatibleFileError(
            f"{path}: its columns or its {num_rows:,} rows are not those of its record; restore it "
            "from a copy"
        )
    return made


def _schema(made: Provenance) -> "pyarrow.Schema":
    fields = list(LEADING)
    number = {"float32": pyarrow.float32(), "float16": pyarrow.float16()}[made.dtype]
    for layer in made.layers:
        vector = pyarrow.list_(number)
        metadata = {"alexnet_deploy.shape": json.dumps(layer.shape)}
        fields.append(pyarrow.field(layer.name, vector, metadata=metadata))
    return pyarrow.schema(fields).with_metadata({PROVENANCE_KEY: made.to_json()})


def _table(
    schema: "pyarrow.Schema", first_id: int, group: RowGroup, layers: tuple[StoredLayer, ...]
) -> "pyarrow.Table":
    """Return a row group."""
    ids = range(first_id, first_id + len(group.paths))
    columns = leading_columns(ids, group.paths, group.errors)
    are_null = np.array([error is not None for error in group.errors])
    ends = np.cumsum(~are_null)
    for layer, array in zip(layers, group.arrays, strict=True):
        values = pyarrow.array(np.ravel(array[~are_null]))
        # A null among the offsets is a null in the list.
        starts = np.concatenate([[0], ends]).astype(np.int32) * _size(layer.shape)
        offsets = pyarrow.array(starts, mask=np.append(are_null, False))
        columns.append(pyarrow.ListArray.from_arrays(offsets, values))
    return pyarrow.Table.from_arrays(columns, schema=schema)


def leading_columns(
    ids: Sequence[int], paths: Sequence[Path | str], errors: Sequence[str | None]
) -> list["pyarrow.Array"]:
    """Return the columns of `LEADING`."""
    return [
        pyarrow.array(ids, pyarrow.int64()),
        pyarrow.array(map(path_utf8, paths), pyarrow.string()),
        pyarrow.array(map(path_base64, paths), pyarrow.string()),
        pyarrow.array([error and printable(error) for error in errors], pyarrow.string()),
    ]


@contextmanager
def parquet_errors(path: Path) -> Iterator[None]:
    """Turn what pyarrow raises in the block while it reads a file into an error of ours."""
    try:
        yield
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise IncompatibleFileError(
            f"{path}: cannot be read as Parquet ({reason}); restore it from a copy"
        ) from error


def _size(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape))
