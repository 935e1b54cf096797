"""Which runtimes and devices work on this machine, found by running them, and why others do not."""

import ctypes.util
import importlib.metadata
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from alexnet_deploy.engines.base import EngineOptions, Precision, Runtime
from alexnet_deploy.engines.factory import is_installed, open_engine
from alexnet_deploy.errors import AlexNetDeployError
from alexnet_deploy.models import bundled_checkpoint, cache_directory, load_model

# Distribution, module to look for, what it is for, the extra that brings it.
_PACKAGES = (
    ("torch", "torch", "reading .pt files", "torch"),
    ("faiss-cpu", "faiss", "search", "cpu"),
    ("pyarrow", "pyarrow", "Parquet", "parquet"),
    ("tensorrt", "tensorrt", "TensorRT engines", "tensorrt"),
    ("tensorrt-rtx", "tensorrt_rtx", "TensorRT-RTX engines", "rtx"),
)
_COMBINATIONS: tuple[tuple[Runtime, Precision], ...] = (
    ("openvino", "fp32"),
    ("openvino", "bf16"),
    ("onnxruntime", "fp32"),
)
_ONNX_RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what it is.
        works: True, False, or None where it is only information.
        detail: version and speed, or the reason and the remedy.
    """

    name: str
    works: bool | None
    detail: str


def examine() -> Iterator[Finding]:
    """Yield findings one by one; runtimes are tried with the bundled checkpoint."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    machine = f"{platform.system()} {platform.machine()}, {cores} cores"
    yield Finding(
        name="machine", works=None, detail=f"{machine}, Python {platform.python_version()}"
    )
    for runtime, precision in _COMBINATIONS:
        yield _try_runtime(runtime, precision)
    yield _nvidia()
    yield from _onnxruntime_distributions()
    for distribution, module, purpose, extra in _PACKAGES:
        if is_installed(module):
            detail = f"{_version(distribution)}, for {purpose}"
            yield Finding(name=distribution, works=True, detail=detail)
        else:
            remedy = f"pip install 'alexnet-deploy[{extra}]'"
            yield Finding(
                name=distribution, works=None, detail=f"not installed, for {purpose}: {remedy}"
            )
    yield _cache()


def _try_runtime(runtime: Runtime, precision: Precision) -> Finding:
    """Load the bundled checkpoint and time the second of two batches."""
    name = f"{runtime} cpu {precision}"
    try:
        file = load_model(bundled_checkpoint())
        options = EngineOptions(
            runtime=runtime, device="cpu", precision=precision, outputs=("probabilities",)
        )
        with open_engine(file, options) as engine:
            size = engine.spec.input_size
            noise = np.random.default_rng(0).integers(0, 256, (32, size, size, 3), np.uint8)
            engine.run(noise)
            start = time.perf_counter()
            engine.run(noise)
            rate = len(noise) / (time.perf_counter() - start)
            return Finding(
                name=name, works=True, detail=f"{engine.description}: {rate:.0f} images/s"
            )
    except AlexNetDeployError as error:
        return Finding(name=name, works=False, detail=str(error))


def _nvidia() -> Finding:
    if ctypes.util.find_library("cuda") is None:
        return Finding(name="nvidia gpu", works=None, detail="no NVIDIA driver on this machine")
    return Finding(
        name="nvidia gpu",
        works=None,
        detail="an NVIDIA driver is here; no runtime of this version uses it yet",
    )


def _onnxruntime_distributions() -> Iterator[Finding]:
    """Report several ONNX Runtime distributions, which overwrite each other's files."""
    found = [name for name in _ONNX_RUNTIMES if _version(name)]
    if len(found) > 1:
        yield Finding(
            name="onnxruntime",
            works=False,
            detail=f"{' and '.join(found)} overwrite each other: "
            f"pip uninstall {' '.join(found)}, then install one of them",
        )


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _cache() -> Finding:
    folder = cache_directory()
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if os.access(existing, os.W_OK):
        return Finding(name="cache", works=True, detail=str(folder))
    return Finding(
        name="cache",
        works=False,
        detail=f"{folder} cannot be written; set XDG_CACHE_HOME to a folder that can, "
        "or checkpoints are exported again at every start",
    )
