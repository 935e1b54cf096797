"""From a model's path to what runs it: find the file, export a checkpoint once, open it."""

import dataclasses
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from alexnet_deploy import arguments
from alexnet_deploy.choices import Colour, Device, FilePrecision, Precision, Runtime, Scale
from alexnet_deploy.errors import Argument, IncompatibleFileError, OutputError
from alexnet_deploy.export.cache import read_network, write_network
from alexnet_deploy.export.fast import SCALED, check_left_open, open_quickest
from alexnet_deploy.export.recorded import RecordedCheckpoint, open_recorded
from alexnet_deploy.files.input_files import existing_file
from alexnet_deploy.files.path_text import printable
from alexnet_deploy.graph.interface import GRAPH_VERSION
from alexnet_deploy.inference.model import Model
from alexnet_deploy.model.calibrated import ActivationRanges
from alexnet_deploy.model.checkpoints import Checkpoint
from alexnet_deploy.model.layers import layer_names
from alexnet_deploy.photographs.pixels import Decode
from alexnet_deploy.photographs.samples import varied_samples
from alexnet_deploy.runtimes.base import Runner, RunnerOptions, usual_outputs
from alexnet_deploy.runtimes.capabilities import file_precision
from alexnet_deploy.runtimes.engine_file import ENGINE_SUFFIXES, EngineFile, read_engine
from alexnet_deploy.runtimes.factory import (
    open_engine_file,
    open_prepared,
    open_runner,
    resolve,
    runtime_version,
)
from alexnet_deploy.runtimes.gpu_driver import current_gpu
from alexnet_deploy.runtimes.prepared import LOWERING_VERSION, PreparedNetwork, prepare
from alexnet_deploy.runtimes.processor import saturates_int8
from alexnet_deploy.weights.names import ModelSource, chosen_model, open_checkpoint

if TYPE_CHECKING:
    from alexnet_deploy.graph.model_file import ModelFile

# Enough to catch a wrong export; a full check is `alexnet-deploy export` or `verify`.
_NUM_CACHE_SAMPLES = 4
_OWN_PRECISION = (".onnx", *ENGINE_SUFFIXES)


def open_model(
    model: str | os.PathLike[str] | None = None,
    *,
    runtime: Runtime = "auto",
    device: Device = "auto",
    precision: Precision = "auto",
    batch_size: int | None = None,
    threads: int | None = None,
    decode: Scale | None = None,
    colour: Colour = "srgb",
    fast_for: Iterable[str | os.PathLike[str]] | None = None,
    notify: Callable[[str], None] = lambda _: None,
) -> Model:
    """Open a model to classify and embed with; use it in a `with` block, or close it.

    A checkpoint is exported once, verified, and kept in the user's cache.

    Args:
        model: `.safetensors`, `.pt`, `.onnx` or `.engine`; a string that is the name of a public
            network, such as "torchvision"; None for `$ALEXNET_MODEL`, else the bundled checkpoint.
        runtime: library that runs the network; "auto" takes the fastest installed.
        device: "auto" is the GPU where the installed ONNX Runtime can use one, else the CPU.
        precision: arithmetic; "auto" is the file's own, of a checkpoint fp32. "int8" gives a
            checkpoint ranges from the package's samples; for others use `fast_for`, or export it.
        batch_size: photographs per call of the network at most; None for 32, or the size nearest
            to it that an engine was built for.
        threads: CPU threads, for the network and for decoding; None for all cores.
        decode: "scaled" decodes a large JPEG at a fraction of its size, "gpu" on an NVIDIA GPU;
            None is "exact".
        colour: "srgb" converts photographs by their colour profiles; "ignored" takes their numbers.
        fast_for: files of the photographs to come: chooses for them the quickest precision of this
            machine that agrees with fp32, says so, and sets `decode` to "scaled"; int8 is
            calibrated on some of them, if they are so many that it pays.
        notify: called with one line for a person when something takes a while.

    Raises:
        UsageError: no such file, a network that was not pulled, an argument out of its range, or
            `fast_for` with one that it chooses.
        IncompatibleFileError: the file is not one of ours or is damaged.
        MissingPackageError: the runtime is not installed.
        DeviceError: a GPU was asked for, and there is none.
        VerificationError: the checkpoint's export does not compute what it should.
    """
    if fast_for is not None:
        check_left_open(Argument("fast_for"), precision, decode)
    pixels = Decode.of(decode or ("exact" if fast_for is None else "scaled"), colour)
    source = chosen_model(model, notify=notify)
    options = RunnerOptions(
        runtime=runtime,
        device=device,
        precision=precision,
        batch_size=32 if batch_size is None else batch_size,
        exact_batch=batch_size is not None,
        threads=threads,
    )
    some = None if fast_for is None else map(Path, arguments.paths("fast_for", fast_for))
    return _opened(source, options, pixels, some, notify)


def _opened(
    source: ModelSource,
    options: RunnerOptions,
    pixels: Decode,
    fast_for: Iterable[Path] | None,
    notify: Callable[[str], None],
) -> Model:
    first: Runner | None = None
    if fast_for is not None:
        first = open_fast_runner(source, fast_for, options, is_kept=False, notify=notify)
        chosen = first.options
        options = dataclasses.replace(options, precision=chosen.precision, ranges=chosen.ranges)

    def open_runner_for(layers: tuple[str, ...]) -> Runner:
        own = dataclasses.replace(options, outputs=layers)
        if own.ranges is not None:
            return open_runner_of(source, own, is_kept=False, notify=notify)
        return open_runner_of(source, own, notify=notify)

    return Model(first or open_runner_for(()), open_runner_for, pixels)


def open_runner_of(
    model: ModelSource | None,
    options: RunnerOptions,
    *,
    is_kept: bool = True,
    notify: Callable[[str], None] = lambda _: None,
) -> Runner:
    """Open an engine, a model file, a checkpoint or a public network, ready to run.

    Args:
        model: of a file `.engine`, `.onnx`, `.safetensors` or `.pt`; None for `chosen_model()`.
        options: how to run it.
        is_kept: whether the export of a checkpoint is kept in the cache: ranges that no later run
            will have would only fill it.
        notify: called with one line for a person when something takes a while or is done
            differently: an export, a cache that cannot be used.

    Raises:
        IncompatibleFileError: the file is not one of ours or is damaged.
        UsageError: the file does not exist, or the network was not pulled.
        DeviceError: a GPU was asked for, and there is none.
        VerificationError: the checkpoint's export does not compute what it should.
    """
    source = model or chosen_model(notify=notify)
    if isinstance(source, Path):
        if source.suffix in _OWN_PRECISION:
            options = dataclasses.replace(options, ranges=None)
        if source.suffix in ENGINE_SUFFIXES:
            return _open_engine(read_engine(source), options)
        existing_file(source, "a checkpoint or an .onnx file")
        if source.suffix == ".onnx":
            return open_runner(load_model(source), options)
    checkpoint = open_recorded(source)
    # Before it is exported.
    outputs = layer_names(options.outputs or usual_outputs(checkpoint.spec), checkpoint.spec)
    options = dataclasses.replace(resolve(options), outputs=outputs)
    if not is_kept:
        precision = file_precision(options.runtime, options.device, _asked(options))
        return open_runner(_verified(checkpoint.read(), precision, options, notify), options)
    if options.runtime == "openvino":
        return _open_compiled(checkpoint, source, options, notify)
    return open_prepared(_exported(checkpoint, source, options, notify), options)


def open_fast_runner(
    source: ModelSource,
    photographs: Iterable[Path],
    options: RunnerOptions,
    *,
    is_kept: bool,
    ranges: ActivationRanges | None = None,
    notify: Callable[[str], None],
) -> Runner:
    """Open a model in the quickest precision for photographs, see `fast.open_quickest`.

    Args:
        source: a file with a precision of its own runs in that.
        photographs: as for `open_quickest`, and so are options and ranges.
        options: see photographs.
        is_kept: whether what is calibrated will be opened again; see `open_runner_of`.
        ranges: see photographs.
        notify: called with lines for a person: what was chosen, and why.

    Raises:
        AlexNetDeployError: as `open_runner_of` and `open_quickest`.
    """
    if isinstance(source, Path) and source.suffix in _OWN_PRECISION:
        runner = open_runner_of(source, options, notify=notify)
        own = runner.options.precision
        notify(f"fast: {own}, the precision of {printable(source)}; {SCALED}")
        return runner

    def open_with(own: RunnerOptions) -> Runner:
        keep = is_kept or own.ranges is None
        return open_runner_of(source, own, is_kept=keep, notify=notify)

    return open_quickest(
        lambda: open_checkpoint(source),
        photographs,
        options,
        open_with,
        ranges=ranges,
        notify=notify,
    )


def with_ranges(
    source: ModelSource, options: RunnerOptions, *, notify: Callable[[str], None]
) -> RunnerOptions:
    """Return options that make the same int8 network of a checkpoint ever after.

    Args:
        source: the model.
        options: for another precision, or a file with ranges of its own, they are returned as is.
        notify: called with the line that the ranges come from samples.

    Raises:
        AlexNetDeployError: as `open_runner_of`.
    """
    is_file = isinstance(source, Path) and source.suffix in _OWN_PRECISION
    if is_file or options.precision != "int8":
        return options
    from alexnet_deploy.export.calibration import calibrated_ranges
    from alexnet_deploy.graph.build import build_model

    file = build_model(open_checkpoint(source), ("fc7",))
    return dataclasses.replace(options, ranges=calibrated_ranges(file, None, options, notify))


def _open_engine(engine: EngineFile, options: RunnerOptions) -> Runner:
    outputs = options.outputs or engine.record.outputs
    return open_engine_file(engine, dataclasses.replace(options, outputs=outputs))


def load_model(path: Path) -> "ModelFile":
    """Read an `.onnx` file, and check that it is as it was exported.

    Raises:
        IncompatibleFileError: as `read_model`, or it has changed since.
    """
    # Here, because a checkpoint out of the cache needs no `onnx`.
    from alexnet_deploy.graph.reading import read_model

    file = read_model(path)
    if not file.is_unchanged():
        raise IncompatibleFileError(
            f"{path}: changed since it was exported, so its results would not be its "
            "checkpoint's; copy it again or export the checkpoint again"
        )
    return file


def _open_compiled(
    checkpoint: RecordedCheckpoint,
    source: ModelSource,
    options: RunnerOptions,
    notify: Callable[[str], None],
) -> Runner:
    """Open the checkpoint's export as OpenVINO compiled it before, if the cache has that."""
    from alexnet_deploy.runtimes.openvino_runner import OpenVinoRunner, compiler

    precision = file_precision("openvino", options.device, _asked(options))
    parts = (_cache_key(checkpoint, options), compiler(), options.threads, options.outputs)
    key = "\n".join(map(str, parts))
    network = read_network(
        key, spec=checkpoint.spec, precision=precision, source=str(source), is_compiled=True
    )
    if network is not None:
        with suppress(IncompatibleFileError):  # OpenVINO may refuse it for reasons of its own
            return OpenVinoRunner(network, options)
    network = _exported(checkpoint, source, options, notify)
    runner = OpenVinoRunner(network, options)
    layers = dict.fromkeys(options.outputs, b"")
    with suppress(OutputError):  # said where the network itself was to be kept
        body = (runner.compiled_bytes(),)
        write_network(key, dataclasses.replace(network, body=body, layers=layers))
    return runner


def _exported(
    checkpoint: RecordedCheckpoint,
    source: ModelSource,
    options: RunnerOptions,
    notify: Callable[[str], None],
) -> PreparedNetwork:
    """Return the checkpoint's verified export, from the cache when it is there."""
    precision = file_precision(options.runtime, options.device, _asked(options))
    key = _cache_key(checkpoint, options)
    network = read_network(key, spec=checkpoint.spec, precision=precision, source=str(source))
    if network is not None:
        return network
    if options.device == "cuda":
        current_gpu()  # without one the work would be for nothing
    notify(f"preparing {printable(source.name)}, once: exporting and verifying it")
    file = dataclasses.replace(
        _verified(checkpoint.read(), precision, options, notify), source=str(source)
    )
    network = prepare(file, options.runtime, options.device)
    try:
        write_network(key, network)
    except OutputError as error:
        notify(f"the cache cannot be used, so this is for one run only: {error}")
    return network


def _verified(
    checkpoint: Checkpoint,
    precision: FilePrecision,
    options: RunnerOptions,
    notify: Callable[[str], None],
) -> "ModelFile":
    # Here, because a checkpoint out of the cache needs no `onnx`.
    from alexnet_deploy.export.onnx import build_file, verified_model

    own = dataclasses.replace(options, batch_size=_NUM_CACHE_SAMPLES)
    file = build_file(checkpoint, (), precision, options=own, notify=notify)
    return verified_model(file, checkpoint, varied_samples()[:_NUM_CACHE_SAMPLES], own)


def _asked(options: RunnerOptions) -> Precision:
    """Return the precision to run a checkpoint in."""
    return "fp32" if options.precision == "auto" else options.precision


def _cache_key(checkpoint: RecordedCheckpoint, options: RunnerOptions) -> str:
    """Name all that a verified export depends on: what it computes and what it ran on."""
    parts = (
        GRAPH_VERSION,
        LOWERING_VERSION,
        saturates_int8(),  # the folder may be shared between machines
        checkpoint.identity,
        checkpoint.spec.to_json(),
        options.runtime,
        options.device,
        runtime_version(options.runtime),
        _asked(options),
        options.ranges,
    )
    return "\n".join(map(str, parts))
