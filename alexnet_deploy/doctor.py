"""Which runtimes and devices work on this machine, found by running them, and why others do not.

What needs an optional package is imported where it is tried: this must work where nothing else
does.
"""

import ctypes
import importlib.metadata
import importlib.util
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from alexnet_deploy.engines.base import EngineOptions, Precision, Runtime
from alexnet_deploy.errors import AlexNetDeployError, MissingPackageError

# Distribution, module to look for, what it is for, the extra that brings it.
_NEEDED = (
    ("safetensors", "safetensors", "reading checkpoints", "cpu"),
    ("onnx", "onnx", "every model", "cpu"),
    ("openvino", "openvino", "the runtime OpenVINO", "cpu"),
    ("onnxruntime", "onnxruntime", "the runtime ONNX Runtime", "cpu"),
)
_OPTIONAL = (
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
        is_runtime: it says whether a runtime works here; one must for anything to run.
    """

    name: str
    works: bool | None
    detail: str
    is_runtime: bool = False


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
    yield from (_package(*package, if_missing=False) for package in _NEEDED)
    yield from (_package(*package, if_missing=None) for package in _OPTIONAL)
    yield _cache()


def _try_runtime(runtime: Runtime, precision: Precision) -> Finding:
    """Load the bundled checkpoint and time the second of two batches."""
    name = f"{runtime} cpu {precision}"
    try:
        from alexnet_deploy.engines.factory import open_engine
        from alexnet_deploy.models import bundled_checkpoint, load_model

        options = EngineOptions(
            runtime=runtime, device="cpu", precision=precision, outputs=("probabilities",)
        )
        file = load_model(bundled_checkpoint(), options)
        with open_engine(file, options) as engine:
            size = engine.spec.input_size
            noise = np.random.default_rng(0).integers(0, 256, (32, size, size, 3), np.uint8)
            engine.run(noise)
            start = time.perf_counter()
            engine.run(noise)
            rate = len(noise) / (time.perf_counter() - start)
            detail = f"{engine.description}: {rate:.0f} images/s"
            return Finding(name=name, works=True, detail=detail, is_runtime=True)
    except Exception as error:  # a broken runtime raises what it likes, and is what is looked for
        return Finding(name=name, works=False, detail=_reason(error), is_runtime=True)


def _reason(error: Exception) -> str:
    if not isinstance(error, AlexNetDeployError):
        return f"{type(error).__name__}: {error}"
    cause = error.__cause__
    # A package that is there and cannot be imported: a library of the system is missing.
    is_broken = isinstance(cause, ImportError) and not isinstance(cause, ModuleNotFoundError)
    return f"{error} ({cause})" if is_broken else str(error)


def _nvidia() -> Finding:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        detail = "no NVIDIA driver on this machine"
    else:
        detail = "an NVIDIA driver is here; no runtime of this version uses it yet"
    return Finding(name="nvidia gpu", works=None, detail=detail)


def _package(
    distribution: str, module: str, purpose: str, extra: str, *, if_missing: bool | None
) -> Finding:
    if importlib.util.find_spec(module) is not None:
        detail = f"{_version(distribution) or 'installed'}, for {purpose}"
        return Finding(name=distribution, works=True, detail=detail)
    detail = f"not installed, for {purpose}: pip install 'alexnet-deploy[{extra}]'"
    return Finding(name=distribution, works=if_missing, detail=detail)


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
    try:
        from alexnet_deploy.models import cache_directory

        folder = cache_directory()
        existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
        if os.access(existing, os.W_OK):
            return Finding(name="cache", works=True, detail=str(folder))
        problem = f"{folder} cannot be written"
    except MissingPackageError as error:
        return Finding(name="cache", works=None, detail=f"not looked at: {error}")
    except Exception as error:
        problem = _reason(error)
    return Finding(
        name="cache",
        works=False,
        detail=f"{problem}; set XDG_CACHE_HOME to a folder that can be written, "
        "or checkpoints are exported again at every start",
    )
