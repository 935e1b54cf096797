import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from alexnet_deploy.errors import Argument, DeviceError, UsageError
from training.devices import (
    parse_device,
    parse_devices,
    too_little_memory_reported,
    use_precision,
)
from training.trainer import Precision

CPU = torch.device("cpu")
GPUS = torch.device("cuda", 0), torch.device("cuda", 1)
ROOT = Path(__file__).resolve().parents[2]


def _have(monkeypatch: pytest.MonkeyPatch, num_gpus: int) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)


@pytest.mark.parametrize("text", ["cpu", "cpu,cpu", " cpu , cpu "])
def test_both_towers_fit_on_the_cpu(text: str) -> None:
    assert parse_devices(text) == (CPU, CPU)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cuda:0,cuda:1", GPUS),
        ("cuda:1,cuda:0", GPUS[::-1]),
        ("cuda:1", (GPUS[1], GPUS[1])),
        ("cuda", (GPUS[0], GPUS[0])),
        ("cuda,cuda:1", GPUS),
    ],
)
def test_gpus_go_by_their_numbers(
    text: str, expected: tuple[torch.device, torch.device], monkeypatch: pytest.MonkeyPatch
) -> None:
    _have(monkeypatch, 2)
    assert parse_devices(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "gpu", "cpu,", ",cpu", "cpu,cpu,cpu", "cuda:x", "cuda:-1", "mps", "meta", "cpu cpu"],
)
def test_what_names_no_one_or_two_devices_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"^devices is .*, expected two devices such as cuda:0"):
        parse_devices(text)


def test_devices_of_two_kinds_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _have(monkeypatch, 1)
    with pytest.raises(UsageError, match=r"'cpu,cuda:0'.*both of one kind"):
        parse_devices("cpu,cuda:0")


def test_a_machine_without_gpus_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    _have(monkeypatch, 0)
    with pytest.raises(DeviceError, match=r"cuda:0 does not exist.*no CUDA device.*cpu,cpu"):
        parse_devices("cuda:0,cuda:1")


def test_one_gpu_in_place_of_two_says_that_both_towers_fit_on_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _have(monkeypatch, 1)
    message = r"cuda:1 does not exist.*1 CUDA device that.*devices=.cuda:0,cuda:0"
    with pytest.raises(DeviceError, match=message):
        parse_devices("cuda:0,cuda:1")


def test_bfloat16_needs_a_gpu_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    capabilities = {0: (8, 0), 1: (7, 5)}
    monkeypatch.setattr(
        torch.cuda, "get_device_capability", lambda device: capabilities[device.index]
    )
    use_precision("bf16", (GPUS[0], GPUS[0]))
    use_precision("fp32", GPUS)
    use_precision("bf16", (CPU, CPU))
    with pytest.raises(
        DeviceError, match=r"bf16. needs compute capability 8\.0, cuda:1 has 7\.5.*fp32"
    ):
        use_precision("bf16", GPUS)


def test_float32_is_float32_unless_tf32_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch lets cuDNN's convolutions round to TF32 by default."""
    flags: tuple[Any, ...] = torch.backends.cudnn, torch.backends.cuda.matmul
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    precisions: dict[Precision, bool] = {"tf32": True, "fp32": False, "bf16": False}
    before = [one.allow_tf32 for one in flags]
    try:
        for precision, allowed in precisions.items():
            use_precision(precision, GPUS)
            assert [one.allow_tf32 for one in flags] == [allowed, allowed]
    finally:
        for one, value in zip(flags, before, strict=True):
            one.allow_tf32 = value
    with pytest.raises(DeviceError, match=r"tf32. needs an NVIDIA GPU"):
        use_precision("tf32", (CPU, CPU))


def test_one_device_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    _have(monkeypatch, 2)
    assert [parse_device("cpu"), parse_device("cuda:1")] == [CPU, GPUS[1]]
    for text in ("cuda:0,cuda:1", "tpu", ""):
        with pytest.raises(UsageError, match=r"^device is .*, expected one device such as"):
            parse_device(text)
    with pytest.raises(DeviceError, match=r"^device: cuda:2 does not exist.*device=.cuda:0"):
        parse_device("cuda:2")


_KEEPING = """
import numpy as np
from training.devices import keep_freed_memory

def resident_mb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 1e6

def kept_mb():
    start = resident_mb()
    array = np.ones(40_000_000, np.uint8)  # glibc itself keeps up to 32 MiB
    total = int(array.sum())
    del array, total
    return resident_mb() - start

before = kept_mb()
first = np.random.default_rng(0).random((300, 300))
keep_freed_memory()
second = np.random.default_rng(0).random((300, 300))
print(before < 20, kept_mb() > 32, np.array_equal(first @ first, second @ second))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's own setting")
def test_freed_memory_is_kept_and_changes_no_result() -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", _KEEPING], capture_output=True, text=True, env=environment
    )
    assert done.stdout.split() == ["True", "True", "True"], done.stdout + done.stderr


def test_a_full_gpu_is_an_error_that_names_the_argument() -> None:
    with (
        pytest.raises(DeviceError, match=r"^device=.cuda:0.: .*\(CUDA out.*batch_size"),
        too_little_memory_reported(Argument("device", "cuda:0")),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB\nmore")
