"""The environment: packages and hardware."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

from alexnet_deploy import __version__
from alexnet_deploy.errors import DeviceError
from alexnet_deploy.runtimes.gpu_driver import current_gpu, gpus
from gpu_checks.check import Failed, Figures, Settings
from gpu_checks.surroundings import unpacked_in

_PACKAGES = (
    *("torch", "triton", "numpy", "Pillow", "safetensors", "cuda-bindings", "nvidia-cuda-nvrtc"),
    *("nvidia-cudnn-cu13", "nvidia-cudnn-cu12", "cupy-cuda13x", "cupy-cuda12x", "onnx"),
    *("onnxruntime", "onnxruntime-gpu", "faiss-cpu", "faiss-gpu", "tensorrt", "tensorrt-rtx"),
    *("nvidia-nvimgcodec-cu13", "nvidia-nvjpeg"),
)


def look(settings: Settings) -> Figures:
    """Return `versions` and `hardware`, the head of the report.

    A package that is both installed and among the wheels has both versions: some checks use one,
    some the other.

    Raises:
        Failed: there is no GPU.
    """
    try:
        gpu = current_gpu()
    except DeviceError as error:
        raise Failed(f"{error}; what needs no GPU is tested by: make test", {}) from error
    driver, memory_mib = _nvidia_smi()
    return {
        "versions": {
            "alexnet-deploy": __version__,
            "python": platform.python_version(),
            **versions(unpacked_in(settings.scratch)),
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
    """Return the versions of importable packages, including those unpacked in `wheels`."""
    found: dict[str, str] = {}
    for name in _PACKAGES:
        of_wheels, installed = "", ""
        for each in metadata.distributions(name=name):  # in the order of sys.path
            if Path(str(each.locate_file(""))).is_relative_to(wheels):
                of_wheels = of_wheels or each.version
            else:
                installed = installed or each.version
        if of_wheels and installed and of_wheels != installed:
            found[name] = f"{of_wheels} of the wheels, {installed} installed"
        elif of_wheels or installed:
            found[name] = of_wheels or installed
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
