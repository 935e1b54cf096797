"""Stream any layer's activations for many photographs to `.npy` or `.parquet`.

N readable photographs, C channels, H/W positions, D = 4096 for fc6 and fc7. Memory does not grow
with N. The files appear when the run is finished; until then the old ones stay. A process killed
while replacing them leaves an array missing, never one beside the paths of another run.

    vectors.npy + vectors.paths.jsonl            one layer: (N, D) or (N, C, H, W) float32
    vectors.fc6.npy + vectors.fc7.npy + ...      several layers, one file each
    vectors.parquet                              everything in one file, see `parquet_files`

Line n of `.paths.jsonl` is the path of row n: {"path"}, with "path_base64" where it is not UTF-8.
"""

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.errors import TooManyFailuresError, UsageError
from alexnet_deploy.files.output_files import atomic_write, write_together
from alexnet_deploy.files.path_text import path_fields, printable
from alexnet_deploy.inference.failures import at_least_one
from alexnet_deploy.inference.run import PhotographResult, RunSummary, run
from alexnet_deploy.model.layers import layer_names
from alexnet_deploy.photographs.pixels import EXACT, Decode
from alexnet_deploy.photographs.sources import ImageSource, path_of
from alexnet_deploy.runtimes.base import Runner

SUFFIXES = (".npy", ".parquet")
_Shapes = Mapping[str, tuple[int, ...]]
_Source = TypeVar("_Source", bound=ImageSource)
_Append = Callable[[Path, Mapping[str, NDArray[np.float32]]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingFiles:
    """What `embed` wrote.

    Attributes:
        files: the files, the one named by the caller or its layers first.
        shapes: per layer the shape of one row: (D,) or (C, H, W).
        num_rows: photographs in the files.
        num_failed: photographs that could not be read and have no row.
        left_out: photographs in the folders that were not tried, by suffix; see `finding`.
        identity: of the checkpoint.
        precision: arithmetic of the network.
        decode: how files became pixels; vectors are comparable if identity, precision and it are
            the same.
    """

    files: tuple[Path, ...]
    shapes: Mapping[str, tuple[int, ...]]
    num_rows: int
    num_failed: int
    left_out: Mapping[str, int]
    identity: str
    precision: str
    decode: Decode

    def to_json(self) -> str:
        """Return one JSON object: the attributes, and `layers`, the names in `shapes`."""
        return json.dumps(
            {
                "files": [str(file) for file in self.files],
                "num_rows": self.num_rows,
                "num_failed": self.num_failed,
                "left_out": dict(self.left_out),
                "identity": self.identity,
                "precision": self.precision,
                "decode": dataclasses.asdict(self.decode),
                "layers": list(self.shapes),
                "shapes": {layer: list(shape) for layer, shape in self.shapes.items()},
            }
        )

    def describe(self) -> str:
        """Return one human-readable line per file."""
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
    runner: Runner,
    photographs: Iterable[_Source],
    output: Path,
    *,
    layers: tuple[str, ...] = ("fc7",),
    decode: Decode = EXACT,
    threads: int | None = None,
    summary: RunSummary | None = None,
    on_result: Callable[[PhotographResult[_Source]], None] = lambda _: None,
) -> EmbeddingFiles:
    """Write the activations of `layers` for each photograph, rows in input order.

    Args:
        runner: opened with `layers` among its outputs.
        photographs: from `finding.find_photographs`, for instance; one without a path has path -.
        output: `.npy` or `.parquet`; replaced if it exists.
        layers: as for `layers.layer_names`; the files have our names of them.
        decode: how files become pixels.
        threads: decode threads; None for one per core.
        summary: counts and times, updated during the run.
        on_result: called for each photograph, failures included, once its row is written.

    Raises:
        UsageError: another suffix, a layer that is not there, or an `.npy` that is a pipe.
        NoPhotographsError: there are none.
        TooManyFailuresError: none could be read; nothing is written.
        OutputError: a file cannot be written.
        MissingPackageError: `.parquet` without pyarrow.
    """
    layers = check_layers(layers, runner)
    shapes = {layer: runner.spec.layer_shapes()[layer] for layer in layers}
    files = files_of(output, layers)
    num_rows, num_failed, summary = 0, 0, RunSummary() if summary is None else summary
    some = at_least_one(photographs, summary.left_out)
    with (
        _open_rows(files, runner, shapes, decode) as append,
        closing(run(runner, some, decode=decode, threads=threads, summary=summary)) as results,
    ):
        for result in results:
            if result.outputs is None:
                num_failed += 1
            else:
                append(path_of(result.source) or Path("-"), result.outputs)
                num_rows += 1
            on_result(result)
        if not num_rows:
            raise _none_read(output, num_failed)
    return EmbeddingFiles(
        files=files,
        shapes=shapes,
        num_rows=num_rows,
        num_failed=num_failed,
        left_out=summary.left_out.counts,
        identity=runner.identity,
        precision=runner.options.precision,
        decode=decode,
    )


def _none_read(output: Path, num_failed: int) -> TooManyFailuresError:
    return TooManyFailuresError(
        f"{output}: not written, because none of {num_failed:,} photographs could be read; the "
        "reason stands beside each path"
    )


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


def check_layers(layers: tuple[str, ...], runner: Runner) -> tuple[str, ...]:
    """Return our names of layers that the runner computes.

    Raises:
        UsageError: naming one that the network does not have, or that it was not opened with.
    """
    names = layer_names(layers, runner.spec)
    for layer in names:
        if layer not in runner.options.outputs:
            raise UsageError(
                f"layer {layer!r}: the runner returns {', '.join(runner.options.outputs)}; "
                f"open it with {layer!r} among its outputs"
            )
    return names


@contextmanager
def _open_rows(
    files: tuple[Path, ...], runner: Runner, shapes: _Shapes, decode: Decode
) -> Iterator[_Append]:
    """Open the files, and yield a function that appends a row; the files appear on exit."""
    if files[0].suffix == ".parquet":
        # Imported before the file is opened, so that a missing package leaves nothing behind.
        from alexnet_deploy.inference.parquet_files import parquet_rows

        with (
            atomic_write(files[0]) as file,
            parquet_rows(
                file,
                runner.spec,
                shapes,
                identity=runner.identity,
                precision=runner.options.precision,
                decode=decode,
            ) as append,
        ):
            yield append
    else:
        with write_together(files) as opened:
            for path, file in zip(files[:-1], opened, strict=False):
                if not file.seekable():
                    raise UsageError(
                        f"{path}: is a pipe or a device; the number of rows is written into an "
                        ".npy's header at the end, so name a regular file"
                    )
            with _npy_rows(opened, shapes) as append:
                yield append


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
        names.write(f"{json.dumps(path_fields(path))}\n".encode("ascii"))
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
