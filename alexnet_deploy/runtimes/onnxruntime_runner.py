"""Run a network with ONNX Runtime on the CPU."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.choices import Precision
from alexnet_deploy.graph.interface import INPUT
from alexnet_deploy.model.layers import layer_names
from alexnet_deploy.runtimes.base import BaseRunner, RunnerOptions
from alexnet_deploy.runtimes.capabilities import run_precision
from alexnet_deploy.runtimes.onnxruntime_session import onnxruntime_version, open_session
from alexnet_deploy.runtimes.prepared import PreparedNetwork

if TYPE_CHECKING:
    from alexnet_deploy.graph.model_file import ModelFile


def run_as_written(
    file: "ModelFile", images: NDArray[np.uint8]
) -> Mapping[str, NDArray[np.float32]]:
    """Run the graph as written, not lowered, and return its outputs.

    Args:
        file: any `.onnx` model that takes `images`.
        images: (N, H, W, 3) uint8, N free.

    Raises:
        IncompatibleFileError: ONNX Runtime cannot load the graph.
    """
    names = list(file.outputs())
    session = open_session(file.to_bytes(), file.source)
    return dict(zip(names, session.run(names, {INPUT: images}), strict=True))


# Version 1.31 removes the casts to float16, for which it has no CPU kernels, and fuses none of this
# graph's Q/DQ pairs into int8 kernels.
_REMARKS: Mapping[Precision, str] = {
    "fp16": " (its weights; computed in fp32)",
    "int8": " (rounded to; multiplied in fp32)",
}


class OnnxRuntimeRunner(BaseRunner):
    """One inference session for batches of any size."""

    def __init__(self, network: PreparedNetwork, options: RunnerOptions) -> None:
        """Load `network` for the CPU.

        Raises:
            DeviceError: a precision that ONNX Runtime does not compute in on a CPU.
            IncompatibleFileError: ONNX Runtime cannot load the graph.
            UsageError: a layer that the network does not have, or a precision that does not match
                the file's.
        """
        precision = run_precision(
            "onnxruntime", "cpu", options.precision, network.precision, network.source
        )
        options = dataclasses.replace(
            options,
            runtime="onnxruntime",
            device="cpu",
            precision=precision,
            outputs=layer_names(options.outputs, network.spec),
        )
        content = network.to_bytes(options.outputs)
        self._session = open_session(content, network.source, threads=options.threads)
        description = (
            f"ONNX Runtime {onnxruntime_version()}, CPU, {precision}{_REMARKS.get(precision, '')}, "
            f"batch {options.batch_size}, threads {options.threads or 'all'}"
        )
        super().__init__(network.spec, network.identity, options, description)

    def _compute(self, images: NDArray[np.uint8], slot: int) -> Mapping[str, NDArray[np.float32]]:
        names = list(self.options.outputs)
        return dict(zip(names, self._session.run(names, {INPUT: images}), strict=True))

    def _free(self) -> None:
        self._session = None
