"""The machine: packages and hardware, the head of the report."""

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from alexnet_deploy import __version__
from alexnet_deploy.runtimes.gpu_driver import current_gpu, gpus

_PACKAGES = (
    *("torch", "triton", "numpy", "Pillow", "safetensors", "cuda-bindings", "nvidia-cuda-nvrtc"),
    *("nvidia-cudnn-cu13", "nvidia-cudnn-cu12", "cupy-cuda13x", "cupy-cuda12x", "onnx"),
    *("onnxruntime", "onnxruntime-gpu", "faiss-cpu", "faiss-gpu", "tensorrt", "tensorrt-rtx"),
    *("nvidia-nvimgcodec-cu13", "nvidia-nvjpeg", "pytest"),
)


def describe(wheels: Path) -> dict[str, Any]:
    """Return `versions` and `hardware`.

    Raises:
        DeviceError: there is no GPU.
    """
    gpu = current_gpu()
    driver, memory_mib = _nvidia_smi()
    return {
        "versions": {
            "alexnet-deploy": __version__,
            "python": platform.python_version(),
            **versions(wheels),
        },
        "hardware": {
            "gpu": gpu.name,
            "compute_capability": gpu.compute_capability,
            "num_gpus": len(gpus()),
            "memory_mib": memory_mib,
            "driver": driver,
            "cuda_of_driver": gpu.cuda_version,
            "cpus": len(os.sched_getaffinity(0)),
            "machine": f"{platform.system()} {platform.machine()}",
        },
    }


def versions(wheels: Path) -> dict[str, str]:
    """Return the versions of packages, unpacked in `wheels` or installed.

    One that is both, in different versions, has both: some checks use one, some the other.
    """
    found: dict[str, str] = {}
    for name in _PACKAGES:
        of_wheels, here = (
            {each.version for each in metadata.distributions(name=name, path=path)}
            for path in ([str(wheels)], sys.path)
        )
        if of_wheels and here - of_wheels:
            found[name] = f"{of_wheels.pop()} of the wheels, {here.pop()} installed"
        elif of_wheels or here:
            found[name] = (of_wheels or here).pop()
    return found


def _nvidia_smi() -> tuple[str | None, str | None]:
    """Return the driver's version and the first GPU's memory in MiB; None if unknown."""
    command = ["nvidia-smi", "--query-gpu=driver_version,memory.total"]
    try:
        finished = subprocess.run(
            [*command, "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
    except (OSError, subprocess.SubprocessError):
        return None, None
    driver, _, memory = finished.stdout.splitlines()[0].partition(", ")
    return driver, memory
