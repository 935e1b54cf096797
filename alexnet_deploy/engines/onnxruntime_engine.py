"""Run an `.onnx` file with ONNX Runtime on the CPU; the only importer of onnxruntime."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.engines.base import EngineOptions, check_images, check_outputs
from alexnet_deploy.errors import DeviceError, IncompatibleFileError, MissingPackageError
from alexnet_deploy.lowering import banded_convolution
from alexnet_deploy.model_file import INPUT, ModelFile

# Its official builds report to Microsoft unless this is set before the import (their PR 27379).
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
try:
    import onnxruntime
except ImportError as error:
    raise MissingPackageError("onnxruntime", "cpu", "running a model") from error

_PROVIDER = "CPUExecutionProvider"


def onnxruntime_version() -> str:
    """Return the version of the library."""
    return str(onnxruntime.__version__)


def run_as_written(file: ModelFile, images: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
    """Run the graph as it is written, not lowered, and return its own outputs.

    Args:
        file: any `.onnx` model that takes `images`.
        images: (N, H, W, 3) uint8, N free.

    Raises:
        IncompatibleFileError: ONNX Runtime cannot load the graph.
    """
    names = list(file.outputs())
    return dict(zip(names, _session(file, None).run(names, {INPUT: images}), strict=True))


class OnnxRuntimeEngine:
    """One inference session with a fixed batch."""

    def __init__(self, file: ModelFile, options: EngineOptions) -> None:
        """Load `file` for the CPU.

        Raises:
            DeviceError: a precision that ONNX Runtime does not compute in on a CPU.
            IncompatibleFileError: ONNX Runtime cannot load the graph.
            UsageError: a layer that the network does not have.
        """
        check_outputs(options.outputs, file.spec)
        if options.precision != "fp32":
            raise DeviceError(
                f"--precision {options.precision}: ONNX Runtime's CPU kernels compute in fp32; "
                "use --runtime openvino for bf16, or --precision fp32"
            )
        self.spec = file.spec
        self.fingerprint = file.fingerprint
        self.options = dataclasses.replace(options, runtime="onnxruntime", device="cpu")
        lowered = banded_convolution(file.with_outputs(options.outputs))
        self._session = _session(lowered, options.threads)
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
        self._session = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _session(file: ModelFile, threads: int | None) -> Any:
    """Open a session that never falls back to anything else."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(
            file.to_bytes(), options, providers=[_PROVIDER], enable_fallback=0
        )
    except Exception as error:  # its exceptions have no public base
        raise IncompatibleFileError(
            f"{file.source}: ONNX Runtime cannot load it ({str(error).splitlines()[0]}); "
            "export the checkpoint again"
        ) from error
