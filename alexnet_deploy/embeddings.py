"""Write any layer's activations for many photographs to `.npy` or `.parquet`, as a stream.

N photographs that could be read, C channels, H/W positions, D = 4096 for fc6 and fc7. Memory
does not grow with N. All files of a run appear together when it is finished, or not at all.

    vectors.npy + vectors.paths.jsonl            one layer: (N, D) or (N, C, H, W) float32
    vectors.fc6.npy + vectors.fc7.npy + ...      several layers, one file each
    vectors.parquet                              everything in one file, see `parquet_files`

Line n of `.paths.jsonl` is the path of row n as a JSON string; in one that is not UTF-8 the
bytes are escaped as surrogates, which `os.fsencode` turns back.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.engines.base import Engine, check_outputs
from alexnet_deploy.errors import UsageError
from alexnet_deploy.inference import PhotographResult, RunSummary, run
from alexnet_deploy.model_spec import ModelSpec
from alexnet_deploy.output_files import atomic_write
from alexnet_deploy.path_text import printable

SUFFIXES = (".npy", ".parquet")
_Shapes = Mapping[str, tuple[int, ...]]
_Append = Callable[[Path, Mapping[str, NDArray[np.float32]]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingFiles:
    """What `embed` wrote.

    Attributes:
        files: the files, the one named by the caller or its layers first.
        shapes: per layer the shape of one row: (D,) or (C, H, W).
        num_rows: photographs in the files.
        num_failed: photographs that could not be read and have no row.
    """

    files: tuple[Path, ...]
    shapes: Mapping[str, tuple[int, ...]]
    num_rows: int
    num_failed: int

    def to_json(self) -> str:
        """Return one JSON object: files, num_rows, num_failed, shapes."""
        return json.dumps(
            {
                "files": [str(file) for file in self.files],
                "num_rows": self.num_rows,
                "num_failed": self.num_failed,
                "shapes": {layer: list(shape) for layer, shape in self.shapes.items()},
            }
        )

    def describe(self) -> str:
        """Return a line per file for people."""
        shapes = [
            f"{layer} {self.num_rows:,} x {' x '.join(map(str, shape))} float32"
            for layer, shape in self.shapes.items()
        ]
        if len(self.files) == 1:
            return f"{printable(self.files[0])}: {', '.join(shapes)}"
        contents = [*shapes, "the path of each row"]
        pairs = zip(self.files, contents, strict=True)
        return "\n".join(f"{printable(file)}: {content}" for file, content in pairs)


def embed(
    engine: Engine,
    photographs: Iterable[Path],
    output: Path,
    *,
    layers: tuple[str, ...] = ("fc7",),
    threads: int | None = None,
    summary: RunSummary | None = None,
    on_result: Callable[[PhotographResult], None] = lambda _: None,
) -> EmbeddingFiles:
    """Write the activations of `layers` for each photograph, rows in the order given.

    Args:
        engine: opened with `layers` among its outputs.
        photographs: files, for instance from `images.find_photographs`; read lazily.
        output: `.npy` or `.parquet`; replaced if it exists.
        layers: names as in `ModelSpec.layer_shapes`.
        threads: decode threads; None for one per core.
        summary: counts and times, kept up to date during the run.
        on_result: called for each photograph, failed ones included, after it has its row.

    Raises:
        UsageError: another suffix, a layer that the network or the engine does not have.
        NoPhotographsError: there are none.
        OutputError: a file cannot be written; none is left behind.
        MissingPackageError: `.parquet` without pyarrow.
    """
    check_layers(layers, engine)
    shapes = {layer: engine.spec.layer_shapes()[layer] for layer in layers}
    files = files_of(output, layers)
    num_rows = num_failed = 0
    with _open_rows(files, engine.spec, shapes) as append:
        for result in run(engine, photographs, threads=threads, summary=summary):
            if result.outputs is None:
                num_failed += 1
            else:
                append(result.path, result.outputs)
                num_rows += 1
            on_result(result)
    return EmbeddingFiles(files=files, shapes=shapes, num_rows=num_rows, num_failed=num_failed)


def files_of(output: Path, layers: tuple[str, ...]) -> tuple[Path, ...]:
    """Return the files that `embed` writes for `output`.

    Raises:
        UsageError: a suffix other than `.npy` and `.parquet`.
    """
    if output.suffix == ".parquet":
        return (output,)
    if output.suffix != ".npy":
        raise UsageError(
            f"{output}: embeddings are written as {' or '.join(SUFFIXES)}, "
            f"not as {output.suffix or 'a file without suffix'}; choose one of the two"
        )
    arrays = (
        (output,)
        if len(layers) == 1
        else tuple(output.with_suffix(f".{layer}.npy") for layer in layers)
    )
    return (*arrays, output.with_suffix(".paths.jsonl"))


def check_layers(layers: tuple[str, ...], engine: Engine) -> None:
    """Refuse layers that are not in the network or that the engine was not opened with.

    Raises:
        UsageError: naming the layer.
    """
    check_outputs(layers, engine.spec)
    for layer in layers:
        if layer not in engine.options.outputs:
            raise UsageError(
                f"layer {layer!r}: the engine returns {', '.join(engine.options.outputs)}; "
                f"open it with {layer!r} among its outputs"
            )


@contextmanager
def _open_rows(files: tuple[Path, ...], spec: ModelSpec, shapes: _Shapes) -> Iterator[_Append]:
    """Open the temporary files, yield the function that appends a row, rename them at the end.

    The first file is opened first and so renamed last: where it is, the others are.
    """
    with ExitStack() as stack:
        if files[0].suffix == ".parquet":
            # Before any file is opened, so that a missing package leaves nothing behind.
            from alexnet_deploy.parquet_files import parquet_rows

            opened = [stack.enter_context(atomic_write(files[0]))]
            rows: AbstractContextManager[_Append] = parquet_rows(opened[0], spec, shapes)
        else:
            opened = [stack.enter_context(atomic_write(file)) for file in files]
            rows = _npy_rows(opened, shapes)
        with rows as append:
            yield append
        # A disk that fills up must show before the first file is renamed, not between two.
        for file in opened:
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def _npy_rows(files: list[BinaryIO], shapes: _Shapes) -> Iterator[_Append]:
    """Write one array per layer into all files but the last, and the paths into the last."""
    *arrays, names = files
    num_rows = 0
    starts = [
        _write_header(file, (0, *shape))
        for file, shape in zip(arrays, shapes.values(), strict=True)
    ]

    def append(path: Path, outputs: Mapping[str, NDArray[np.float32]]) -> None:
        nonlocal num_rows
        for file, layer in zip(arrays, shapes, strict=True):
            file.write(np.ascontiguousarray(outputs[layer], dtype="<f4").data)
        names.write(f"{json.dumps(str(path))}\n".encode("ascii"))
        num_rows += 1

    yield append
    for file, shape, start in zip(arrays, shapes.values(), starts, strict=True):
        if _write_header(file, (num_rows, *shape)) != start:
            raise AssertionError("numpy's header has no room for the number of rows")


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> int:
    """Write the `.npy` header at the start of `file` and return its length in bytes.

    numpy pads it so that the first axis can grow to 21 digits in place.
    """
    file.seek(0)
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.tell()
