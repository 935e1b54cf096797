"""ONNX Runtime on the GPU: its results against the reference, and its speed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from parity import BATCH, LAYERS

from alexnet_deploy.choices import FilePrecision
from alexnet_deploy.export.onnx import build_file
from alexnet_deploy.photographs.samples import varied_samples
from alexnet_deploy.runtimes.base import RunnerOptions, usual_outputs
from alexnet_deploy.runtimes.prepared import prepare
from alexnet_deploy.verification.onnx import verify
from gpu_checks.check import Figures, Settings, Skipped, require
from gpu_checks.photographs import compared
from gpu_checks.reference import bundled, expected
from gpu_checks.runner_rates import measure, peer_of

BATCHES = (1, 32, 256)


def need_cuda_build() -> None:
    """Return if the installed ONNX Runtime is a GPU build.

    Raises:
        Skipped: it is not.
    """
    from alexnet_deploy.runtimes.onnxruntime_session import CUDA, has_provider, onnxruntime_version

    if not has_provider(CUDA):
        raise Skipped(
            f"ONNX Runtime {onnxruntime_version()} is a build for the CPU; put a wheel of "
            "onnxruntime-gpu into a folder and name it with --wheels"
        )


def parity(settings: Settings, *, precision: FilePrecision) -> Figures:
    """Verify as an export does, on the samples, then compare on all photographs.

    Returns:
        The figures of the comparison, the runner's description, node counts by provider, and the
        report.

    Raises:
        Failed: results differ from the reference's, or it is not shown that every node runs on the
            GPU.
        Skipped: this ONNX Runtime is a build for the CPU.
    """
    from alexnet_deploy.runtimes.onnxruntime_cuda_runner import OnnxRuntimeCudaRunner
    from alexnet_deploy.runtimes.onnxruntime_session import CUDA

    need_cuda_build()
    known = expected(settings)
    file = build_file(bundled(), LAYERS, precision)
    network = prepare(file, "onnxruntime", "cuda")
    options = RunnerOptions(runtime="onnxruntime", device="cuda", batch_size=BATCH, outputs=LAYERS)
    with OnnxRuntimeCudaRunner(network, options) as runner:
        figures: Figures = {"runs": runner.description}
        figures["nodes"] = {name: len(nodes) for name, nodes in (runner.placement or {}).items()}
        is_shown = set(figures["nodes"]) == {CUDA}
        require(is_shown, "it is not shown that all of it runs on the GPU", figures)
        figures = compared(runner, known, precision, figures)
    report = verify(file, bundled(), varied_samples(), options)
    figures["verification"] = report.to_dict()["checks"]
    require(report.passed, "verification failed", figures)
    return figures


def rates(settings: Settings, *, precision: FilePrecision) -> Figures:
    """Return the runner's rate by batch size, with those of the upload alone and of torch."""
    from alexnet_deploy.runtimes.onnxruntime_cuda_runner import OnnxRuntimeCudaRunner

    need_cuda_build()
    file = build_file(bundled(), ("probabilities", "fc7"), precision)
    network = prepare(file, "onnxruntime", "cuda")
    figures: Figures = {}
    with peer_of(precision) as peer:
        for batch in BATCHES:
            options = RunnerOptions(
                runtime="onnxruntime",
                device="cuda",
                batch_size=batch,
                outputs=usual_outputs(network.spec),
            )
            with OnnxRuntimeCudaRunner(network, options) as runner:
                figures[f"batch_{batch}"] = measure(runner, _upload, peer)
    return figures


@contextmanager
def _upload(images: NDArray[np.uint8]) -> Iterator[Callable[[], None]]:
    """Yield a function that copies a batch to the GPU as the runner does."""
    import onnxruntime

    place = onnxruntime.OrtValue.ortvalue_from_shape_and_type(images.shape, np.uint8, "cuda", 0)
    yield lambda: place.update_inplace(images)
