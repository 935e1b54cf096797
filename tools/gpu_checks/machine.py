"""The machine: packages and hardware, the head of the report."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from typing import Any

from alexnet_deploy import __version__, installed
from alexnet_deploy.runtimes.gpu_driver import current_gpu, gpus

_PACKAGES = (
    *("torch", "triton", "numpy", "Pillow", "safetensors", "cuda-bindings", "nvidia-cuda-nvrtc"),
    *("nvidia-cudnn-cu13", "nvidia-cudnn-cu12", "cupy-cuda13x", "cupy-cuda12x", "onnx"),
    *("onnxruntime", "onnxruntime-gpu", "faiss-cpu", "faiss-gpu", "tensorrt", "tensorrt-rtx"),
    *("nvidia-nvimgcodec-cu13", "nvidia-nvjpeg", "pytest"),
)


def describe() -> dict[str, Any]:
    """Return the `date`, the `versions` of what is installed, and the `hardware`.

    Raises:
        DeviceError: there is no GPU.
    """
    gpu = current_gpu()
    versions = {name: installed.version_of(name) for name in _PACKAGES}
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {
            "alexnet-deploy": __version__,
            "python": platform.python_version(),
            **{name: version for name, version in versions.items() if version},
        },
        "hardware": {
            "gpu": gpu.name,
            "compute_capability": gpu.compute_capability,
            "num_gpus": len(gpus()),
            "driver_and_memory": _nvidia_smi(),
            "cuda_of_driver": gpu.cuda_version,
            "cpus": len(os.sched_getaffinity(0)),
            "machine": f"{platform.system()} {platform.machine()}",
        },
    }


def _nvidia_smi() -> str | None:
    """Return the driver's version and the first GPU's memory; None if unknown."""
    command = ["nvidia-smi", "--query-gpu=driver_version,memory.total", "--format=csv,noheader"]
    try:
        finished = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return finished.stdout.splitlines()[0]
