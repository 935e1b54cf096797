"""Options that several commands share, as decorators, and the values that they become."""

import codecs
import dataclasses
import functools
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import click

from alexnet_deploy.choices import (
    DEVICES,
    PRECISIONS,
    RUNTIMES,
    Colour,
    Device,
    Precision,
    Runtime,
    Scale,
)
from alexnet_deploy.console.decoding import decoding_options
from alexnet_deploy.console.paths import FILE, MODEL, PHOTOGRAPHS
from alexnet_deploy.console.reporting import say
from alexnet_deploy.errors import Argument, UsageError

if TYPE_CHECKING:
    from alexnet_deploy.index.model import ModelRequest
    from alexnet_deploy.inference.failures import FailureLimit
    from alexnet_deploy.inference.model import Model
    from alexnet_deploy.photographs.pixels import Decode
    from alexnet_deploy.runtimes.base import Runner, RunnerOptions

_Command = Callable[..., None]
_MAX_LIST = 2**28
"""Bytes of a list of photographs: two million of them with long names."""
_STDIN = Path("-")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelArguments:
    """What `--model`, `--runtime` and the others said; a command gets it as `model_arguments`."""

    runtime: Runtime
    device: Device
    precision: Precision
    batch_size: int | None
    threads: int | None
    model: str | None = None
    decode: Scale | None = None
    colour: Colour | None = None
    fast: bool = False

    def __post_init__(self) -> None:
        """Refuse `--fast` together with what it chooses."""
        if self.fast:
            from alexnet_deploy.export.fast import check_left_open

            check_left_open(Argument("fast", True), self.precision, self.decode)

    def runner_options(self, outputs: tuple[str, ...] = ()) -> "RunnerOptions":
        """Return the runner options; `outputs` are the layers to compute."""
        from alexnet_deploy.runtimes.base import RunnerOptions

        return RunnerOptions(
            runtime=self.runtime,
            device=self.device,
            precision=self.precision,
            batch_size=self.batch_size or 32,
            exact_batch=self.batch_size is not None,
            threads=self.threads,
            outputs=outputs,
        )

    def request(self, layer: str | None = None) -> "ModelRequest":
        """Return what to ask of an index's runner; what was not said is the index's to say."""
        from alexnet_deploy.index.model import ModelRequest
        from alexnet_deploy.weights.names import chosen_model

        return ModelRequest(
            model=None if self.model is None else chosen_model(self.model, notify=say),
            layer=layer,
            precision=self.precision,
            runtime=self.runtime,
            device=self.device,
            batch_size=self.batch_size,
            threads=self.threads,
            decode=self.decode,
            colour=self.colour,
            fast=self.fast,
        )

    def decoding(self) -> "Decode":
        """Return how files become pixels, where no index says it."""
        from alexnet_deploy.photographs.pixels import EXACT, Decode

        scale = self.decode or ("scaled" if self.fast else EXACT.scale)
        return Decode.of(scale, self.colour or EXACT.colour)

    def open(self, photographs: "Photographs") -> "Model":
        """Open the model for photographs, and print on stderr, once, what runs."""
        from alexnet_deploy.export.opening import open_model

        model = open_model(
            self.model,
            runtime=self.runtime,
            device=self.device,
            precision=self.precision,
            batch_size=self.batch_size,
            threads=self.threads,
            decode=self.decode,
            colour=self.colour or "srgb",
            fast_for=photographs.files() if self.fast else None,
            notify=say,
        )
        say(f"{model.description}; decoded by {model.decode}")
        return model

    def open_runner(
        self,
        outputs: tuple[str, ...],
        photographs: "Photographs | None" = None,
        output: Path | None = None,
    ) -> "Runner":
        """Open a runner for these layers and print on stderr, once, what runs.

        `--fast` chooses by the photographs, unless it did so for a stopped run of `output`.
        """
        from alexnet_deploy.export.opening import open_fast_runner, open_runner_of
        from alexnet_deploy.inference.partial_rows import ranges_left
        from alexnet_deploy.weights.names import chosen_model

        source, options = chosen_model(self.model, notify=say), self.runner_options(outputs)
        if self.fast and photographs is not None and output is not None:
            own: Any = {"is_kept": False, "ranges": ranges_left(output), "notify": say}
            runner = open_fast_runner(source, photographs.files(), options, **own)
        else:
            runner = open_runner_of(source, options, notify=say)
        say(runner.description)
        return runner


@dataclass(frozen=True, slots=True, kw_only=True)
class Photographs:
    """The photographs that were named; a command gets it as `photographs`.

    Attributes:
        paths: files, folders and patterns; - is `stdin`.
        listed: files and folders that `--from-file` named.
        stdin: the photograph in standard input, if one of `paths` is -.
        include_hidden: whether hidden files in folders are meant, too.
    """

    paths: tuple[str, ...]
    listed: tuple[str, ...]
    stdin: bytes
    include_hidden: bool

    @classmethod
    def named(cls, paths: tuple[str, ...], from_file: Path | None, include_hidden: bool) -> Self:
        """Read the list, and the photograph in standard input.

        Raises:
            UsageError: one of them cannot be read, or both would be standard input.
        """
        names: tuple[str, ...] = ()
        if from_file is not None:
            if "-" in paths and from_file == _STDIN:
                raise UsageError("-: standard input cannot be a photograph and a list; name a file")
            data = _read_stdin() if from_file == _STDIN else _read_list(from_file)
            names = _names_in(data)
        stdin = _read_stdin() if "-" in paths else b""
        return cls(paths=paths, listed=names, stdin=stdin, include_hidden=include_hidden)

    def find(self, left_out: Callable[[str], None] = lambda path: None) -> Iterator[Path | bytes]:
        """Check the paths at once, then yield what they name, standard input in its place.

        Args:
            left_out: as for `finding.find_photographs`.
        """
        from alexnet_deploy.photographs.finding import find_listed, find_photographs

        where = self.paths.index("-") if "-" in self.paths else len(self.paths)
        after = [path for path in self.paths[where:] if path != "-"]
        options: Any = {"include_hidden": self.include_hidden, "left_out": left_out}
        return itertools.chain(
            find_photographs(self.paths[:where], **options),
            [self.stdin] if where < len(self.paths) else [],
            find_photographs(after, **options),
            find_listed(self.listed, **options),
        )

    def files(self) -> Iterator[Path]:
        """Yield what `find` yields, but for the photograph in standard input."""
        return (source for source in self.find() if isinstance(source, Path))


def _names_in(data: bytes) -> tuple[str, ...]:
    """Return the names in a list: each ends with a NUL if there is one, else with its line."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UsageError("--from-file: the list is UTF-16; save it as UTF-8")
    data = data.removeprefix(codecs.BOM_UTF8)
    if b"\0" in data:
        names = data.split(b"\0")
    else:  # as Windows ends lines, too
        names = [line.removesuffix(b"\r") for line in data.split(b"\n")]
    return tuple(os.fsdecode(name) for name in names if name)


def _read_list(path: Path) -> bytes:
    try:
        with path.open("rb") as file:  # perhaps a pipe, as of <(find ...)
            data = file.read(_MAX_LIST + 1)
        if len(data) > _MAX_LIST:
            raise OSError(f"it has more than {_MAX_LIST:,} bytes")
        return data
    except OSError as error:
        raise UsageError(
            f"--from-file {path}: cannot be read ({error.strerror or error}); name a file of paths"
        ) from error


def _read_stdin() -> bytes:
    if sys.stdin is None:
        raise UsageError("-: standard input is closed; name a file")
    from alexnet_deploy.photographs.memory import MAX_FILE_BYTES

    data = sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise UsageError("-: standard input has more than 1.1 GB; name a file")
    return data


def _failure_limit(ctx: click.Context, param: click.Parameter, value: str) -> "FailureLimit":
    from alexnet_deploy.inference.failures import FailureLimit

    return FailureLimit.parse(value)


def runtime_options(
    command: _Command,
    *,
    precision_default: str = "auto, the file's own; of a checkpoint fp32",
    batch_size_default: str = "32",
) -> _Command:
    """Add `--runtime --device --precision --batch-size --threads`, collected in one argument.

    And those of `decoding_options`, which hold for the process.
    """
    options = (
        click.option(
            "--runtime",
            type=click.Choice(RUNTIMES),
            default="auto",
            show_default=True,
            help="Library that runs the network; auto takes the fastest installed.",
        ),
        click.option(
            "--device",
            type=click.Choice(DEVICES),
            default="auto",
            show_default=True,
            help="auto is the GPU where the installed ONNX Runtime can use one, else the CPU.",
        ),
        click.option(
            "--precision",
            type=click.Choice(PRECISIONS),
            default="auto",
            help=f"Arithmetic of the network.  [default: {precision_default}]",
        ),
        click.option(
            "--batch-size",
            type=click.IntRange(min=1),
            help=f"Photographs per call of the network.  [default: {batch_size_default}]",
        ),
        click.option(
            "--threads",
            type=click.IntRange(min=1),
            help="CPU threads, for the network and for decoding.  [default: all cores]",
        ),
        decoding_options,
    )

    @functools.wraps(command)
    def collected(**arguments: Any) -> None:
        names = [field.name for field in dataclasses.fields(ModelArguments)]
        own = {name: arguments.pop(name) for name in names if name in arguments}
        command(model_arguments=ModelArguments(**own), **arguments)

    return _add(options, collected)


def model_options(command: _Command) -> _Command:
    """Add `--model` and the runtime options, collected in one argument `model_arguments`."""
    model = click.option(
        "--model",
        type=MODEL,
        help="Checkpoint, .onnx or .engine file, or a public network's name.  "
        "[default: $ALEXNET_MODEL, else the bundled checkpoint]",
    )
    return model(runtime_options(command))


fast_option = click.option(
    "--fast",
    is_flag=True,
    help="Choose the quickest precision of this machine that agrees with fp32, and scaled "
    "decoding; int8 is calibrated on some of the photographs, where they are many.",
)


index_option = click.option(
    "--index",
    "directory",
    type=FILE,
    envvar="ALEXNET_INDEX",
    default="alexnet-index",
    show_default=True,
    show_envvar=True,
    help="Directory of the index.",
)


def index_options(command: _Command) -> _Command:
    """Add `--index`, and the runner's options with what an index says as their defaults."""
    model = click.option(
        "--model",
        type=MODEL,
        help="Checkpoint, .onnx or .engine file, or a public network's name.  "
        "[default: the index's; else as for classify]",
    )
    runtime = functools.partial(
        runtime_options,
        precision_default="the index's; the model file's own for a new one",
        batch_size_default="32, or fewer where fewer are given",
    )
    return _add((index_option, model, runtime), command)


max_failures_option = click.option(
    "--max-failures",
    callback=_failure_limit,
    metavar="NUMBER|PERCENT%",
    default="1%",
    show_default=True,
    help="Exit with 3 if more photographs than this cannot be read.",
)


def failure_options(command: _Command) -> _Command:
    """Add `--include-hidden` and `--max-failures`."""
    include_hidden = click.option(
        "--include-hidden",
        is_flag=True,
        help="Include hidden files and folders, and thumbnails such as @eaDir.",
    )
    return _add((include_hidden, max_failures_option), command)


def photograph_options(
    command: _Command, *, metavar: str = "PATH", is_optional: bool = False
) -> _Command:
    """Add PATH... and `--from-file`, collected in one argument `photographs`.

    And the options of `failure_options`. With `is_optional` it is None where none are named.
    """
    paths = click.argument("paths", metavar=f"[{metavar}]...", nargs=-1, type=PHOTOGRAPHS)
    from_file = click.option(
        "--from-file",
        metavar="LIST",
        type=FILE,
        help="Take what a file names, too, on lines or ended by NULs; - for standard input.",
    )

    @functools.wraps(command)
    def collected(
        paths: tuple[str, ...], from_file: Path | None, include_hidden: bool, **arguments: Any
    ) -> None:
        if paths or from_file is not None:
            photographs = Photographs.named(paths, from_file, include_hidden)
            command(photographs=photographs, **arguments)
        elif is_optional:
            command(photographs=None, **arguments)
        else:
            raise UsageError(f"{metavar}: is missing; name photographs, or a file with --from-file")

    return _add((paths, from_file, failure_options), collected)


def _add(options: tuple[Callable[[_Command], _Command], ...], command: _Command) -> _Command:
    """Apply decorators so that `--help` lists them in the order given."""
    for option in reversed(options):
        command = option(command)
    return command
