"""Decode photographs in threads and yield them in batches of one shape, in input order.

An `Item` is whatever the loader takes: a path, or a photograph in memory. N images per batch, H/W
the network's input size in px.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy import arguments
from alexnet_deploy.errors import PhotographError
from alexnet_deploy.model.spec import ModelSpec
from alexnet_deploy.photographs.file_stamps import FileStamp
from alexnet_deploy.photographs.gpu_jpegs import REFUSALS, check_gpu_decoding
from alexnet_deploy.photographs.memory import DECODED, READ
from alexnet_deploy.photographs.pixels import Decode
from alexnet_deploy.photographs.preprocessing import preprocess
from alexnet_deploy.photographs.sources import ImageSource, load_image

_MAX_SLOTS_PER_ROW = 8
"""A batch is yielded, full or not, at this many slots per row, so that a long run of failures
neither fills the memory nor delays its results."""


Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A thread's result for one photograph: a crop, an error, or neither.

    Attributes:
        crop: (H, W, 3) uint8, RGB; None if loading failed, or if the loader found that the network
            need not see it.
        error: the reason for a failure.
        stamp: of the file read, from loaders that record one.
    """

    crop: NDArray[np.uint8] | None = None
    error: str | None = None
    stamp: FileStamp | None = None


Load = Callable[[Item], Loaded]
"""A loader runs in several threads at once. It may raise `PhotographError`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot(Generic[Item]):
    """One photograph's place in a batch.

    Attributes:
        item: as given to `batches`.
        row: its row in `Batch.images`, or None if it failed or needs none.
        error: the reason for the failure, or None.
        stamp: as returned by the loader.
    """

    item: Item
    row: int | None
    error: str | None
    stamp: FileStamp | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch(Generic[Item]):
    """Photographs in input order, and the pixels of those that could be read.

    Attributes:
        images: (N, H, W, 3) uint8, RGB; N is 0 if no slot has a row.
        slots: in input order; failures and photographs without a row keep their place.
        decode_s: seconds that the threads spent on these photographs, summed.
        waiting_s: seconds that the caller waited for them.
        num_refused: those that the GPU was to decode, and Pillow did.
    """

    images: NDArray[np.uint8]
    slots: tuple[Slot[Item], ...]
    decode_s: float
    waiting_s: float
    num_refused: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Decoded(Generic[Item]):
    """What a thread returns."""

    item: Item
    loaded: Loaded
    decode_s: float
    num_refused: int


def default_threads() -> int:
    """Return the number of CPUs available to this process, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def crop_loader(spec: ModelSpec, decode: Decode) -> Load[ImageSource]:
    """Return the plain loader: decode as `decode` says, resize and crop as `spec` does.

    Raises:
        DeviceError: a GPU is to decode, and does not; see `gpu_jpegs`.
        MissingPackageError: what would decode there is not installed.
    """
    if decode.scale == "gpu":
        check_gpu_decoding()
    return lambda source: Loaded(
        crop=preprocess(load_image(source, decode, spec.preprocessing), spec)
    )


def batches(
    items: Iterable[Item],
    load: Load[Item],
    *,
    input_size: int,
    batch_size: int,
    threads: int,
    needs_row: Callable[[Loaded], bool] = lambda _: True,
) -> Generator[Batch[Item], None, None]:
    """Load photographs in threads; yield batches that contain each item once, in order.

    At most two batches and a few photographs per thread are loaded ahead of the caller, and as many
    items taken from `items`. Each batch owns its memory. Errors other than `PhotographError`
    propagate. Closing the iterator, or Ctrl-C, cancels what has not started; photographs being
    decoded are left to finish.

    Args:
        items: in order.
        load: called in the threads, for instance of `crop_loader`.
        input_size: height and width of the crops in px.
        batch_size: maximum rows of a batch; only the last has fewer, or one amid many failures.
        threads: number of loading threads.
        needs_row: called with each crop in input order, in the caller's thread; False omits its row
            and keeps its slot.

    Raises:
        UsageError: batch_size or threads is below 1.
    """
    arguments.count("batch_size", batch_size)
    arguments.count("threads", threads)
    # The second batch is decoded while the caller works on the first.
    ahead = batch_size + max(batch_size, 2 * threads)
    decoded = in_order(items, partial(_decode, load=load), threads=threads, ahead=ahead)
    return _batches(decoded, batch_size, (input_size, input_size, 3), needs_row)


def _batches(
    decoded_photographs: Generator[_Decoded[Item], None, None],
    batch_size: int,
    shape: tuple[int, int, int],
    needs_row: Callable[[Loaded], bool],
) -> Generator[Batch[Item], None, None]:
    """Implement `batches`; separate, so that a wrong argument fails at the call."""
    crops: list[NDArray[np.uint8]] = []
    slots: list[Slot[Item]] = []
    decode_s, num_refused = 0.0, 0
    start = time.perf_counter()

    def flush() -> Batch[Item]:
        images = np.stack(crops) if crops else np.empty((0, *shape), np.uint8)
        return Batch(
            images=images,
            slots=tuple(slots),
            decode_s=decode_s,
            waiting_s=time.perf_counter() - start,
            num_refused=num_refused,
        )

    try:
        for decoded in decoded_photographs:
            decode_s += decoded.decode_s
            num_refused += decoded.num_refused
            loaded, row = decoded.loaded, None
            if loaded.crop is not None and needs_row(loaded):
                row = len(crops)
                crops.append(loaded.crop)
            slots.append(Slot(item=decoded.item, row=row, error=loaded.error, stamp=loaded.stamp))
            if len(crops) == batch_size or len(slots) == batch_size * _MAX_SLOTS_PER_ROW:
                batch = flush()
                crops, slots, decode_s, num_refused = [], [], 0.0, 0
                yield batch
                start = time.perf_counter()
        if slots:
            yield flush()
    finally:
        decoded_photographs.close()


def in_order(
    items: Iterable[Item], work: Callable[[Item], Result], *, threads: int, ahead: int
) -> Generator[Result, None, None]:
    """Do work in threads and yield its results in order, at most `ahead` items ahead of the caller.

    Closing the iterator, or Ctrl-C, cancels what has not started; an error of `work` propagates.
    """
    pending: deque[Future[Result]] = deque()
    executor = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    try:
        remaining = iter(items)
        for item in islice(remaining, ahead):
            pending.append(executor.submit(work, item))
        while pending:
            result = pending.popleft().result()
            for item in islice(remaining, 1):
                pending.append(executor.submit(work, item))
            yield result
    finally:
        # Not waiting for the threads keeps Ctrl-C prompt; they finish their current photograph.
        executor.shutdown(wait=False, cancel_futures=True)


def _decode(item: Item, load: Load[Item]) -> _Decoded[Item]:
    """Load one photograph; a `PhotographError` is returned, any other error propagates."""
    start, refused_before = time.perf_counter(), REFUSALS.count
    try:
        with READ.released_at_end(), DECODED.released_at_end():
            loaded = load(item)
    except PhotographError as error:
        loaded = Loaded(error=error.reason)
    return _Decoded(
        item=item,
        loaded=loaded,
        decode_s=time.perf_counter() - start,
        num_refused=REFUSALS.count - refused_before,
    )
