"""Stream any layer's activations for many photographs to `.npy` or `.parquet`.

N photographs, C channels, H/W positions, D = 4096 for fc6 and fc7. Memory does not grow with N. The
files appear when the run is finished; until then the old ones stay, and what is done is kept beside
them, so that a run that was killed is continued: see `partial_rows`. A process killed while
replacing them leaves an array missing, never one beside the paths of another run.

    vectors.npy + vectors.json + vectors.paths.jsonl    one layer: (N, D), (N, C, H, W) or (N, C)
    vectors.fc6.npy + vectors.fc7.npy + ...             several layers, one array each
    vectors.parquet                                     everything in one file, see `parquet_files`

Row n is photograph n, in every file. One that could not be read is a row of NaN, as in
`Model.embed`, and in Parquet a null. Line n of `.paths.jsonl` is {"path"} or {"path", "error"},
with "path_base64" where the path is not UTF-8. The `.json` is a `provenance.Provenance`.
"""

import dataclasses
import errno
import functools
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy import arguments
from alexnet_deploy.choices import POOLS, STORED_TYPES, Pool, StoredType
from alexnet_deploy.errors import TooManyFailuresError, UsageError
from alexnet_deploy.files.output_files import errors_of, wrong_suffix
from alexnet_deploy.files.path_text import path_fields, printable
from alexnet_deploy.inference.activations import check_pool, pooled, stored
from alexnet_deploy.inference.failures import at_least_one
from alexnet_deploy.inference.npy_files import check_no_other, write_npy
from alexnet_deploy.inference.partial_rows import (
    KeptRow,
    PartialRows,
    RowGroup,
    open_partial_rows,
    stamp_of,
)
from alexnet_deploy.inference.provenance import PYTHON, Provenance, provenance_of, record_path
from alexnet_deploy.inference.run import PhotographResult, RunSummary, run
from alexnet_deploy.model.layers import layer_names
from alexnet_deploy.photographs.pixels import EXACT, Decode
from alexnet_deploy.photographs.sources import ImageSource, path_of
from alexnet_deploy.runtimes.base import Runner

_Source = TypeVar("_Source", bound=ImageSource)
_OnResult = Callable[[PhotographResult[_Source]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedOptions:
    """What is kept of each photograph.

    Attributes:
        layers: as for `model.layers.layer_names`.
        pool: "mean" or "max" over the positions of maps makes (C,) of (C, H, W); layers that are
            vectors stay as they are.
        dtype: of the numbers. A photograph whose numbers are beyond it has failed.
        decode: how files become pixels.
        command: the command line, for the record.
    """

    layers: tuple[str, ...] = ("fc7",)
    pool: Pool = "none"
    dtype: StoredType = "float32"
    decode: Decode = EXACT
    command: tuple[str, ...] = PYTHON

    def __post_init__(self) -> None:
        """Reject values outside the choices.

        Raises:
            ArgumentError: naming the argument, the value given and the choices.
        """
        arguments.choice("pool", self.pool, POOLS)
        arguments.choice("dtype", self.dtype, STORED_TYPES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A photograph that could not be read: its row, from 0, its path, and the reason."""

    row: int
    path: Path
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingFiles:
    """What `embed` wrote.

    Attributes:
        files: the files, the one named by the caller or its layers first.
        provenance: what the files say of themselves.
        failures: the photographs without numbers.
    """

    files: tuple[Path, ...]
    provenance: Provenance
    failures: tuple[Failure, ...] = ()

    def to_json(self) -> str:
        """Return one JSON object: the fields of the provenance, `files` and `failures`."""
        failures = [
            {"row": failure.row, **path_fields(failure.path), "error": failure.error}
            for failure in self.failures
        ]
        files = [str(file) for file in self.files]
        return json.dumps(self.provenance.fields() | {"files": files, "failures": failures})

    def describe(self) -> str:
        """Return one human-readable line per file."""
        made = self.provenance
        shapes = [
            f"{layer.name} {made.num_rows:,} x {' x '.join(map(str, layer.shape))} {made.dtype}"
            for layer in made.layers
        ]
        if len(self.files) == 1:
            return f"{printable(self.files[0])}: {', '.join(shapes)}"
        contents = [*shapes, "how they were made", "the path of each row"]
        pairs = zip(self.files, contents, strict=True)
        return "\n".join(f"{printable(file)}: {content}" for file, content in pairs)


def embed(
    runner: Runner,
    photographs: Iterable[_Source],
    output: Path,
    options: EmbedOptions | None = None,
    *,
    threads: int | None = None,
    summary: RunSummary | None = None,
    on_result: _OnResult[_Source] = lambda _: None,
    notify: Callable[[str], None] = lambda _: None,
) -> EmbeddingFiles:
    """Write activations for each photograph, rows in input order.

    A run that was stopped is continued by the next one with the same arguments: what it left is
    used where the photograph has not changed. The files are those of a run that was not stopped.

    Args:
        runner: opened with the layers of `options` among its outputs.
        photographs: files, for instance from `finding.find_photographs`; read lazily. One that has
            no path gets the path -.
        output: `.npy` or `.parquet`; replaced if it exists.
        options: what is kept of each photograph; None for fc7 as it is.
        threads: decode threads; None for one per core.
        summary: counts and times, updated during the run.
        on_result: called for each photograph, failures included, once its row is written; without
            outputs if an earlier run left them.
        notify: called with a line for people: what is continued, discarded or left.

    Raises:
        UsageError: another suffix, or what `checked_layers` says.
        NoPhotographsError: there are none.
        TooManyFailuresError: none could be read; nothing is written.
        OutputError: a file cannot be written, or another process is writing to `output`.
        IncompatibleFileError: a file that would be replaced holds something else.
        MissingPackageError: `.parquet` without pyarrow.
    """
    options = EmbedOptions() if options is None else options
    layers = checked_layers(options, runner)
    files = files_of(output, layers)
    _check_replaced(files)
    write = _writer_for(files)
    summary = RunSummary() if summary is None else summary
    made = provenance_of(
        runner,
        layers,
        pool=options.pool,
        dtype=options.dtype,
        decode=options.decode,
        command=options.command,
    )
    with open_partial_rows(output, made, notify) as rows:
        this = _Run(output, rows, made, summary, on_result)
        this.compute(runner, photographs, threads)
        made = this.finished()
        write(made, rows.groups())
    return EmbeddingFiles(files=files, provenance=made, failures=tuple(this.failures))


def files_of(output: Path, layers: tuple[str, ...]) -> tuple[Path, ...]:
    """Return the files that `embed` writes for `output`.

    Raises:
        UsageError: a suffix other than `.npy` and `.parquet`.
    """
    if output.suffix == ".parquet":
        return (output,)
    if output.suffix != ".npy":
        raise wrong_suffix(output, "vectors", (".npy", ".parquet"))
    arrays = (
        (output,)
        if len(layers) == 1
        else tuple(output.with_suffix(f".{layer}.npy") for layer in layers)
    )
    return (*arrays, record_path(output), output.with_suffix(".paths.jsonl"))


def checked_layers(options: EmbedOptions, runner: Runner) -> tuple[str, ...]:
    """Return our names of the layers, which the runner computes.

    Raises:
        UsageError: naming one that the network does not have, or that the runner was not opened
            with; or maps are to be pooled, and no layer has any.
    """
    layers = layer_names(options.layers, runner.spec)
    for layer in layers:
        if layer not in runner.options.outputs:
            raise UsageError(
                f"layer {layer!r}: the runner returns {', '.join(runner.options.outputs)}; "
                f"open it with {layer!r} among its outputs"
            )
    check_pool(options.pool, layers, runner.spec)
    return layers


@dataclass(frozen=True, slots=True)
class _Given(Generic[_Source]):
    """A photograph on its way: what was given, its stamp, and its row if one was left."""

    source: _Source
    stamp: bytes | None
    row: KeptRow | None

    @property
    def path(self) -> Path:
        return path_of(self.source) or Path("-")


class _Run(Generic[_Source]):
    """One run: every photograph gets its line in the journal, in the order given.

    Attributes:
        num_rows: photographs so far.
        failures: those of them without a row.
    """

    def __init__(
        self,
        output: Path,
        rows: PartialRows,
        made: Provenance,
        summary: RunSummary,
        on_result: _OnResult[_Source],
    ) -> None:
        self._output = output
        self._rows = rows
        self._made = made
        self._summary = summary
        self._on_result = on_result
        self._waiting: deque[_Given[_Source]] = deque()  # the first, if any, is being computed
        self.num_rows = 0
        self.failures: list[Failure] = []

    def compute(self, runner: Runner, photographs: Iterable[_Source], threads: int | None) -> None:
        """Compute what no earlier run has left."""
        some = at_least_one(photographs, self._summary.left_out)
        results = run(
            runner,
            self._without_kept(some),
            decode=self._made.decode,
            threads=threads,
            summary=self._summary,
        )
        with closing(results):
            for result in results:
                self._finish(self._waiting.popleft(), result)
                self._finish_kept()

    def finished(self) -> Provenance:
        """Return the record with the numbers of the run.

        Raises:
            TooManyFailuresError: there is no row.
        """
        num_failed = len(self.failures)
        if num_failed == self.num_rows:
            raise TooManyFailuresError(
                f"{self._output}: not written, because none of {num_failed:,} photographs could be "
                "read; the reason stands beside each path"
            )
        left_out = dict(self._summary.left_out.counts)
        return dataclasses.replace(
            self._made, num_rows=self.num_rows, num_failed=num_failed, left_out=left_out
        )

    def _without_kept(self, photographs: Iterable[_Source]) -> Iterator[_Source]:
        for source in photographs:
            stamp = stamp_of(source)
            row = self._rows.find(stamp)
            self._waiting.append(_Given(source, stamp, row))
            if row is None:
                yield source
            else:
                self._finish_kept()

    def _finish_kept(self) -> None:
        while self._waiting and self._waiting[0].row is not None:
            given = self._waiting.popleft()
            assert given.row is not None
            self._rows.keep(given.path, given.stamp, given.row)
            self._summary.num_done += 1
            self.num_rows += 1
            self._on_result(PhotographResult(source=given.source, outputs=None, error=None))

    def _finish(self, given: _Given[_Source], result: PhotographResult[_Source]) -> None:
        if result.outputs is not None:
            arrays, error = self._arrays(result.outputs)
            if error is None:
                self._rows.add(given.path, given.stamp, arrays)
            else:
                result = dataclasses.replace(result, outputs=None, error=error)
                self._summary.num_done -= 1
                self._summary.num_failed += 1
        if result.error is not None:
            self._rows.fail(given.path, result.error)
            failure = Failure(row=self.num_rows, path=given.path, error=result.error)
            self.failures.append(failure)
        self.num_rows += 1
        self._on_result(result)

    def _arrays(
        self, outputs: Mapping[str, NDArray[np.float32]]
    ) -> tuple[Sequence[NDArray[np.floating]], str | None]:
        """Return what is kept of the outputs, or the reason why that is not possible."""
        arrays = []
        for layer in self._made.layers:
            reduced = pooled(outputs[layer.name], layer.pool)
            array, error = stored(reduced, self._made.dtype, layer.name)
            if error is not None:
                return [], error
            arrays.append(array)
        return arrays, None


def _check_replaced(files: tuple[Path, ...]) -> None:
    """Refuse what would only be noticed at the end, or would be lost."""
    for path in files:
        with errors_of(path):
            if os.path.isdir(path):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if path.suffix == ".json":
            check_no_other(path)


def _writer_for(files: tuple[Path, ...]) -> Callable[[Provenance, Iterable[RowGroup]], None]:
    """Return what writes the files."""
    if files[0].suffix != ".parquet":
        return functools.partial(write_npy, files)
    # Imported before anything is made, so that a missing package leaves nothing behind.
    from alexnet_deploy.inference.parquet_files import write_parquet

    return functools.partial(write_parquet, files[0])
