"""GPU timing with CUDA events, through torch."""

from collections.abc import Callable
from typing import Any

import torch


def gpu_seconds(work: Callable[[], Any]) -> float:
    """Return the GPU time of `work`, without launch overhead.

    The work is submitted twice: while the GPU is busy with the first, the second and its events are
    queued.
    """
    start, end = (_mark() for _ in range(2))
    work()
    start.record()
    work()
    end.record()
    end.synchronize()
    milliseconds: float = start.elapsed_time(end)
    return milliseconds / 1e3


def _mark() -> Any:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
