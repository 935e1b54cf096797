"""From a model's path to what runs it: find the file, export a checkpoint once, open it."""

import dataclasses
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from alexnet_deploy.choices import Colour, Device, FilePrecision, Precision, Runtime, Scale
from alexnet_deploy.errors import IncompatibleFileError, OutputError
from alexnet_deploy.export.cache import read_network, write_network
from alexnet_deploy.export.recorded import RecordedCheckpoint, open_recorded
from alexnet_deploy.files.input_files import existing_file
from alexnet_deploy.files.path_text import printable
from alexnet_deploy.graph.interface import GRAPH_VERSION
from alexnet_deploy.inference.model import Model
from alexnet_deploy.model.checkpoints import Checkpoint
from alexnet_deploy.model.layers import layer_names
from alexnet_deploy.photographs.pixels import Decode
from alexnet_deploy.photographs.samples import varied_samples
from alexnet_deploy.runtimes.base import Runner, RunnerOptions, usual_outputs
from alexnet_deploy.runtimes.capabilities import file_precision
from alexnet_deploy.runtimes.engine_file import ENGINE_SUFFIX, EngineFile, read_engine
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
from alexnet_deploy.weights.names import ModelSource, chosen_model

if TYPE_CHECKING:
    from alexnet_deploy.graph.model_file import ModelFile

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
    decode: Scale = "exact",
    colour: Colour = "srgb",
    notify: Callable[[str], None] = lambda _: None,
) -> Model:
    """Open a model to classify and embed with; use it in a `with` block, or close it.

    A checkpoint is exported once, verified, and kept in the user's cache.

    Args:
        model: `.safetensors`, `.pt`, `.onnx` or `.engine`; a string that is the name of a public
            network, such as "torchvision"; None for `$ALEXNET_MODEL`, else the bundled checkpoint.
        runtime: library that runs the network; "auto" takes the fastest installed.
        device: "auto" is the GPU where the installed ONNX Runtime can use one, else the CPU.
        precision: arithmetic; "auto" is the file's own, of a checkpoint fp32.
        batch_size: photographs per call of the network at most; None for 32, or the size nearest
            to it that an engine was built for.
        threads: CPU threads, for the network and for decoding; None for all cores.
        decode: "scaled" decodes a large JPEG at a fraction of its size, "gpu" on an NVIDIA GPU.
        colour: "srgb" converts photographs by their colour profiles; "ignored" takes their numbers.
        notify: called with one line for a person when something takes a while.

    Raises:
        UsageError: no such file, a network that was not pulled, or an argument out of its range.
        IncompatibleFileError: the file is not one of ours or is damaged.
        MissingPackageError: the runtime is not installed.
        DeviceError: a GPU was asked for, and there is none.
        VerificationError: the checkpoint's export does not compute what it should.
    """
    pixels = Decode.of(decode, colour)
    source = chosen_model(model, notify=notify)
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
        return open_runner_of(source, own, notify=notify)

    if not isinstance(source, Path) or source.suffix != ENGINE_SUFFIX:
        return Model(open_runner_for(()), open_runner_for, pixels)
    engine = read_engine(source)
    return Model(_open_engine(engine, options), open_runner_for, pixels)


def open_runner_of(
    model: ModelSource | None,
    options: RunnerOptions,
    *,
    notify: Callable[[str], None] = lambda _: None,
) -> Runner:
    """Open an engine, a model file, a checkpoint or a public network, ready to run.

    Args:
        model: of a file `.engine`, `.onnx`, `.safetensors` or `.pt`; None for `chosen_model()`.
        options: how to run it.
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
        if source.suffix == ENGINE_SUFFIX:
            return _open_engine(read_engine(source), options)
        existing_file(source, "a checkpoint or an .onnx file")
        if source.suffix == ".onnx":
            return open_runner(load_model(source), options)
    checkpoint = open_recorded(source)
    # Before it is exported.
    outputs = layer_names(options.outputs or usual_outputs(checkpoint.spec), checkpoint.spec)
    options = dataclasses.replace(resolve(options), outputs=outputs)
    if options.runtime == "openvino":
        return _open_compiled(checkpoint, source, options, notify)
    return open_prepared(_exported(checkpoint, source, options, notify), options)


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
    )
    return "\n".join(map(str, parts))
