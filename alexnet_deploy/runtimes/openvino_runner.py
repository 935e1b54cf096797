"""Run a network with OpenVINO's own API on the CPU; the only importer of openvino."""

import dataclasses
import io
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.choices import Precision
from alexnet_deploy.errors import IncompatibleFileError, MissingPackageError
from alexnet_deploy.graph.interface import INPUT
from alexnet_deploy.model.layers import layer_names
from alexnet_deploy.runtimes.base import BaseRunner, RunnerOptions
from alexnet_deploy.runtimes.capabilities import run_precision
from alexnet_deploy.runtimes.prepared import PreparedNetwork

# Importing openvino sends an event to Google Analytics and writes an identifier to the home folder;
# without this module it does neither (openvino/tools/ovc/telemetry_utils.py).
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
try:
    import openvino
except ImportError as error:
    raise MissingPackageError("openvino", "cpu", "running a model on the CPU") from error

# An fp16 or int8 file's precision is in its graph; the rest of it is float32.
_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f32", "int8": "f32"}


def openvino_version() -> str:
    """Return the version of the library, without its build number."""
    return str(openvino.__version__).split("-")[0]


def compiler() -> str:
    """Return all that a compiled network depends on, but for the network and its options."""
    processor = openvino.Core().get_property("CPU", "FULL_DEVICE_NAME")
    return f"{openvino.__version__} {processor}"


def native_bf16() -> bool:
    """Return whether this CPU multiplies bfloat16 natively; others emulate it, slower than fp32."""
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class OpenVinoRunner(BaseRunner):
    """One compiled network for batches of any size.

    Attributes:
        inference_precision: the precision that OpenVINO reports computing in.
    """

    def __init__(self, network: PreparedNetwork, options: RunnerOptions) -> None:
        """Compile `network` for the CPU.

        Raises:
            IncompatibleFileError: OpenVINO cannot compile the graph.
            DeviceError: a precision that OpenVINO does not compute in on a CPU.
            UsageError: a layer that the network does not have, or a precision that does not match
                the file's.
        """
        precision = run_precision(
            "openvino", "cpu", options.precision, network.precision, network.source
        )
        options = dataclasses.replace(
            options,
            runtime="openvino",
            device="cpu",
            precision=precision,
            outputs=layer_names(options.outputs, network.spec),
        )
        settings: dict[str, Any] = {
            # Without this hint OpenVINO uses bf16 wherever the CPU supports it.
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "PERFORMANCE_HINT": "LATENCY",
            # Decoding threads share the cores; a pinned worker would have to wait for them.
            "ENABLE_CPU_PINNING": False,
        }
        if options.threads is not None:
            settings["INFERENCE_NUM_THREADS"] = options.threads
        self._compiled = _compiled(network, options, settings)
        self.inference_precision = str(self._compiled.get_property("INFERENCE_PRECISION_HINT"))
        self._request = self._compiled.create_infer_request()
        # The memory of one that is compiled; last, so that it is freed last.
        self._network: PreparedNetwork | None = network
        threads = options.threads or self._compiled.get_property("INFERENCE_NUM_THREADS") or "all"
        description = (
            f"OpenVINO {openvino_version()}, CPU, {options.precision}"
            f"{_remark(precision, self.inference_precision)}, "
            f"batch {options.batch_size}, threads {threads}"
        )
        super().__init__(network.spec, network.identity, options, description)

    def compiled_bytes(self) -> memoryview:
        """Return the compiled network, for a machine like this and the same options."""
        stream = io.BytesIO()
        self._compiled.export_model(stream)
        return stream.getbuffer()

    def _compute(self, images: NDArray[np.uint8], slot: int) -> Mapping[str, NDArray[np.float32]]:
        self._request.infer([images], share_inputs=True)
        return {
            name: np.array(self._request.get_tensor(name).data) for name in self.options.outputs
        }

    def _free(self) -> None:
        self._request = self._compiled = None
        self._network = None


def _remark(precision: Precision, computed: str) -> str:
    """Return a remark where the arithmetic is not what the precision's name suggests."""
    if precision == "fp16":
        return " (its weights; computed in fp32)"
    if precision == "bf16" and "bfloat16" not in computed:  # nor can it emulate it
        return " (computed in fp32: this CPU has no bf16)"
    if precision == "bf16" and not native_bf16():
        return " (emulated: this CPU has no bf16, fp32 is faster)"
    return ""


def _compiled(network: PreparedNetwork, options: RunnerOptions, settings: dict[str, Any]) -> Any:
    core = openvino.Core()
    size = network.spec.input_size
    try:
        if network.is_compiled:
            (body,) = network.body
            # Its weights stay where they are: the caller keeps the network as long as this.
            blob = openvino.Tensor(np.frombuffer(body, np.uint8), shared_memory=True)
            return core.import_model(blob, "CPU", settings)
        model = core.read_model(network.to_bytes(options.outputs))
        # As fast as with N fixed, and bitwise the same for any N (tested).
        model.reshape({INPUT: [-1, size, size, 3]})
        return core.compile_model(model, "CPU", settings)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise IncompatibleFileError(
            f"{network.source}: OpenVINO cannot compile it ({reason}); export the checkpoint again"
        ) from error
