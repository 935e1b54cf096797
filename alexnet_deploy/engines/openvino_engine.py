"""Run an `.onnx` file with OpenVINO's own API on the CPU; the only importer of openvino."""

import dataclasses
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.engines.base import EngineOptions, check_images, check_outputs
from alexnet_deploy.errors import DeviceError, MissingPackageError
from alexnet_deploy.lowering import split_towers
from alexnet_deploy.onnx_graph import INPUT, ModelFile, with_outputs

try:
    import openvino
except ImportError as error:
    raise MissingPackageError("openvino", "cpu", "running a model on the CPU") from error

_PRECISIONS = {"fp32": "f32", "bf16": "bf16"}


def openvino_version() -> str:
    """Return the version of the library, without its build number."""
    return str(openvino.__version__).split("-")[0]


def native_bf16() -> bool:
    """Tell whether this CPU multiplies bfloat16 itself; others emulate it, slower than fp32."""
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class OpenVinoEngine:
    """One compiled network with a fixed batch; not for concurrent use by several threads."""

    def __init__(self, file: ModelFile, options: EngineOptions) -> None:
        """Compile `file` for the CPU.

        Raises:
            DeviceError: a device or precision that OpenVINO does not offer here.
            UsageError: a layer that the network does not have.
        """
        check_outputs(options.outputs, file.spec)
        if options.device not in ("auto", "cpu"):
            raise DeviceError(
                f"--device {options.device}: OpenVINO runs on the CPU here; use --device cpu, "
                "or --runtime onnxruntime with onnxruntime-gpu installed"
            )
        self.spec = file.spec
        self.options = dataclasses.replace(options, runtime="openvino", device="cpu")
        core = openvino.Core()
        model = core.read_model(split_towers(with_outputs(file, options.outputs)).to_bytes())
        size = file.spec.input_size
        # A fixed shape: kernels are chosen once, and every batch runs the same ones.
        model.reshape({INPUT: [options.batch_size, size, size, 3]})
        settings: dict[str, Any] = {
            # Without this hint OpenVINO takes bf16 wherever the CPU has it.
            "INFERENCE_PRECISION_HINT": _PRECISIONS[options.precision],
            "PERFORMANCE_HINT": "LATENCY",
            # Decoding threads share the cores; a pinned worker would wait for one of them.
            "ENABLE_CPU_PINNING": False,
        }
        if options.threads is not None:
            settings["INFERENCE_NUM_THREADS"] = options.threads
        compiled = core.compile_model(model, "CPU", settings)
        self._request = compiled.create_infer_request()
        threads = options.threads or compiled.get_property("INFERENCE_NUM_THREADS") or "all"
        emulated = options.precision == "bf16" and not native_bf16()
        self.description = (
            f"OpenVINO {openvino_version()}, CPU, {options.precision}"
            f"{' (emulated: this CPU has no bf16, fp32 is faster)' if emulated else ''}, "
            f"batch {options.batch_size}, threads {threads}"
        )

    def run(self, images: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        """Compute the outputs of one full batch; see `Engine.run`."""
        check_images(images, self.spec, self.options.batch_size)
        self._request.infer([images], share_inputs=True)
        return {
            name: np.array(self._request.get_tensor(name).data) for name in self.options.outputs
        }

    def close(self) -> None:
        """Free the compiled network."""
        del self._request

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
