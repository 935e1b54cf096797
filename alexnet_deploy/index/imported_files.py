"""Files of vectors that an index takes in, read batch by batch; owns pyarrow here.

    vectors.parquet                                 as `embed` writes it, as an index is exported,
                                                    or any with a column of paths and one of vectors
    img_emb/img_emb_0.npy + metadata/metadata_0.parquet    as clip-retrieval writes them
    a folder of one or the other

N rows, D numbers in a vector. The files may be a stranger's: a row that cannot be used is a failure
with its reason, a file that cannot be is refused.
"""

import base64
import binascii
import os
import stat
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.errors import Argument, IncompatibleFileError, MissingPackageError, UsageError
from alexnet_deploy.files.path_text import printable
from alexnet_deploy.index.manifest import MAX_DIMENSION, Manifest, VectorSpace, vector_space
from alexnet_deploy.photographs.file_stamps import modified_ns

try:
    import pyarrow
    import pyarrow.compute
    import pyarrow.parquet
except ImportError as error:
    raise MissingPackageError("pyarrow", "parquet", "importing vectors") from error

from alexnet_deploy.inference.parquet_files import (
    PROVENANCE_KEY,
    parquet_errors,
    read_provenance,
)

MANIFEST_KEY = b"alexnet_deploy.index"
"""Of a Parquet schema: the manifest of the index that was exported."""
_PATHS = ("path", "url", "image_path")
_BATCH_BYTES, _BATCH_ROWS = 2**24, 2**16
"""Of float32 vectors in memory at a time, 1,024 of FC7; and of rows, where vectors are short."""
_BUFFERED = {"buffer_size": 2**20, "pre_buffer": False}
"""By default a row group, which may have any size, is read at once."""
_MAX_NAME = 4096
_MAX_REASON = 1000
_EXPECTED = (
    "a .parquet file of vectors, an .npy of clip-retrieval in img_emb beside its metadata, or a "
    "folder of these"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorRows:
    """Some rows of a file.

    Attributes:
        names: what each is called: a path, a URL; of a row without a usable name its number.
        errors: why a row has no vector, None for the others.
        vectors: (N, D) float32, of any value; zeros where there is an error.
    """

    names: Sequence[bytes]
    errors: Sequence[str | None]
    vectors: NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorFile:
    """A file of vectors, looked at and not yet read.

    Attributes:
        path: absolute, links resolved.
        space: of its vectors.
        network: the public network that made them, if its record says so.
        num_rows: N.
        size: of the file in bytes, its metadata included.
        mtime_ns: when it was last changed.
        table: the Parquet file that has its names.
        columns: of the table: path, path_base64 and error where it has them, then the vectors
            unless these are in an `.npy`.
    """

    path: Path
    space: VectorSpace
    network: str | None
    num_rows: int
    size: int
    mtime_ns: int
    table: Path
    columns: tuple[str | None, str | None, str | None, str | None]

    def batches(self, start: int) -> Generator[VectorRows, None, None]:
        """Yield the rows from `start` on, some at a time.

        Raises:
            IncompatibleFileError: the file is damaged.
        """
        array = None if self.columns[-1] is not None else _mapped(self.path)
        num_rows = min(max(1, _BATCH_BYTES // (4 * self.space.dimension)), _BATCH_ROWS)
        for batch in _batches(self.table, start, num_rows, [c for c in self.columns if c]):
            stop = start + batch.num_rows
            if array is None:
                vectors, errors = _matrix(batch.column(self.columns[-1]), self.space.dimension)
            else:
                with np.errstate(over="ignore"):  # found when they are rounded
                    vectors = array[start:stop].astype(np.float32)
                errors = [None] * len(vectors)
            yield self._named(batch, start, vectors, errors)
            start = stop

    def _named(
        self,
        batch: "pyarrow.RecordBatch",
        start: int,
        vectors: NDArray[np.float32],
        errors: list[str | None],
    ) -> VectorRows:
        paths, encoded, reasons = (_bytes(batch, name) for name in self.columns[:3])
        names = []
        for row, (path, base, reason) in enumerate(zip(paths, encoded, reasons, strict=True)):
            name, complaint = _name(path, base)
            names.append(name or os.fsencode(f"{self.path.name}#{start + row}"))
            said = None if reason is None else printable(os.fsdecode(reason[:_MAX_REASON]))
            errors[row] = said or complaint or errors[row]
        return VectorRows(names=names, errors=errors, vectors=vectors)


def find_vector_files(
    sources: Sequence[Path], *, layer: str | None, made_by: str | None
) -> list[VectorFile]:
    """Look at files of vectors, and at those in folders.

    Args:
        sources: files or folders.
        layer: of a file that has several; None where each has one.
        made_by: what made the vectors of files without a record of it.

    Raises:
        UsageError: there is none, or what made them is not known.
        IncompatibleFileError: one is damaged, or of a form that no index can take in.
    """
    paths = [os.path.realpath(path) for source in sources for path in _files(source)]
    return [_looked_at(Path(path), layer, made_by) for path in dict.fromkeys(paths)]


def _files(source: Path) -> list[Path]:
    if not os.path.isdir(source):
        return [source]
    folder = source / "img_emb"
    files = list((folder if folder.is_dir() else source).glob("*.npy"))
    files = files or list(source.glob("*.parquet"))
    if not files:
        raise UsageError(f"{source}: holds no vectors; give {_EXPECTED}")
    return sorted(files, key=lambda file: (len(file.name), file.name))  # 10 after 9


def _looked_at(path: Path, layer: str | None, made_by: str | None) -> VectorFile:
    array, table = None, path
    if path.suffix == ".npy":
        name = path.stem.replace("img_emb_", "metadata_")
        table = path.parent.parent / "metadata" / f"{name}.parquet"
        _status(table, f"the names of {path.name} there, or a .parquet file of vectors")
        array = _mapped(path)
    elif path.suffix != ".parquet":
        raise UsageError(f"{path}: is no file of vectors; give {_EXPECTED}")
    statuses = [_status(each, _EXPECTED) for each in dict.fromkeys((path, table))]
    with parquet_errors(table), pyarrow.parquet.ParquetFile(table) as file:
        schema, num_rows = file.schema_arrow, file.metadata.num_rows
    if len(set(schema.names)) < len(schema.names):
        raise _unusable(table, "two of its columns have one name")
    column, space, network = None, None, None
    if array is not None:
        if len(array) != num_rows:
            raise _unusable(path, f"it has {len(array):,} rows, and {table} {num_rows:,}")
        space = _foreign(path, made_by, array.shape[1])
    else:
        column, space, network = _recorded(path, schema, layer)
    if space is None:
        column = _only_column(path, schema)
        space = _foreign(path, made_by, _dimension(path, column))
    return VectorFile(
        path=path,
        space=space,
        network=network,
        num_rows=num_rows,
        size=sum(status.st_size for status in statuses),
        mtime_ns=max(map(modified_ns, statuses)),
        table=table,
        columns=(*_text_columns(table, schema), column),
    )


def _recorded(
    path: Path, schema: "pyarrow.Schema", layer: str | None
) -> tuple[str | None, VectorSpace | None, str | None]:
    """Return column, space and network by the record in a file of ours; None where it has none."""
    metadata = schema.metadata or {}
    if MANIFEST_KEY in metadata:
        space = Manifest.from_json(metadata[MANIFEST_KEY], path).space
        name = _chosen(path, [space.layer], layer)
        kind = pyarrow.list_(pyarrow.float32(), space.dimension)
        if name not in schema.names or schema.field(name).type != kind:
            raise _unusable(path, f"it has no {name} of {space.dimension:,} float32")
        return name, space, None
    if PROVENANCE_KEY not in metadata:
        return None, None, None
    made = read_provenance(path)
    name = _chosen(path, [stored.name for stored in made.layers], layer)
    (pool,) = (stored.pool for stored in made.layers if stored.name == name)
    if pool != "none":
        raise _unusable(path, f"its {name} is the {pool} of each map, an index has whole layers")
    space = vector_space(
        made.spec,
        identity=made.identity,
        layer=name,
        precision=made.precision,
        decode=made.decode,
        ranges=made.ranges,
    )
    return name, space, made.network


def _chosen(path: Path, names: Sequence[str], layer: str | None) -> str:
    """Return which layer of a file of ours to take."""
    if layer in names and layer is not None:
        return layer
    if layer is not None or len(names) > 1:
        raise UsageError(
            f"{path}: has {', '.join(names)}"
            f"{f', and {layer} was asked for' if layer else ''}; choose one of its own with ",
            Argument("layer"),
        )
    return names[0]


def _foreign(path: Path, made_by: str | None, dimension: int) -> VectorSpace:
    if made_by is None:
        raise UsageError(
            f"{path}: does not say what made its vectors, and those of two models cannot be "
            "compared; name the model with ",
            Argument("made_by"),
            ", such as clip-ViT-B/32, each time the same",
        )
    if not 1 <= dimension <= MAX_DIMENSION:
        raise _unusable(path, f"its vectors have {dimension:,} numbers")
    return VectorSpace.foreign(made_by, dimension)


def _only_column(path: Path, schema: "pyarrow.Schema") -> str:
    """Return which column of a foreign file has the vectors."""
    named = [field.name for field in schema if _is_vector(field.type)]
    if len(named) != 1:
        raise _unusable(
            path,
            f"of its columns {', '.join(map(printable, named)) or 'none'} holds lists of "
            "floating-point numbers, expected one",
        )
    return str(named[0])


def _dimension(path: Path, column: str) -> int:
    """Return the length of the first vector of a column."""
    for batch in _batches(path, 0, 64, [column]):
        lengths = pyarrow.compute.list_value_length(batch.column(column)).drop_null()
        if len(lengths):
            return int(lengths[0].as_py())
    raise _unusable(path, f"its {column} has no vector")


def _text_columns(
    path: Path, schema: "pyarrow.Schema"
) -> tuple[str | None, str | None, str | None]:
    """Return which columns have the names, the names in base64, and the reasons of failures."""
    texts = {field.name for field in schema if _is_text(field.type)}
    name = next((name for name in _PATHS if name in texts), None)
    if name is None:
        raise _unusable(path, f"it has no column {', '.join(_PATHS)} of strings")
    of_ours = name == "path"
    base, error = (each if of_ours and each in texts else None for each in ("path_base64", "error"))
    return name, base, error


def _is_text(kind: "pyarrow.DataType") -> bool:
    return bool(pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind))


def _is_vector(kind: "pyarrow.DataType") -> bool:
    types = pyarrow.types
    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return is_list and bool(types.is_floating(kind.value_type))


def _status(path: Path, expected: str) -> os.stat_result:
    """Return the status of a regular file; a pipe would hold the program up."""
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{path}: cannot be read ({reason}); give {expected}") from error
    if not stat.S_ISREG(status.st_mode):
        raise UsageError(f"{path}: is no regular file; give {expected}")
    return status


def _mapped(path: Path) -> NDArray[Any]:
    """Return the array of an `.npy`, (N, D), memory-mapped, read-only."""
    _status(path, _EXPECTED)
    try:
        # Its length is compared with the header's, and Python objects are refused.
        array: NDArray[Any] = np.lib.format.open_memmap(path, "r")
    except Exception as error:  # of a damaged header whatever Python's tokenizer raises, too
        raise _unusable(path, " ".join(str(error).split())[:200]) from error
    if array.ndim != 2 or array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise _unusable(path, f"it is {array.shape} of {array.dtype}, expected (N, D) of floats")
    return array


def _batches(
    path: Path, start: int, num_rows: int, columns: list[str]
) -> Iterator["pyarrow.RecordBatch"]:
    """Yield the rows of a Parquet file from `start` on, at most `num_rows` at a time."""
    with parquet_errors(path), pyarrow.parquet.ParquetFile(path, **_BUFFERED) as file:
        groups: list[int] = []
        skipped = start
        for number in range(file.num_row_groups):
            size = file.metadata.row_group(number).num_rows
            if groups or skipped < size:
                groups.append(number)
            else:
                skipped -= size
        for batch in file.iter_batches(num_rows, row_groups=groups, columns=columns):
            taken, skipped = min(skipped, batch.num_rows), max(0, skipped - batch.num_rows)
            if taken < batch.num_rows:
                yield batch.slice(taken)


def _matrix(
    column: "pyarrow.Array", dimension: int
) -> tuple[NDArray[np.float32], list[str | None]]:
    """Return lists as rows, (N, D), and what is wrong with those that are none."""
    lengths = pyarrow.compute.list_value_length(column).to_pylist()
    vectors = np.zeros((len(column), dimension), np.float32)
    is_whole = np.array([length == dimension for length in lengths])
    values = column.filter(pyarrow.array(is_whole)).flatten().to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):  # of float64; found when they are rounded
        vectors[is_whole] = values.reshape(-1, dimension)
    errors: list[str | None] = [
        None
        if length == dimension
        else "it has no vector"
        if length is None
        else f"its vector has {length:,} numbers, expected {dimension:,}"
        for length in lengths
    ]
    return vectors, errors


def _bytes(batch: "pyarrow.RecordBatch", name: str | None) -> list[bytes | None]:
    """Return the bytes of a column of strings, which need not be UTF-8."""
    if name is None:
        return [None] * batch.num_rows
    column = batch.column(name)
    values: list[bytes | None] = column.cast(pyarrow.large_binary()).to_pylist()
    return values


def _name(path: bytes | None, encoded: bytes | None) -> tuple[bytes | None, str | None]:
    """Return what a row is called, or None and why that cannot be told."""
    if encoded is not None:
        try:
            path = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            return None, "its path_base64 is no base64"
    if not path:
        return None, "it has no path"
    if b"\0" in path:
        return None, "its path holds a NUL"
    if len(path) > _MAX_NAME:
        return None, f"its path has {len(path):,} bytes, expected at most {_MAX_NAME:,}"
    return path, None


def _unusable(path: Path, reason: str) -> IncompatibleFileError:
    return IncompatibleFileError(
        f"{path}: cannot be imported ({reason}); restore it from a copy, or give {_EXPECTED}"
    )
