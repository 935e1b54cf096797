"""Time by the GPU's own clock, through torch."""

from collections.abc import Callable
from typing import Any

import torch


def gpu_seconds(work: Callable[[], Any]) -> float:
    """Return the time that the GPU takes for `work`, without that of handing it over.

    The work is done twice: while the GPU is busy with the first, the second and the marks around
    it are handed over.
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
