"""The devices of the two towers, the arithmetic precision, and the memory allocator."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from alexnet_deploy.errors import Argument, ArgumentError, DeviceError
from training.towers import Devices
from training.trainer import Precision

# glibc's mallopt: parameters, and "never" as a value of the first.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_NEVER = -1
_TOP_PAD_BYTES = 2**29
_IN_FP32 = Argument("precision", "fp32")


def parse_devices(text: str) -> Devices:
    """Read "cuda:0,cuda:1", "cpu,cpu", or one device for both towers.

    Raises:
        UsageError: not one or two device names, or a CPU with a GPU.
        DeviceError: a device that this machine does not have.
    """
    expected = "two devices such as cuda:0,cuda:1 or cpu,cpu, both of one kind"
    wrong = ArgumentError("devices", text, expected)
    names = text.split(",")
    if len(names) > 2:
        raise wrong
    first, second = (_existing(name, wrong, 2) for name in (names[0], names[-1]))
    if first.type != second.type:
        raise wrong
    return first, second


def parse_device(text: str) -> torch.device:
    """Read "cpu" or "cuda:0".

    Raises:
        UsageError: not the name of one device.
        DeviceError: a device that this machine does not have.
    """
    return _existing(text, ArgumentError("device", text, "one device such as cuda:0 or cpu"), 1)


@contextmanager
def too_little_memory_reported(devices: Argument) -> Iterator[None]:
    """Say what to do when a GPU runs out of memory.

    Raises:
        DeviceError: in place of torch's own error.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DeviceError(
            devices,
            f": a GPU has too little memory ({str(error).splitlines()[0]}); give a smaller ",
            Argument("batch_size"),
            ", or let other programs free some",
        ) from error


def use_precision(precision: Precision, devices: Devices) -> None:
    """Set the precision of this process's float32 products; torch's default is partly TF32.

    Raises:
        DeviceError: a device does not have it. (A CPU without bfloat16 emulates it, slowly.)
    """
    on_gpus = devices[0].type == "cuda"
    if precision == "tf32" and not on_gpus:
        raise DeviceError(Argument("precision", precision), " needs an NVIDIA GPU; use ", _IN_FP32)
    for device in set(devices) if on_gpus and precision != "fp32" else ():
        major, minor = torch.cuda.get_device_capability(device)
        if major < 8:
            raise DeviceError(
                Argument("precision", precision),
                f" needs compute capability 8.0, {device} has {major}.{minor}; use ",
                _IN_FP32,
            )
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"


def keep_freed_memory() -> None:
    """Make this process keep memory that it frees, since the next step needs as much again.

    glibc maps every large tensor afresh and the kernel zeroes it page by page, which took a third
    of a training step on a CPU. Without glibc this does nothing, and steps are merely slower.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, _NEVER)
        mallopt(_M_TOP_PAD, _TOP_PAD_BYTES)


def _existing(name: str, wrong: ArgumentError, num_towers: int) -> torch.device:
    try:
        device = torch.device(name.strip())
    except RuntimeError as error:
        raise wrong from error
    if device.type == "cpu":
        return torch.device("cpu")
    if device.type != "cuda":
        raise wrong
    count = torch.cuda.device_count()
    index = device.index or 0
    if index >= count:
        have = f"{count} CUDA device{'' if count == 1 else 's'}" if count else "no CUDA device"
        there_is = ",".join(["cuda:0" if count else "cpu"] * num_towers)
        raise DeviceError(
            Argument(wrong.argument),
            f": {device} does not exist, this machine has {have} that torch {torch.__version__} "
            f"can use; {'both towers fit on one' if num_towers == 2 else 'use'}: ",
            Argument(wrong.argument, there_is),
        )
    return torch.device("cuda", index)
