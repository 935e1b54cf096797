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
from gpu_checks.engine_rates import measure, peer_of
from gpu_checks.photographs import compared
from gpu_checks.reference import expected

PROFILE = {"min": 1, "opt": 32, "max": 256}
NUM_BATCHES = 1000
LEAK_MIB = 8.0
"""CUDA hands out memory in pieces of 2 MiB; a leak in every batch comes to far more."""
DAMAGED = 5
"""Exit code for a file that is not what it says."""
TURING = "7.5"
"""TensorRT-RTX builds fp16 only for it, and nothing unless it is named."""


def tensorrt(settings: Settings, *, precision: str, lrn: str) -> Figures:
    """Do all that is done with an engine of TensorRT.

    Raises:
        Failed: it cannot be built, computes something else, leaks, or runs though it is damaged.
        Skipped: TensorRT is not installed.
    """
    _need("tensorrt", "tensorrt")
    figures, path = _built("--trt", "--precision", precision, "--lrn", lrn)
    require(figures["verification"] is not None, "it was not verified", figures)
    return checked(path, settings, precision, figures)


def rtx(settings: Settings, *, precision: str) -> Figures:
    """Build an engine of TensorRT-RTX, and do the rest where it runs on this GPU.

    Raises:
        Failed: as for `tensorrt`; or an engine that cannot run here is not refused.
        Skipped: TensorRT-RTX is not installed, or has no such engines for this GPU; or it was
            built, and the library does not run it on this GPU.
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
    """Return `so_far` with parity, what memory is lost, and rates; a damaged copy is refused.

    Raises:
        Failed: it is not, memory is lost, or the engine computes something else.
    """
    run_command("verify", str(path))
    run_command("verify", str(_damaged(path)), exit_code=DAMAGED)
    known = expected(settings)
    with _opened(path, BATCH) as engine:
        figures = {**so_far, "runs": engine.description}
        figures = compared(engine, known, precision, figures)
        figures["lost_mib"] = lost = _lost_mib(engine)
    require(lost <= LEAK_MIB, f"{NUM_BATCHES} batches lost {lost:.0f} MiB", figures)
    with peer_of(precision) as peer:
        for batch in PROFILE.values():
            with _opened(path, batch) as engine:
                figures[f"batch_{batch}"] = measure(engine, _upload, peer)
    return figures


@contextmanager
def _upload(images: NDArray[np.uint8]) -> Iterator[Callable[[], None]]:
    """Yield what copies a batch to the GPU, through pinned memory, as the engine does it."""
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
    """Write a copy in which one byte is another, with the sidecar as it was."""
    copy = path.with_name(f"damaged{path.suffix}")
    plan = bytearray(path.read_bytes())
    plan[len(plan) // 2] ^= 1
    copy.write_bytes(plan)
    copyfile(f"{path}.json", f"{copy}.json")
    return copy


def _lost_mib(engine: Runner) -> float:
    """Run many batches; return by how much the GPU's free memory shrank."""
    size, batch = engine.spec.input_size, engine.options.batch_size
    images = np.zeros((batch, size, size, 3), np.uint8)
    for _ in range(10):
        engine.run(images)
    before = _free_bytes()
    for _ in range(NUM_BATCHES):
        engine.run(images)
    return (before - _free_bytes()) / 2**20


def _free_bytes() -> int:
    from cuda.bindings import runtime as cudart

    status: Any
    status, free, _ = cudart.cudaMemGetInfo()
    require(status == cudart.cudaError_t.cudaSuccess, f"cudaMemGetInfo: {status}", {})
    return int(free)
