"""Run a network with ONNX Runtime on an NVIDIA GPU, entirely or not at all.

The graph is not lowered: cuDNN implements local response normalization, so the folded form
(Reshape, LRN, Reshape) is fast; in an fp16 file it is in float32, between casts. The whole network
is captured once as a CUDA graph: a batch is then one copy to the GPU, one launch, and one copy back
per output.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.errors import Argument, DeviceError, IncompatibleFileError, Message
from alexnet_deploy.model.layers import layer_names
from alexnet_deploy.runtimes.base import BaseRunner, RunnerOptions, padded
from alexnet_deploy.runtimes.capabilities import run_precision
from alexnet_deploy.runtimes.gpu_driver import current_gpu
from alexnet_deploy.runtimes.onnxruntime_session import (
    CUDA,
    BoundSession,
    has_provider,
    is_runtime_error,
    let_warn,
    load_cuda_libraries,
    node_placement,
    onnxruntime_version,
    open_session,
)
from alexnet_deploy.runtimes.prepared import PreparedNetwork

_PROVIDER_OPTIONS = {
    "device_id": "0",
    # All batches have one shape, so the exhaustive search per convolution is paid once.
    "cudnn_conv_algo_search": "EXHAUSTIVE",
    # TF32, the default, has 10 bits of mantissa, 5e-4 per rounding; fp32 is allowed 1e-4 in all.
    "use_tf32": "0",
    "enable_cuda_graph": "1",
    "do_copy_in_default_stream": "1",
}
_RECORD = {"session.record_ep_graph_assignment_info": "1"}
_ALL_ON_THE_GPU = {"session.disable_cpu_ep_fallback": "1"}


class OnnxRuntimeCudaRunner(BaseRunner):
    """One captured network with a fixed batch size, to which smaller batches are padded.

    Attributes:
        placement: names of the nodes by the provider that runs them.
    """

    def __init__(self, network: PreparedNetwork, options: RunnerOptions) -> None:
        """Load `network` onto the first GPU and capture the graph with one dummy batch.

        Raises:
            DeviceError: no GPU, ONNX Runtime built for the CPU, missing CUDA libraries,
                not enough memory, an unsupported precision, or a node that would run on the CPU.
            IncompatibleFileError: ONNX Runtime cannot load the graph on any device.
            UsageError: a layer that the network does not have, or a precision that does not match
                the file's.
        """
        precision = run_precision(
            "onnxruntime", "cuda", options.precision, network.precision, network.source
        )
        gpu = _usable_gpu()
        options = dataclasses.replace(
            options,
            runtime="onnxruntime",
            device="cuda",
            precision=precision,
            outputs=layer_names(options.outputs, network.spec),
        )
        session = _open(network.to_bytes(options.outputs), network.source, options)
        self.placement = node_placement(session)
        _check_placement(self.placement, network.source)
        description = (
            f"ONNX Runtime {onnxruntime_version()}, CUDA on {gpu}, {precision}, "
            f"batch {options.batch_size}"
        )
        super().__init__(network.spec, network.identity, options, description)
        # ONNX Runtime captures one graph per calling thread, so every call goes through this one.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cuda")
        try:
            self._thread.submit(self._capture, session).result()
        except BaseException:
            self._thread.shutdown(wait=False)
            raise

    def _capture(self, session: Any) -> None:
        with _as_device_error(self.description):
            self._bound: BoundSession | None = BoundSession(session, "cuda")
            size = self.spec.input_size
            self._bound.run(np.zeros((self.options.batch_size, size, size, 3), np.uint8))

    def _compute(self, images: NDArray[np.uint8], slot: int) -> Mapping[str, NDArray[np.float32]]:
        assert self._bound is not None
        batch = padded(images, self.options.batch_size)
        with _as_device_error(self.description):
            outputs = self._thread.submit(self._bound.run, batch).result()
        return {name: outputs[name][: len(images)] for name in self.options.outputs}

    def _free(self) -> None:
        self._bound = None
        self._thread.shutdown(wait=False)


def _usable_gpu() -> str:
    """Return the name of the GPU that a session would use.

    Raises:
        DeviceError: there is none, or this ONNX Runtime cannot use one.
    """
    gpu = current_gpu()
    if not has_provider(CUDA):
        raise DeviceError(
            Argument("device", "cuda"),
            f": the installed ONNX Runtime {onnxruntime_version()} is a build for "
            "the CPU; pip uninstall onnxruntime, then pip install 'alexnet-deploy[gpu]'",
        )
    return gpu.name


def _open(content: bytes, source: str, options: RunnerOptions) -> Any:
    """Open a session with every node on the GPU.

    Raises:
        DeviceError: not possible on this machine.
        IncompatibleFileError: the graph cannot be loaded anywhere.
    """
    let_warn(False)  # at every start it warns that CUDA is not a plug-in
    missing = load_cuda_libraries()
    try:
        return open_session(
            content,
            source,
            provider=CUDA,
            provider_options=_PROVIDER_OPTIONS,
            settings=_RECORD | _ALL_ON_THE_GPU,
            batch_size=options.batch_size,
            threads=options.threads,
        )
    except IncompatibleFileError as error:
        open_session(content, source)  # raises if the graph itself is at fault
        raise DeviceError(
            f"{source}: ONNX Runtime {onnxruntime_version()} cannot run it on the GPU: ",
            _reason(content, source, missing) or str(error.__cause__).splitlines()[0],
        ) from error


def _reason(content: bytes, source: str, missing: str) -> Message | None:
    """Explain why there is no session and what to do; None if only the error itself can.

    Args:
        content: the graph, an ONNX model.
        source: where it comes from.
        missing: CUDA libraries that were not found.
    """
    remedy = "install CUDA's libraries: pip install 'onnxruntime-gpu[cuda,cudnn]'"
    if missing:
        return Message(f"{missing}; {remedy}")
    let_warn(True)  # a provider that does not start is only a warning
    options = _PROVIDER_OPTIONS | {"enable_cuda_graph": "0"}
    try:
        session = open_session(
            content, source, provider=CUDA, provider_options=options, settings=_RECORD
        )
    except IncompatibleFileError:
        return None
    placement = node_placement(session)
    if CUDA not in placement:
        return Message(f"its CUDA provider does not start, for the reason above; {remedy}")
    nodes = ", ".join(_elsewhere(placement))
    remedy_there = Argument("device", "cpu")
    return Message(f"on the CPU would run {nodes}; use ", remedy_there) if nodes else None


def _check_placement(placement: Mapping[str, tuple[str, ...]], source: str) -> None:
    """Reject a session with any node not on the GPU, or with none at all.

    Raises:
        DeviceError: naming the nodes.
    """
    if set(placement) != {CUDA}:
        raise DeviceError(
            f"{source}: ONNX Runtime {onnxruntime_version()} would not run all of it on the GPU, "
            f"but {', '.join(_elsewhere(placement)) or 'nothing'} elsewhere; use ",
            Argument("device", "cpu"),
        )


def _elsewhere(placement: Mapping[str, tuple[str, ...]]) -> list[str]:
    return [name for provider, names in placement.items() if provider != CUDA for name in names]


@contextmanager
def _as_device_error(what: str) -> Iterator[None]:
    """Turn an ONNX Runtime error into a `DeviceError` with its remedy."""
    try:
        yield
    except Exception as error:  # its exceptions have no public base
        if not is_runtime_error(error):
            raise
        raise DeviceError(
            f"{what}: failed on the GPU ({str(error).splitlines()[0]}); a smaller ",
            Argument("batch_size"),
            " needs less of its memory, ",
            Argument("device", "cpu"),
            " none",
        ) from error
