"""Run an `.onnx` file with ONNX Runtime on the CPU; the only importer of onnxruntime."""

import dataclasses
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.engines.base import EngineOptions, check_images, check_outputs
from alexnet_deploy.errors import DeviceError, MissingPackageError
from alexnet_deploy.lowering import banded_convolution
from alexnet_deploy.onnx_graph import INPUT, ModelFile, with_outputs

try:
    import onnxruntime
except ImportError as error:
    raise MissingPackageError("onnxruntime", "cpu", "running a model") from error

_PROVIDER = "CPUExecutionProvider"


def onnxruntime_version() -> str:
    """Return the version of the library."""
    return str(onnxruntime.__version__)


def execution_providers() -> tuple[str, ...]:
    """Return the execution providers that this build of ONNX Runtime has."""
    return tuple(onnxruntime.get_available_providers())


class OnnxRuntimeEngine:
    """One inference session with a fixed batch."""

    def __init__(self, file: ModelFile, options: EngineOptions) -> None:
        """Load `file` for the CPU.

        Raises:
            DeviceError: a device or precision that this build does not offer.
            UsageError: a layer that the network does not have.
        """
        check_outputs(options.outputs, file.spec)
        if options.device not in ("auto", "cpu"):
            raise DeviceError(
                f"--device {options.device}: this build of ONNX Runtime has "
                f"{', '.join(execution_providers())}; use --device cpu"
            )
        if options.precision != "fp32":
            raise DeviceError(
                f"--precision {options.precision}: ONNX Runtime's CPU kernels compute in fp32; "
                "use --runtime openvino for bf16, or --precision fp32"
            )
        self.spec = file.spec
        self.options = dataclasses.replace(options, runtime="onnxruntime", device="cpu")
        session_options = onnxruntime.SessionOptions()
        session_options.log_severity_level = 3
        if options.threads is not None:
            session_options.intra_op_num_threads = options.threads
        self._session = onnxruntime.InferenceSession(
            banded_convolution(with_outputs(file, options.outputs)).to_bytes(),
            session_options,
            providers=[_PROVIDER],
            enable_fallback=0,
        )
        self.description = (
            f"ONNX Runtime {onnxruntime_version()}, CPU, fp32, batch {options.batch_size}, "
            f"threads {options.threads or 'all'}"
        )

    def run(self, images: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        """Compute the outputs of one full batch; see `Engine.run`."""
        check_images(images, self.spec, self.options.batch_size)
        names = list(self.options.outputs)
        return dict(zip(names, self._session.run(names, {INPUT: images}), strict=True))

    def close(self) -> None:
        """Free the session."""
        del self._session

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
