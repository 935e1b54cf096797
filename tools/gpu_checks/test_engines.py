"""Engines of TensorRT and TensorRT-RTX: built, verified, timed, and refused when damaged."""

import functools
import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from shutil import copyfile
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from parity import LAYERS

from alexnet_deploy.export.opening import open_runner_of
from alexnet_deploy.runtimes.base import Runner, RunnerOptions
from alexnet_deploy.runtimes.gpu_driver import current_gpu
from gpu_checks.command_line import run_command
from gpu_checks.record import Figures
from gpu_checks.runner_rates import measure

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("_in_own_folder")]

PROFILE = {"min": 1, "opt": 32, "max": 256}
NUM_BATCHES = 1000
LEAK_MIB = 8.0
"""CUDA allocates in blocks of 2 MiB; a leak in every batch adds up to far more."""
SAME_CLASS = {"fp32": 0.995, "fp16": 0.995, "bf16": 0.995, "int8": 0.98}
ON_CPU = ("--device", "cpu", "--precision", "fp32")
DAMAGED = 5
"""Exit code for a damaged file."""
TURING = "7.5"
"""TensorRT-RTX builds only fp16 for it, and only if it is named."""


@pytest.mark.gpu("tensorrt")
@pytest.mark.parametrize("precision", ["fp16", "fp32", "int8", "bf16"])  # varies faster
@pytest.mark.parametrize("lrn", ["plugin", "native"])
def test_tensorrt(precision: str, lrn: str, photographs: Path, figures: Figures) -> None:
    """An engine of TensorRT's, with our kernel and with its own layer."""
    path = built(figures, "--trt", "--precision", precision, "--lrn", lrn)
    assert figures["verification"] is not None, "it was not verified"
    check_engine(path, precision, photographs, figures)


@pytest.mark.gpu("tensorrt_rtx")
@pytest.mark.timeout(120)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_rtx(precision: str, photographs: Path, figures: Figures) -> None:
    """The same of TensorRT-RTX; if it does not run on this GPU, it must be refused here."""
    from alexnet_deploy.trt.rtx_builder import compute_capabilities

    here, known = current_gpu().compute_capability, compute_capabilities()
    if here == TURING and precision != "fp16":
        pytest.skip(f"TensorRT-RTX builds fp16 only for compute capability {here}")
    target = ("--compute-capability", here) if here in known else ()
    path = built(figures, "--rtx", "--precision", precision, *target)
    if here not in known and figures["verification"] is None:
        run_command("verify", str(path), exit_code=1)
        pytest.skip(f"built, and refused here: this GPU is {here}")
    assert figures["verification"] is not None, "it was not verified"
    check_engine(path, precision, photographs, figures)


def built(figures: Figures, *how: str) -> Path:
    """Export an engine here; add seconds, size and verification."""
    path = Path("model.engine")
    batches = (word for name, size in PROFILE.items() for word in (f"--{name}-batch", str(size)))
    layers = (word for name in LAYERS for word in ("--layer", name))
    lines, seconds = run_command("export", *how, *batches, *layers, "-o", str(path), "--json")
    report = json.loads(lines[-1])["report"]
    figures |= {
        "build_s": seconds,
        "size_mb": path.stat().st_size / 1e6,
        "verification": None if report is None else report["checks"],
    }
    return path


def check_engine(path: Path, precision: str, photographs: Path, figures: Figures) -> None:
    """Add classes like those of a CPU, memory lost, and rates; a damaged copy must be refused."""
    run_command("verify", str(path))
    run_command("verify", str(damaged(path)), exit_code=DAMAGED)
    here, on_cpu = (classes(photographs, *how) for how in (("--model", str(path)), ON_CPU))
    figures["same_class"] = same = sum(map(str.__eq__, here, on_cpu)) / len(on_cpu)
    # One photograph between two classes may fall to either side.
    least = SAME_CLASS[precision] - 1 / len(on_cpu)
    assert same >= least, f"the class of a CPU in fp32 for {same:.1%}, expected {least:.1%}"
    with opened(path, PROFILE["opt"]) as runner:
        figures |= {"runs": runner.description, "lost_mib": lost_mib(runner)}
    assert figures["lost_mib"] <= LEAK_MIB, f"{NUM_BATCHES} batches lost more than {LEAK_MIB} MiB"
    for batch in PROFILE.values():
        with opened(path, batch) as runner:
            figures[f"batch_{batch}"] = measure(runner, uploading)


@functools.cache
def classes(photographs: Path, *how: str) -> list[str]:
    """Return the classes of photographs, in order."""
    lines, _ = run_command("classify", str(photographs), "--json", *how)
    return [json.loads(line)["predictions"][0]["label"] for line in lines]


@contextmanager
def uploading(images: NDArray[np.uint8]) -> Iterator[Callable[[], None]]:
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


def opened(path: Path, batch: int) -> Runner:
    """Open an engine for a batch size."""
    return open_runner_of(path, RunnerOptions(batch_size=batch, outputs=LAYERS))


def damaged(path: Path) -> Path:
    """Write a copy with one byte changed, and an unchanged sidecar."""
    copy = path.with_name(f"damaged{path.suffix}")
    plan = bytearray(path.read_bytes())
    plan[len(plan) // 2] ^= 1
    copy.write_bytes(plan)
    copyfile(f"{path}.json", f"{copy}.json")
    return copy


def lost_mib(runner: Runner) -> float:
    """Run many batches; return how much free GPU memory was lost."""
    size, batch = runner.spec.input_size, runner.options.batch_size
    images = np.zeros((batch, size, size, 3), np.uint8)
    for _ in range(10):
        runner.run(images)
    before = free_bytes()
    for _ in range(NUM_BATCHES):
        runner.run(images)
    return (before - free_bytes()) / 2**20


def free_bytes() -> int:
    """Return the GPU's free memory."""
    from cuda.bindings import runtime as cudart

    status: Any
    status, free, _ = cudart.cudaMemGetInfo()
    assert status == cudart.cudaError_t.cudaSuccess, f"cudaMemGetInfo: {status}"
    return int(free)
