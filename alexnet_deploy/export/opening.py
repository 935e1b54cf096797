"""From a model's path to what runs it: find the file, export a checkpoint once, open it."""

import dataclasses
import hashlib
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from alexnet_deploy import arguments
from alexnet_deploy.choices import Device, Precision, Runtime
from alexnet_deploy.errors import AlexNetDeployError, IncompatibleFileError, OutputError
from alexnet_deploy.export.onnx import build_file, verified_model
from alexnet_deploy.files.input_files import existing_file
from alexnet_deploy.files.output_files import errors_of
from alexnet_deploy.files.path_text import printable
from alexnet_deploy.graph.model_file import GRAPH_VERSION, ModelFile, write_model
from alexnet_deploy.graph.reading import read_model
from alexnet_deploy.inference.model import Model
from alexnet_deploy.model.checkpoints import CHECKPOINT_SUFFIXES, Checkpoint, load_checkpoint
from alexnet_deploy.model.default import default_model
from alexnet_deploy.photographs.samples import varied_samples
from alexnet_deploy.runtimes.base import DEFAULT_OUTPUTS, Runner, RunnerOptions
from alexnet_deploy.runtimes.capabilities import file_precision
from alexnet_deploy.runtimes.engine_file import ENGINE_SUFFIX, read_engine
from alexnet_deploy.runtimes.factory import open_engine_file, open_runner, resolve, runtime_version
from alexnet_deploy.runtimes.gpu_driver import current_gpu

# Enough to catch a wrong export; a full check is `alexnet-deploy export` or `verify`.
_NUM_CACHE_SAMPLES = 4


def open_model(
    model: str | os.PathLike[str] | None = None,
    *,
    runtime: Runtime = "auto",
    device: Device = "auto",
    precision: Precision = "auto",
    batch_size: int | None = None,
    threads: int | None = None,
    notify: Callable[[str], None] = lambda _: None,
) -> Model:
    """Open a model to classify and embed with; use it in a `with` block, or close it.

    A checkpoint is exported once, verified, and kept in the user's cache.

    Args:
        model: `.safetensors`, `.pt`, `.onnx` or `.engine`; None for `$ALEXNET_MODEL`, else the
            bundled checkpoint.
        runtime: library that runs the network; "auto" takes the fastest installed.
        device: "auto" is the GPU where the installed ONNX Runtime can use one, else the CPU.
        precision: arithmetic; "auto" is the file's own, of a checkpoint fp32.
        batch_size: photographs per call of the network at most; None for 32, or the size nearest
            to it that an engine was built for.
        threads: CPU threads, for the network and for decoding; None for all cores.
        notify: called with one line for a person when something takes a while.

    Raises:
        UsageError: no such file, or an argument is out of its range.
        IncompatibleFileError: the file is not one of ours or is damaged.
        MissingPackageError: the runtime is not installed.
        DeviceError: a GPU was asked for, and there is none.
        VerificationError: the checkpoint's export does not compute what it should.
    """
    path = default_model() if model is None else arguments.path("model", model)
    options = RunnerOptions(
        runtime=runtime,
        device=device,
        precision=precision,
        batch_size=32 if batch_size is None else batch_size,
        exact_batch=batch_size is not None,
        threads=threads,
    )

    def open_runner_for(layers: tuple[str, ...]) -> Runner:
        own = dataclasses.replace(options, outputs=layers)
        return open_runner_of(path, own, notify=notify)

    if path.suffix != ENGINE_SUFFIX:
        return Model(open_runner_for(DEFAULT_OUTPUTS), open_runner_for)
    engine = read_engine(path)
    own = dataclasses.replace(options, outputs=engine.record.outputs)
    return Model(open_engine_file(engine, own), open_runner_for)


def open_runner_of(
    model: Path | None, options: RunnerOptions, *, notify: Callable[[str], None] = lambda _: None
) -> Runner:
    """Open an engine, a model file or a checkpoint, ready to run.

    Args:
        model: `.engine`, `.onnx`, `.safetensors` or `.pt`; None for `default_model()`.
        options: how to run it.
        notify: called with one line for a person when something takes a while or is done
            differently: an export, a cache that cannot be used.

    Raises:
        IncompatibleFileError: the file is not one of ours or is damaged.
        UsageError: the file does not exist.
        DeviceError: a GPU was asked for, and there is none.
        VerificationError: the checkpoint's export does not compute what it should.
    """
    model = model or default_model()
    if model.suffix == ENGINE_SUFFIX:
        return open_engine_file(read_engine(model), options)
    return open_runner(load_model(model, options, notify=notify), options)


def load_model(
    path: Path, options: RunnerOptions, *, notify: Callable[[str], None] = lambda _: None
) -> ModelFile:
    """Read an `.onnx` file, or take a checkpoint's verified export from the user's cache."""
    existing_file(path, "a checkpoint or an .onnx file")
    if path.suffix == ".onnx":
        file = read_model(path)
        if not file.is_unchanged():
            raise IncompatibleFileError(
                f"{path}: changed since it was exported, so its results would not be its "
                "checkpoint's; copy it again or export the checkpoint again"
            )
        return file
    if path.suffix in CHECKPOINT_SUFFIXES:
        return _exported(load_checkpoint(path), path, options, notify)
    raise IncompatibleFileError(
        f"{path}: a model ends in .onnx, .engine or {', '.join(CHECKPOINT_SUFFIXES)}, "
        f"not in {path.suffix or 'no suffix'}; rename or export it"
    )


def cache_directory() -> Path:
    """Return where exported checkpoints are kept: `$XDG_CACHE_HOME/alexnet-deploy`.

    Raises:
        OutputError: neither that variable nor a home folder is known.
    """
    home = os.environ.get("XDG_CACHE_HOME")
    if home and os.path.isabs(home):  # the XDG specification: ignore a relative path
        return Path(home, "alexnet-deploy")
    try:
        return Path.home() / ".cache" / "alexnet-deploy"
    except RuntimeError as error:
        raise OutputError(f"no place for a cache ({error}); set XDG_CACHE_HOME") from error


def _private_cache() -> Path:
    """Return the cache's directory, made if need be, which nobody else may have written to.

    Raises:
        OutputError: it cannot be made, or it is another user's, or others may use it.
    """
    folder = cache_directory()
    with errors_of(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        status = folder.lstat()
    is_own = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
    if not is_own or stat.S_IMODE(status.st_mode) & 0o077:
        raise OutputError(
            f"{folder}: is not a folder of yours alone (mode {stat.S_IMODE(status.st_mode):o}), so "
            "others may have put networks into it; remove it, and it is made anew"
        )
    return folder


def _is_export_of(file: ModelFile, checkpoint: Checkpoint) -> bool:
    """Return whether a cached file is what was exported from `checkpoint` and verified.

    In fp32 its own numbers show it; a narrower file is believed, as the cache is private.
    """
    shown = file.identity if file.precision == "fp32" else file.checkpoint_identity
    is_verified = file.report is not None and file.report["passed"]
    return is_verified and file.is_unchanged() and shown == checkpoint.identity


def _exported(
    checkpoint: Checkpoint, source: Path, options: RunnerOptions, notify: Callable[[str], None]
) -> ModelFile:
    """Return the checkpoint's verified export, from the cache when it is there."""
    options = resolve(options)
    asked = "fp32" if options.precision == "auto" else options.precision
    precision = file_precision(options.runtime, options.device, asked)
    name = f"{_cache_key(checkpoint, options, asked)}.onnx"
    with suppress(AlexNetDeployError):  # not there, damaged, or no place for a cache
        file = read_model(_private_cache() / name)
        if _is_export_of(file, checkpoint):
            return dataclasses.replace(file, source=str(source))
    if options.device == "cuda":
        current_gpu()  # without one the work would be for nothing
    notify(f"preparing {printable(source.name)}, once: exporting and verifying it")
    own = dataclasses.replace(options, batch_size=_NUM_CACHE_SAMPLES)
    file = build_file(checkpoint, DEFAULT_OUTPUTS, precision, options=own, notify=notify)
    file = verified_model(file, checkpoint, varied_samples()[:_NUM_CACHE_SAMPLES], own)
    try:
        write_model(file, _private_cache() / name)
    except OutputError as error:
        notify(f"the cache cannot be used, so this is for one run only: {error}")
    return dataclasses.replace(file, source=str(source))


def _cache_key(checkpoint: Checkpoint, options: RunnerOptions, precision: Precision) -> str:
    """Name all that a verified export depends on: what it computes and what it ran on."""
    parts = (
        GRAPH_VERSION,
        checkpoint.identity,
        checkpoint.spec.to_json(),
        options.runtime,
        options.device,
        runtime_version(options.runtime),
        precision,
    )
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:32]
