"""The two devices of the towers, the precision, and memory that is kept."""

import ctypes
import sys

import torch

from alexnet_deploy.errors import DeviceError, UsageError
from training.towers import Devices

# glibc's mallopt: its options, and "never" for the first.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_NEVER = -1
_TOP_PAD_BYTES = 2**29


def parse_devices(text: str) -> Devices:
    """Read "cuda:0,cuda:1", "cpu,cpu", or one device for both towers.

    Raises:
        UsageError: not one or two device names.
        DeviceError: a device that this machine does not have.
    """
    names = [name.strip() for name in text.split(",")]
    try:
        devices = [torch.device(name) for name in names]
    except RuntimeError as error:
        raise UsageError(_expected_devices(text)) from error
    if len(devices) > 2 or any(device.type not in ("cpu", "cuda") for device in devices):
        raise UsageError(_expected_devices(text))
    first, second = _existing(devices[0]), _existing(devices[-1])
    if first.type != second.type:
        raise UsageError(f"{_expected_devices(text)}; both of one kind")
    return first, second


def check_precision(precision: str, devices: Devices) -> None:
    """Refuse a precision that a device does not have.

    Raises:
        DeviceError: bfloat16 on a GPU without it. (A CPU without it emulates it, slowly.)
    """
    if precision != "bf16" or devices[0].type != "cuda":
        return
    for device in devices:
        major, minor = torch.cuda.get_device_capability(device)
        if major < 8:
            raise DeviceError(
                f"--precision bf16: {device} has compute capability {major}.{minor}, bfloat16 "
                "came with 8.0; use --precision fp32"
            )


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, for the next step takes as much again.

    glibc maps every large tensor anew, and the kernel fills it with zeros page by page: on a
    CPU that was a third of a training step. Elsewhere than on glibc this does nothing, which
    costs time and nothing else.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, _NEVER)
        mallopt(_M_TOP_PAD, _TOP_PAD_BYTES)


def _existing(device: torch.device) -> torch.device:
    if device.type == "cpu":
        return torch.device("cpu")
    count = torch.cuda.device_count()
    index = device.index or 0
    if index >= count:
        have = f"{count} CUDA device{'' if count == 1 else 's'}" if count else "no CUDA device"
        same = "; both towers fit on one: --devices cuda:0,cuda:0" if count else ""
        raise DeviceError(
            f"--devices: {device} does not exist, this machine has {have} that torch "
            f"{torch.__version__} can use{same or '; use --devices cpu,cpu'}"
        )
    return torch.device("cuda", index)


def _expected_devices(text: str) -> str:
    return f"--devices is {text!r}, expected two devices such as cuda:0,cuda:1 or cpu,cpu"
