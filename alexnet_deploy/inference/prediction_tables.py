"""Write predictions as Parquet; owns pyarrow, as `parquet_files` does for vectors."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from alexnet_deploy.errors import MissingPackageError
from alexnet_deploy.files.path_text import path_base64, path_utf8

try:
    import pyarrow
    import pyarrow.parquet
except ImportError as error:
    raise MissingPackageError("pyarrow", "parquet", "writing .parquet") from error


def write_table(
    file: BinaryIO,
    chunks: Iterator[Mapping[str, np.ma.MaskedArray[Any, Any]]],
    metadata: str,
) -> None:
    """Write columns chunk by chunk, one row group each.

    Args:
        file: open in binary mode for writing; left open.
        chunks: one or more, of `path`, objects that are texts, and numbers; what is masked is null.
        metadata: of the schema, as `alexnet_deploy.evaluation`.
    """
    writer = None
    try:
        for columns in chunks:
            table = pyarrow.table(_arrays(columns))
            if writer is None:
                schema = table.schema.with_metadata({"alexnet_deploy.evaluation": metadata})
                writer = pyarrow.parquet.ParquetWriter(file, schema, compression="zstd")
            writer.write_table(table.cast(writer.schema))
        if writer is not None:
            writer.close()
    finally:
        if writer is not None:
            # Its destructor would write a footer to a file that is already closed.
            writer.is_open = False


def _arrays(columns: Mapping[str, np.ma.MaskedArray[Any, Any]]) -> dict[str, "pyarrow.Array"]:
    arrays = {}
    for name, column in columns.items():
        if name == "path":
            paths: list[Path] = column.tolist()
            arrays[name] = pyarrow.array(map(path_utf8, paths), pyarrow.string())
            arrays["path_base64"] = pyarrow.array(map(path_base64, paths), pyarrow.string())
        elif column.dtype == object:
            # What is not UTF-8 may be in the name of a class's folder.
            texts = [
                None if text is None else text.encode("utf-8", "backslashreplace").decode()
                for text in column.tolist()
            ]
            arrays[name] = pyarrow.array(texts, pyarrow.string())
        else:
            mask = np.ma.getmaskarray(column)
            arrays[name] = pyarrow.array(column.data, mask=mask)
    return arrays
