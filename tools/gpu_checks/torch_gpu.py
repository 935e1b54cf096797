"""torch on the GPU: whether it is available, and its speed at matrix products."""

import statistics
from collections.abc import Callable
from typing import Any

import torch

from gpu_checks.check import Skipped, require
from gpu_checks.torch_clock import gpu_seconds
from training.towers import Devices
from training.trainer import Precision

SIDE = 8192
"""Side of the matrices on which the peak is measured."""
_DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}


def both_towers_on_one() -> Devices:
    """Return the first GPU twice.

    Raises:
        Failed: torch is a GPU build but finds no GPU, although there is one.
        Skipped: it is a build for the CPU.
    """
    cuda = torch.version.cuda
    if cuda is None:
        raise Skipped(f"torch {torch.__version__} is a build for the CPU")
    reason = f"torch {torch.__version__}, built for CUDA {cuda}, finds no GPU here"
    require(torch.cuda.is_available(), reason, {})
    return torch.device("cuda", 0), torch.device("cuda", 0)


def matmul_flops_per_second(precision: Precision) -> float:
    """Return the FLOP/s of a product of two large random matrices, in this process's precision."""
    a, b = (torch.randn(SIDE, SIDE, device="cuda").to(_DTYPES[precision]) for _ in range(2))
    return 2 * SIDE**3 / seconds(lambda: torch.mm(a, b))


def seconds(work: Callable[[], Any], repeats: int = 15) -> float:
    """Return the median GPU time of `work`, in seconds."""
    for _ in range(3):
        work()
    return statistics.median(gpu_seconds(work) for _ in range(repeats))
