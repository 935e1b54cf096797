"""Find which runtimes and devices work on this machine by running them, and why others do not.

Optional packages are imported where they are tried: this must work where nothing else does.
"""

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from alexnet_deploy import installed
from alexnet_deploy.choices import Device, Precision, Runtime
from alexnet_deploy.errors import AlexNetDeployError, DeviceError, MissingPackageError
from alexnet_deploy.files.private_folders import own_folder
from alexnet_deploy.photographs.pipeline import default_threads
from alexnet_deploy.runtimes.base import RunnerOptions
from alexnet_deploy.runtimes.capabilities import usual_combinations
from alexnet_deploy.runtimes.gpu_driver import current_gpu, gpus
from alexnet_deploy.runtimes.onnxruntime_distributions import (
    ONNX_RUNTIMES,
    check_distributions,
    is_installed_for_gpu,
)
from alexnet_deploy.timing import seconds_of

# Distribution, module to look for, its purpose, the extra that includes it.
_OPTIONAL = (
    ("torch", "torch", "reading .pt files", "torch"),
    ("pyarrow", "pyarrow", "Parquet", "parquet"),
    ("pillow-heif", "pillow_heif", "HEIC photographs", "photos"),
    ("tensorrt", "tensorrt", "TensorRT engines", "tensorrt"),
    ("tensorrt-rtx", "tensorrt_rtx", "TensorRT-RTX engines", "rtx"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of one check.

    Attributes:
        name: what was checked.
        works: True, False, or None if only informative.
        detail: version and speed, or the reason and the remedy.
        is_runtime: whether this is a runtime's finding; at least one runtime must work.
    """

    name: str
    works: bool | None
    detail: str
    is_runtime: bool = False


def examine() -> Iterator[Finding]:
    """Yield findings one by one; each runtime is tried with the bundled checkpoint."""
    machine = f"{platform.system()} {platform.machine()}, {default_threads()} cores"
    yield Finding(
        name="machine", works=None, detail=f"{machine}, Python {platform.python_version()}"
    )
    for_gpu = is_installed_for_gpu()
    yield from (_try_runtime(*one) for one in usual_combinations(for_gpu=for_gpu))
    yield _nvidia()
    yield from _packages(for_gpu=for_gpu)
    yield _cache()


def _try_runtime(runtime: Runtime, device: Device, precision: Precision) -> Finding:
    """Load the bundled checkpoint and time the second of two batches."""
    name = f"{runtime} {device} {precision}"
    try:
        from alexnet_deploy.export.opening import open_runner_of
        from alexnet_deploy.model.default import bundled_checkpoint

        options = RunnerOptions(
            runtime=runtime, device=device, precision=precision, outputs=("probabilities",)
        )
        with open_runner_of(bundled_checkpoint(), options) as runner:
            size = runner.spec.input_size
            noise = np.random.default_rng(0).integers(0, 256, (32, size, size, 3), np.uint8)
            runner.run(noise)
            rate = len(noise) / seconds_of(lambda: runner.run(noise))
            detail = f"{runner.description}: {rate:.0f} images/s"
            return Finding(name=name, works=True, detail=detail, is_runtime=True)
    except Exception as error:  # a broken runtime may raise anything, and is what this looks for
        return Finding(name=name, works=False, detail=_reason(error), is_runtime=True)


def _reason(error: Exception) -> str:
    if not isinstance(error, AlexNetDeployError):
        return f"{type(error).__name__}: {error}"
    cause = error.__cause__
    # An installed package that cannot be imported lacks a system library.
    is_broken = isinstance(cause, ImportError) and not isinstance(cause, ModuleNotFoundError)
    is_broken = is_broken and isinstance(error, MissingPackageError)
    return f"{error} ({cause})" if is_broken else error.message


def _nvidia() -> Finding:
    try:
        current_gpu()
    except DeviceError as error:
        return Finding(name="nvidia gpu", works=None, detail=error.message)
    found = [
        f"{gpu.name}, compute capability {gpu.compute_capability}, driver for CUDA "
        f"{gpu.cuda_version}"
        for gpu in gpus()
    ]
    return Finding(name="nvidia gpu", works=True, detail="; ".join(found))


def _packages(*, for_gpu: bool) -> Iterator[Finding]:
    """Look for required packages, then for optional ones."""
    wanted = f"'alexnet-deploy[{'gpu' if for_gpu else 'cpu'}]'"
    yield _package(("safetensors",), "safetensors", "reading checkpoints", wanted, if_missing=False)
    yield _package(("onnx",), "onnx", "exports and .onnx files", wanted, if_missing=False)
    yield _onnxruntime(wanted, for_gpu=for_gpu)
    yield _package(
        *(("openvino",), "openvino", "the runtime OpenVINO"),
        "openvino" if for_gpu else wanted,
        if_missing=None if _has_onnxruntime() else False,
    )
    faiss = ("faiss-gpu", "faiss-cpu") if for_gpu else ("faiss-cpu", "faiss-gpu")
    yield _package(faiss, "faiss", "search", wanted, if_missing=None)
    for name, module, purpose, extra in _OPTIONAL:
        yield _package((name,), module, purpose, f"'alexnet-deploy[{extra}]'", if_missing=None)


def _has_onnxruntime() -> bool:
    """Return whether OpenVINO is a choice: ONNX Runtime alone can do all but bf16."""
    return installed.has_module("onnxruntime") or is_installed_for_gpu()


def _onnxruntime(wanted: str, *, for_gpu: bool) -> Finding:
    """Report ONNX Runtime, or several distributions that overwrite each other's files."""
    try:
        check_distributions()
    except DeviceError as error:
        return Finding(name="onnxruntime", works=False, detail=error.message)
    names = ("onnxruntime-gpu",) if for_gpu else ONNX_RUNTIMES
    return _package(names, "onnxruntime", "the runtime ONNX Runtime", wanted, if_missing=False)


def _package(
    names: tuple[str, ...], module: str, purpose: str, wanted: str, *, if_missing: bool | None
) -> Finding:
    """Look for a package.

    Args:
        names: of the distributions that provide it; the first is the one for this machine.
        module: to look for.
        purpose: what it is for.
        wanted: what to install with pip.
        if_missing: `works` of the finding in that case.
    """
    name = next(filter(installed.version_of, names), names[0])
    if installed.has_module(module):
        detail = f"{installed.version_of(name) or 'installed'}, for {purpose}"
        return Finding(name=name, works=True, detail=detail)
    detail = f"not installed, for {purpose}: pip install {wanted}"
    return Finding(name=names[0], works=if_missing, detail=detail)


def _cache() -> Finding:
    try:
        folder = own_folder("cache")
        existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
        if os.access(existing, os.W_OK):
            return Finding(name="cache", works=True, detail=str(folder))
        problem = f"{folder} cannot be written"
    except Exception as error:
        problem = _reason(error)
    return Finding(
        name="cache",
        works=False,
        detail=f"{problem}; set XDG_CACHE_HOME to a folder that can be written, "
        "or checkpoints are exported again at every start",
    )
