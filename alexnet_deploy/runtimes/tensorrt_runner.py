"""Run a TensorRT or TensorRT-RTX engine on a GPU that it was built for."""

import dataclasses
import threading
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy import installed
from alexnet_deploy.errors import (
    Argument,
    DeviceError,
    IncompatibleFileError,
    Message,
    UsageError,
)
from alexnet_deploy.graph.interface import INPUT
from alexnet_deploy.model.layers import layer_names
from alexnet_deploy.runtimes.base import BaseRunner, RunnerOptions, padded
from alexnet_deploy.runtimes.cuda_memory import DeviceBuffer, Graph, HostBuffer, Stream
from alexnet_deploy.runtimes.engine_file import (
    LEAN_PACKAGE,
    REBUILD_COMMANDS,
    RUNTIME_NAMES,
    EngineFile,
    check_machine,
)
from alexnet_deploy.runtimes.rtx_plan import check_plan
from alexnet_deploy.runtimes.tensorrt_library import (
    Library,
    engine_gpu,
    lean_runtime,
    load_library,
)


class TensorRtRunner(BaseRunner):
    """One execution context with a fixed batch size, to which smaller batches are padded.

    While the GPU computes a batch, another call fills or empties its own pinned memory. For each of
    these memories, copies and computation are captured once as a CUDA graph, and a batch is one
    launch; if that is not possible, `description` says why. TensorRT-RTX captures by itself.

    The shape is set only once: in a context with ahead-of-time compiled plugins each change leaks
    GPU memory (NVIDIA/TensorRT issue 4849, seen in 11.1 and 11.2).
    """

    _engine: Any = None
    _context: Any = None
    _runtimes: tuple[Any, ...] = ()

    def __init__(self, file: EngineFile, options: RunnerOptions) -> None:
        """Load the plan and allocate the memory for a batch.

        Without `options.exact_batch` the batch size is the nearest that the engine was built for.

        Raises:
            DeviceError: no GPU, not enough memory on it, a driver or a TensorRT that is too old, or
                options that the engine does not support.
            IncompatibleFileError: an engine for another machine or version, or one that contradicts
                its record.
            MissingPackageError: the library that built it is not installed.
            UsageError: a layer or a batch that the engine was not built for.
        """
        record = file.record
        if not options.exact_batch:
            batch = record.profile.nearest(options.batch_size)
            options = dataclasses.replace(options, batch_size=batch)
        outputs = layer_names(options.outputs, record.spec)
        options = dataclasses.replace(options, outputs=outputs)
        _check_options(file, options)
        gpu, library = engine_gpu(), load_library(record.runtime)
        is_rtx = record.runtime == "tensorrt-rtx"
        check_machine(
            file,
            runtime_version=library.version(),
            lean_version=installed.version_of(LEAN_PACKAGE),
            gpu=gpu,
            rtx_capabilities=library.compute_capabilities() if is_rtx else (),
        )
        options = dataclasses.replace(
            options, runtime=record.runtime, device="cuda", precision=record.precision
        )
        elsewhere = "" if record.gpu_name in (None, gpu.name) else f", built on {record.gpu_name}"
        description = (
            f"{library.name} {library.version()}, {gpu.name}{elsewhere}, {record.precision}, "
            f"batch {options.batch_size}"
        )
        super().__init__(record.spec, record.identity, options, description, num_slots=2)
        self._library = library
        self._runtimes = _runtimes(file, library)
        self._engine = _deserialized(file, library, self._runtimes[-1])
        warnings = library.messages.warnings()  # such as of a GPU with fewer multiprocessors
        if warnings:
            self.description += f"; {library.name} warns: {warnings}"
        _check_tensors(self._engine, file, library)
        with ExitStack() as stack:
            self._prepare(file, stack)
            self._resources = stack.pop_all()

    def _compute(self, images: NDArray[np.uint8], slot: int) -> Mapping[str, NDArray[np.float32]]:
        host, graph = self._host[slot], self._graphs[slot]
        np.copyto(host.images.array, padded(images, self.options.batch_size))
        with self._turn:
            try:
                if graph is None:
                    self._submit(host)
                else:
                    self._stream.launch(graph)
                self._stream.synchronize()
            except BaseException:  # Ctrl-C too: the upload may still read the staged batch
                self._wait()
                raise
        return {name: result.array[: len(images)].copy() for name, result in host.results.items()}

    def _free(self) -> None:
        if self._context is not None:
            self._wait()
        self._context = None
        self._engine = None
        self._runtimes = ()
        self._resources.close()

    def _submit(self, host: "_HostMemory") -> None:
        """Let the GPU fetch the staged batch, compute it, and store the results."""
        self._stream.upload(host.images, self._buffers[INPUT])
        if not self._context.execute_async_v3(self._stream.handle):
            reason = self._library.messages.take()
            raise DeviceError(f"{self._library.name} cannot compute a batch ({reason})")
        for name, result in host.results.items():
            self._stream.download(self._buffers[name], result)

    def _wait(self) -> None:
        """Let the GPU finish abandoned work, ignoring its errors."""
        with suppress(DeviceError):
            self._stream.synchronize()

    def _prepare(self, file: EngineFile, stack: ExitStack) -> None:
        """Create stream, context and buffers for one batch; `stack` frees them."""
        size, batch = self.spec.input_size, self.options.batch_size
        layers = self.spec.layer_shapes()
        image = (batch, size, size, 3)
        outputs = {name: (batch, *layers[name]) for name in file.record.outputs}
        self._stream = _owned(stack, Stream())
        self._context = _context(self._engine, image, file, self._library)
        # The context computes all of the engine's outputs, so each needs a buffer.
        self._buffers = {INPUT: _owned(stack, DeviceBuffer(int(np.prod(image))))} | {
            name: _owned(stack, DeviceBuffer(4 * int(np.prod(shape))))  # float32
            for name, shape in outputs.items()
        }
        for name, buffer in self._buffers.items():
            if not self._context.set_tensor_address(name, buffer.address):
                reason = self._library.messages.take()
                raise DeviceError(f"{file.source}: no buffer for {name} ({reason})")
        self._turn = threading.Lock()  # of the slots on the GPU
        wanted = {name: outputs[name] for name in self.options.outputs}
        self._host = tuple(_HostMemory.pinned(image, wanted, stack) for _ in self._slots)
        self._graphs: tuple[Graph | None, ...] = (None,) * len(self._host)
        if self._library.runtime == "tensorrt":
            self._capture(stack)

    def _capture(self, stack: ExitStack) -> None:
        """Capture a batch of each slot; `stack` frees the graphs."""
        # TensorRT completes its context with the first batch, which cannot be captured.
        self._submit(self._host[0])
        self._stream.synchronize()
        try:
            self._graphs = tuple(
                _owned(stack, self._stream.captured(partial(self._submit, host)))
                for host in self._host
            )
        except DeviceError as error:
            reason, _, _ = str(error).partition("; ")  # what to do needs no one who has results
            self.description += f", without CUDA graphs ({reason})"


@dataclass(frozen=True, slots=True)
class _HostMemory:
    """Where a slot's batch is staged, and its results arrive."""

    images: HostBuffer
    results: Mapping[str, HostBuffer]

    @classmethod
    def pinned(
        cls, image: tuple[int, ...], outputs: Mapping[str, tuple[int, ...]], stack: ExitStack
    ) -> Self:
        """Pin it; `stack` frees it."""
        results = {
            name: _owned(stack, HostBuffer(shape, np.float32)) for name, shape in outputs.items()
        }
        return cls(_owned(stack, HostBuffer(image, np.uint8)), results)


class _Closable(Protocol):
    def close(self) -> None: ...


_Resource = TypeVar("_Resource", bound=_Closable)


def _owned(stack: ExitStack, resource: _Resource) -> _Resource:
    stack.callback(resource.close)
    return resource


def _check_options(file: EngineFile, options: RunnerOptions) -> None:
    """Reject options that the engine was not built for."""
    record = file.record
    if options.runtime not in ("auto", record.runtime) or options.device == "cpu":
        raise DeviceError(
            Argument("runtime", options.runtime),
            " ",
            Argument("device", options.device),
            f": {file.source} runs with "
            f"{RUNTIME_NAMES[record.runtime]} on a GPU only; leave both out, or name an .onnx file",
        )
    if options.precision not in ("auto", record.precision):
        raise DeviceError(
            Argument("precision", options.precision),
            f": {file.source} computes in {record.precision}, as "
            f"it was built; leave it out, or build another engine",
        )
    if options.threads is not None:
        raise UsageError(
            Argument("threads", options.threads), ": an engine runs on the GPU; leave it out"
        )
    missing = [name for name in options.outputs if name not in record.outputs]
    if missing:
        raise UsageError(
            f"layers {', '.join(missing)}: {file.source} was built for "
            f"{', '.join(record.outputs)}; choose from these, or build another engine"
        )
    profile = record.profile
    if not profile.min <= options.batch_size <= profile.max:
        raise UsageError(
            Argument("batch_size", options.batch_size),
            f": {file.source} was built for {profile.min} to "
            f"{profile.max} images a batch; choose from these, or build another engine with ",
            Argument("profile.min"),
            " and ",
            Argument("profile.max"),
        )


def _runtimes(file: EngineFile, library: Library) -> tuple[Any, ...]:
    """Return the runtime that loads the plan, last, after the one that loaded that.

    Raises:
        DeviceError: CUDA does not start, or the lean runtime cannot be loaded.
    """
    runtime = library.created("a runtime", library.module.Runtime, library.logger)
    built = file.record.runtime_version
    if built == library.version():
        return (runtime,)
    path = lean_runtime(built)
    what = f"the lean runtime of {path}, which runs engines of {built},"
    remedy = Message(f"install {LEAN_PACKAGE} again")
    return runtime, library.created(what, runtime.load_runtime, str(path), remedy=remedy)


def _deserialized(file: EngineFile, library: Library, runtime: Any) -> Any:
    """Load the plan.

    Raises:
        IncompatibleFileError: the library rejects it.
        DeviceError: CUDA does not start, or TensorRT-RTX does not support the GPU or its driver.
    """
    if library.runtime == "tensorrt-rtx":
        check_plan(file.plan, file.source)
    library.messages.take()
    engine = runtime.deserialize_cuda_engine(file.plan)
    if engine is None:
        raise IncompatibleFileError(
            f"{file.source}: {library.name} cannot load it ({library.messages.take()}); build it "
            f"again on this machine with: {REBUILD_COMMANDS[library.runtime]}"
        )
    return engine


def _check_tensors(engine: Any, file: EngineFile, library: Library) -> None:
    """Reject an engine whose inputs, outputs or batch sizes are not those of its record."""
    record, trt = file.record, library.module
    size = record.spec.input_size
    modes, layers = trt.TensorIOMode, record.spec.layer_shapes()
    expected = {INPUT: (modes.INPUT, trt.DataType.UINT8, (size, size, 3))} | {
        name: (modes.OUTPUT, trt.DataType.FLOAT, layers[name]) for name in record.outputs
    }
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    found = {
        name: (
            engine.get_tensor_mode(name),
            engine.get_tensor_dtype(name),
            tuple(engine.get_tensor_shape(name))[1:],
        )
        for name in names
    }
    _require_same(file, "tensors", found, expected)
    profile = [tuple(shape) for shape in engine.get_tensor_profile_shape(INPUT, 0)]
    _require_same(file, "batches", profile, list(record.profile.shapes((size, size, 3))))


def _require_same(file: EngineFile, what: str, found: object, expected: object) -> None:
    if found != expected:
        raise IncompatibleFileError(
            f"{file.source}: the {what} of the plan are {found}, its record says {expected}; "
            f"build it again with: {REBUILD_COMMANDS[file.record.runtime]}"
        )


def _context(engine: Any, image: tuple[int, ...], file: EngineFile, library: Library) -> Any:
    """Return an execution context with the input shape set.

    Raises:
        DeviceError: not enough memory.
        IncompatibleFileError: it does not accept that shape.
    """
    remedy = Message(
        "free some memory on the GPU, or build an engine with a smaller ", Argument("profile.max")
    )
    context = library.created(
        f"an execution context for {file.source}",
        engine.create_execution_context,
        *_context_settings(engine, library),
        remedy=remedy,
    )
    if not context.set_input_shape(INPUT, image):
        raise IncompatibleFileError(
            f"{file.source}: does not take {image} ({library.messages.take()}); build it again "
            f"with: {REBUILD_COMMANDS[library.runtime]}"
        )
    return context


def _context_settings(engine: Any, library: Library) -> tuple[Any, ...]:
    """Return the arguments that a context is created with."""
    if library.runtime == "tensorrt":
        return ()
    # By default TensorRT-RTX starts with shape-generic kernels and switches to specialized ones
    # once compiled: results would differ by rounding, and from those verified.
    strategy = library.module.DynamicShapesKernelSpecializationStrategy
    config = library.created("a runtime configuration", engine.create_runtime_config)
    config.dynamic_shapes_kernel_specialization_strategy = strategy.EAGER
    config.cuda_graph_strategy = library.module.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    return (config,)
