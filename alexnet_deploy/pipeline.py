"""Decode photographs in threads and hand them on in batches of one shape, in input order.

N images a batch, H/W the network's input size in px.
"""

import os
import time
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.errors import PhotographError, UsageError
from alexnet_deploy.images import load_photograph
from alexnet_deploy.model_spec import ModelSpec
from alexnet_deploy.preprocessing import preprocess

_MAX_SLOTS_PER_ROW = 8
"""A batch is handed on, full or not, at this many slots for each of its rows: a long run of
failures then neither fills the memory nor keeps its results waiting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One photograph's place in a batch.

    Attributes:
        path: as it was given to `batches`.
        row: its row in `Batch.images`, or None when it failed.
        error: the reason of the failure, or None.
    """

    path: Path
    row: int | None
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Some photographs in input order, and the pixels of those that could be read.

    Attributes:
        images: (N, H, W, 3) uint8, RGB; the rows that no slot names are zeros.
        slots: in input order; failures keep their place. There may be more than N, or none
            with a row.
        decode_s: seconds that the threads spent on these photographs, summed.
        waiting_s: seconds that the caller waited for them.
    """

    images: NDArray[np.uint8]
    slots: tuple[Slot, ...]
    decode_s: float
    waiting_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Decoded:
    """What a thread returns: the pixels or the reason why there are none."""

    path: Path
    pixels: NDArray[np.uint8] | None
    error: str | None
    decode_s: float


def default_threads() -> int:
    """Return the number of processors that this process may use, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def batches(
    paths: Iterable[Path], spec: ModelSpec, *, batch_size: int, threads: int
) -> Generator[Batch, None, None]:
    """Load and preprocess photographs; yield batches that hold each path once, in order.

    At most two batches and a few photographs for each thread are loaded ahead of the caller,
    and as many paths taken from `paths`. Each batch has memory of its own. An error that is not
    a photograph's propagates. Closing the iterator, or Ctrl-C, drops what has not begun; what
    the threads are decoding is left to end by itself.

    Raises:
        UsageError: batch_size or threads is below 1.
    """
    for name, value in (("--batch-size", batch_size), ("--threads", threads)):
        if value < 1:
            raise UsageError(f"{name} is {value}, expected 1 or more")
    return _batches(paths, spec, batch_size, threads)


def _batches(
    paths: Iterable[Path], spec: ModelSpec, batch_size: int, threads: int
) -> Generator[Batch, None, None]:
    """Do the work of `batches`; apart from it, so that a wrong argument fails at the call."""
    with_pixels: list[NDArray[np.uint8]] = []
    slots: list[Slot] = []
    decode_s = 0.0
    start = time.perf_counter()
    # The second batch is decoded while the caller works on the first.
    ahead = batch_size + max(batch_size, 2 * threads)

    def flush() -> Batch:
        shape = (batch_size, spec.input_size, spec.input_size, 3)
        images = np.zeros(shape, np.uint8)
        for row, pixels in enumerate(with_pixels):
            images[row] = pixels
        waiting_s = time.perf_counter() - start
        return Batch(images=images, slots=tuple(slots), decode_s=decode_s, waiting_s=waiting_s)

    decoded_photographs = _decode_in_order(paths, spec, threads, ahead)
    try:
        for decoded in decoded_photographs:
            decode_s += decoded.decode_s
            row = None
            if decoded.pixels is not None:
                row = len(with_pixels)
                with_pixels.append(decoded.pixels)
            slots.append(Slot(path=decoded.path, row=row, error=decoded.error))
            if len(with_pixels) == batch_size or len(slots) == batch_size * _MAX_SLOTS_PER_ROW:
                batch = flush()
                with_pixels, slots, decode_s = [], [], 0.0
                yield batch
                start = time.perf_counter()
        if slots:
            yield flush()
    finally:
        decoded_photographs.close()


def _decode_in_order(
    paths: Iterable[Path], spec: ModelSpec, threads: int, ahead: int
) -> Generator[_Decoded, None, None]:
    """Decode in threads, `ahead` photographs at most before the caller takes them, in order."""
    pending: deque[Future[_Decoded]] = deque()
    executor = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    try:
        remaining = iter(paths)
        for path in islice(remaining, ahead):
            pending.append(executor.submit(_decode, path, spec))
        while pending:
            decoded = pending.popleft().result()
            for path in islice(remaining, 1):
                pending.append(executor.submit(_decode, path, spec))
            yield decoded
    finally:
        # Not waiting for the threads is what makes Ctrl-C prompt; they end with their
        # present photograph.
        executor.shutdown(wait=False, cancel_futures=True)


def _decode(path: Path, spec: ModelSpec) -> _Decoded:
    """Load and preprocess one photograph; its own failure is a value, any other propagates."""
    start = time.perf_counter()
    pixels, error = None, None
    try:
        pixels = preprocess(load_photograph(path), spec)
    except PhotographError as reason:
        error = str(reason)
    return _Decoded(path=path, pixels=pixels, error=error, decode_s=time.perf_counter() - start)
