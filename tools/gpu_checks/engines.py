"""Engines of TensorRT and TensorRT-RTX: built, verified, timed, and refused when damaged."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from shutil import copyfile
from typing import Any

import numpy as np
from numpy.typing import NDArray
from parity import BATCH, LAYERS

from alexnet_deploy import installed
from alexnet_deploy.export.opening import open_runner_of
from alexnet_deploy.runtimes.base import Runner, RunnerOptions
from alexnet_deploy.runtimes.gpu_driver import current_gpu
from gpu_checks.check import Figures, Settings, Skipped, require
from gpu_checks.command_line import run_command
from gpu_checks.photographs import compared
from gpu_checks.reference import expected
from gpu_checks.runner_rates import measure, peer_of

PROFILE = {"min": 1, "opt": 32, "max": 256}
NUM_BATCHES = 1000
LEAK_MIB = 8.0
"""CUDA allocates in blocks of 2 MiB; a leak in every batch adds up to far more."""
DAMAGED = 5
"""Exit code for a damaged file."""
TURING = "7.5"
"""TensorRT-RTX builds only fp16 for it, and only if it is named."""


def tensorrt(settings: Settings, *, precision: str, lrn: str) -> Figures:
    """Build, verify and time a TensorRT engine, and try a damaged copy.

    Raises:
        Failed: it cannot be built, gives wrong results, leaks, or runs although damaged.
        Skipped: TensorRT is not installed.
    """
    _need("tensorrt", "tensorrt")
    figures, path = _built("--trt", "--precision", precision, "--lrn", lrn)
    require(figures["verification"] is not None, "it was not verified", figures)
    return checked(path, settings, precision, figures)


def rtx(settings: Settings, *, precision: str) -> Figures:
    """Build a TensorRT-RTX engine, and do the same if it runs on this GPU.

    Raises:
        Failed: as for `tensorrt`; or an engine that cannot run here is not rejected.
        Skipped: TensorRT-RTX is not installed, does not build for this GPU, or built an engine that
            it does not run on this GPU.
    """
    _need("tensorrt_rtx", "rtx")
    from alexnet_deploy.trt.rtx_builder import compute_capabilities

    here, known = current_gpu().compute_capability, compute_capabilities()
    if here == TURING and precision != "fp16":
        raise Skipped(f"TensorRT-RTX builds fp16 only for compute capability {here}")
    target = ("--compute-capability", here) if here in known else ()
    figures, path = _built("--rtx", "--precision", precision, *target)
    if here not in known and figures["verification"] is None:
        run_command("verify", str(path), exit_code=1)
        raise Skipped(f"built, and refused here: this GPU is {here}", figures)
    require(figures["verification"] is not None, "it was not verified", figures)
    return checked(path, settings, precision, figures)


def _need(module: str, extra: str) -> None:
    if not installed.has_module(module):
        raise Skipped(f"needs {module}: pip install 'alexnet-deploy[{extra}]', or a wheel")


def _built(*how: str) -> tuple[Figures, Path]:
    path = Path("model.engine")
    batches = (word for name, size in PROFILE.items() for word in (f"--{name}-batch", str(size)))
    layers = (word for name in LAYERS for word in ("--layer", name))
    lines, seconds = run_command("export", *how, *batches, *layers, "-o", str(path), "--json")
    report = json.loads(lines[-1])["report"]
    return {
        "build_s": seconds,
        "size_mb": path.stat().st_size / 1e6,
        "verification": None if report is None else report["checks"],
    }, path


def checked(path: Path, settings: Settings, precision: str, so_far: Figures) -> Figures:
    """Return `so_far` with parity, memory lost, and rates; a damaged copy must be rejected.

    Raises:
        Failed: it is not, memory is lost, or the engine gives wrong results.
    """
    run_command("verify", str(path))
    run_command("verify", str(_damaged(path)), exit_code=DAMAGED)
    known = expected(settings)
    with _opened(path, BATCH) as runner:
        figures = {**so_far, "runs": runner.description}
        figures = compared(runner, known, precision, figures)
        figures["lost_mib"] = lost = _lost_mib(runner)
    require(lost <= LEAK_MIB, f"{NUM_BATCHES} batches lost {lost:.0f} MiB", figures)
    with peer_of(precision) as peer:
        for batch in PROFILE.values():
            with _opened(path, batch) as runner:
                figures[f"batch_{batch}"] = measure(runner, _upload, peer)
    return figures


@contextmanager
def _upload(images: NDArray[np.uint8]) -> Iterator[Callable[[], None]]:
    """Yield a function that copies a batch to the GPU through pinned memory, as the runner does."""
    from alexnet_deploy.runtimes.cuda_memory import DeviceBuffer, HostBuffer, Stream

    with (
        closing(HostBuffer(images.shape, np.uint8)) as source,
        closing(DeviceBuffer(images.nbytes)) as target,
        closing(Stream()) as stream,
    ):

        def upload() -> None:
            source.array[...] = images
            stream.upload(source, target)
            stream.synchronize()

        yield upload


def _opened(path: Path, batch: int) -> Runner:
    return open_runner_of(path, RunnerOptions(batch_size=batch, outputs=LAYERS))


def _damaged(path: Path) -> Path:
    """Write a copy with one byte changed, and an unchanged sidecar."""
    copy = path.with_name(f"damaged{path.suffix}")
    plan = bytearray(path.read_bytes())
    plan[len(plan) // 2] ^= 1
    copy.write_bytes(plan)
    copyfile(f"{path}.json", f"{copy}.json")
    return copy


def _lost_mib(runner: Runner) -> float:
    """Run many batches; return how much free GPU memory was lost."""
    size, batch = runner.spec.input_size, runner.options.batch_size
    images = np.zeros((batch, size, size, 3), np.uint8)
    for _ in range(10):
        runner.run(images)
    before = _free_bytes()
    for _ in range(NUM_BATCHES):
        runner.run(images)
    return (before - _free_bytes()) / 2**20


def _free_bytes() -> int:
    from cuda.bindings import runtime as cudart

    status: Any
    status, free, _ = cudart.cudaMemGetInfo()
    require(status == cudart.cudaError_t.cudaSuccess, f"cudaMemGetInfo: {status}", {})
    return int(free)
