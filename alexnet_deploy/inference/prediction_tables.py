"""Write predictions as Parquet; owns pyarrow, as `parquet_files` does for vectors."""

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from alexnet_deploy.errors import MissingPackageError
from alexnet_deploy.files.path_text import path_base64, path_utf8

try:
    import pyarrow
    import pyarrow.parquet
except ImportError as error:
    raise MissingPackageError("pyarrow", "parquet", "writing .parquet") from error

_CHUNK = 10_000  # rows in memory at a time
_NUMBERS = {
    "index": pyarrow.int64(),
    "rank": pyarrow.int64(),
    "probability": pyarrow.float32(),
    "top1": pyarrow.float64(),
    "top5": pyarrow.float64(),
}


def write_table(file: BinaryIO, rows: Iterator[Mapping[str, Any]], metadata: str) -> None:
    """Write rows, some at a time, as row groups.

    Args:
        file: open in binary mode for writing; left open.
        rows: one or more, all with the columns of `prediction_files`.
        metadata: of the schema, as `alexnet_deploy.evaluation`.
    """
    first = _row(next(rows))
    schema = pyarrow.schema([(name, _type(name)) for name in first])
    schema = schema.with_metadata({"alexnet_deploy.evaluation": metadata})
    rest = itertools.chain([first], map(_row, rows))
    writer = pyarrow.parquet.ParquetWriter(file, schema, compression="zstd")
    try:
        while chunk := list(itertools.islice(rest, _CHUNK)):
            writer.write_table(pyarrow.Table.from_pylist(chunk, schema))
        writer.close()
    finally:
        # Its destructor would write a footer to a file that is already closed.
        writer.is_open = False


def _type(name: str) -> "pyarrow.DataType":
    return _NUMBERS.get(re.sub(r"^true_|^compared_|_\d$", "", name), pyarrow.string())


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    path = {"path": path_utf8(row["path"]), "path_base64": path_base64(row["path"])}
    # What is not UTF-8 may be in the name of a class's folder.
    texts = {
        name: value.encode("utf-8", "backslashreplace").decode()
        for name, value in row.items()
        if isinstance(value, str)
    }
    return path | {name: value for name, value in row.items() if name != "path"} | texts
