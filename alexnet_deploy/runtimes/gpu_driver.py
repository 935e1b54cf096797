"""Query the driver library, without any package, for the NVIDIA GPUs this process may use.

The functions are those of the CUDA driver API, `cuda.h`, which honours CUDA_VISIBLE_DEVICES. All
GPU work runs on the first GPU.
"""

import ctypes
from dataclasses import dataclass
from typing import Any

from alexnet_deploy.errors import Argument, DeviceError, Message

_LIBRARY = "libcuda.so.1"
_SUCCESS = 0
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One device.

    Attributes:
        name: as reported by the driver, "NVIDIA H200".
        compute_capability: as "9.0".
        cuda_version: newest CUDA version that the driver supports, as "13.0".
    """

    name: str
    compute_capability: str
    cuda_version: str


def gpus() -> tuple[Gpu, ...]:
    """Return the GPUs in the driver's order; none if there is no driver, or it fails."""
    try:
        return _found()
    except DeviceError:
        return ()


ON_THE_CPU = Message("run an .onnx file with ", Argument("device", "cpu"))


def current_gpu(without: str = ON_THE_CPU) -> Gpu:
    """Return the GPU that the process uses.

    Args:
        without: what to do without a GPU, for the error.

    Raises:
        DeviceError: there is none, or it does not respond; with the reason.
    """
    try:
        found = _found()
    except DeviceError as error:
        raise _no_gpu(str(error), without) from error
    if not found:
        raise _no_gpu("the driver reports none", without)
    return found[0]


def _no_gpu(reason: str, without: str) -> DeviceError:
    return DeviceError(
        f"no NVIDIA GPU that this process may use ({reason}); check nvidia-smi "
        "and CUDA_VISIBLE_DEVICES; without a GPU ",
        without,
    )


def _found() -> tuple[Gpu, ...]:
    """Query the driver.

    Raises:
        DeviceError: there is no driver, or one of its functions fails.
    """
    driver = _load()
    _call(driver, "cuInit", 0)
    version = _number(driver, "cuDriverGetVersion")
    return tuple(
        _gpu(driver, index, f"{version // 1000}.{version % 1000 // 10}")
        for index in range(_number(driver, "cuDeviceGetCount"))
    )


def _load() -> Any:
    try:
        return ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise DeviceError(f"no driver: {error}") from error


def _gpu(driver: Any, index: int, cuda_version: str) -> Gpu:
    device = _number(driver, "cuDeviceGet", index)
    name = ctypes.create_string_buffer(256)
    _call(driver, "cuDeviceGetName", name, len(name), device)
    major, minor = (
        _number(driver, "cuDeviceGetAttribute", attribute, device) for attribute in (_MAJOR, _MINOR)
    )
    return Gpu(
        name=name.value.decode("utf-8", "replace"),
        compute_capability=f"{major}.{minor}",
        cuda_version=cuda_version,
    )


def _number(driver: Any, function: str, *arguments: int) -> int:
    """Return the integer that a function writes to its first argument."""
    number = ctypes.c_int()
    _call(driver, function, ctypes.byref(number), *arguments)
    return number.value


def _call(driver: Any, function: str, *arguments: Any) -> None:
    status = getattr(driver, function)(*arguments)
    if status != _SUCCESS:
        raise DeviceError(f"{function} fails with CUDA error {status}")
