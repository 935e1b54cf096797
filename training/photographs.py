"""From class folders to batches of whole pictures, in an order that the caller gives.

    class folders -> hold_out -> open_source -> batches -> augmentation, on the device

A set that fits is read once and kept in memory. A larger one is read from its files again in each
epoch, by worker processes of torch's DataLoader.

Memory then does not depend on N, the number of photographs, but for 50 bytes each:

- No process holds a Python object for each photograph: names are one block of bytes, classes and
  order are arrays. Objects would take ten times the space, and workers that share them with their
  parent would get a copy of each page whose reference counts they touch.
- Workers are sent the numbers of one batch at a time, and keep nothing of a batch once it is sent.
- At most two batches for each worker are under way: 2 x 128 x 256 x 256 x 3 bytes = 50 MB, in
  shared memory (/dev/shm), of which a container may need more: docker run --shm-size.
- A photograph that cannot be read is part of its batch, and not remembered here.

`tools/loader_memory.py` shows it on 100,000 files.

S = 256, the side of a picture in px; n pictures in a batch.
"""

import math
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from alexnet_deploy.console.group import ignore_warnings_of_pillow
from alexnet_deploy.errors import DatasetError, PhotographError
from alexnet_deploy.photographs import pipeline
from alexnet_deploy.photographs.class_folders import ClassFolders
from training.pictures import Failure, read_picture

MEMORY_LIMIT_BYTES = 4_000_000_000
"""Largest set that is kept in memory unless told otherwise: 20,000 pictures of 256 x 256 px."""

_LOADING_BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotographBatch:
    """Some photographs, before augmentation.

    Attributes:
        images: [n, S, S, 3] uint8, RGB, on the CPU.
        labels: [n] int64, class numbers.
        failures: photographs of this batch that could not be read; n is smaller by as many,
            and may be 0.
    """

    images: torch.Tensor
    labels: torch.Tensor
    failures: tuple[Failure, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PhotographSource:
    """Photographs that batches can be made of.

    Attributes:
        folders: the photographs, in the numbers that `batches` takes.
        size: S.
        images: [N, S, S, 3] uint8, all pictures, or None where they are read from the files.
        failures: photographs that could not be read, and are not in `folders` any more. Those
            of a source without `images` come with each batch.
    """

    folders: ClassFolders
    size: int
    images: torch.Tensor | None = None
    failures: tuple[Failure, ...] = ()

    def __len__(self) -> int:
        return len(self.folders)


def hold_out(folders: ClassFolders, share: float, seed: int) -> tuple[ClassFolders, ClassFolders]:
    """Divide photographs at random into those to train on and those to validate on.

    Each class gives `share` of its photographs, rounded, but at least one, and keeps at least
    one; a class of one photograph keeps it. The same arguments give the same division.

    Args:
        folders: which photographs.
        share: more than 0 and less than 1.
        seed: of the division.

    Raises:
        DatasetError: no class has two photographs.
    """
    random = np.random.default_rng(seed)
    counts = np.bincount(folders.labels, minlength=len(folders.classes))
    by_class = np.split(np.argsort(folders.labels, kind="stable"), np.cumsum(counts)[:-1])
    held = np.zeros(len(folders), np.bool_)
    for members in by_class:
        wanted = max(1, math.floor(share * len(members) + 0.5))
        held[random.permutation(members)[: max(0, min(wanted, len(members) - 1))]] = True
    if not held.any():
        raise DatasetError(
            f"{folders.root}: no class has two photographs, so none can be held out for "
            "validation; add some, or name a folder of validation photographs"
        )
    return folders.select(np.flatnonzero(~held)), folders.select(np.flatnonzero(held))


def open_source(
    folders: ClassFolders,
    *,
    size: int = 256,
    memory_limit_bytes: int = MEMORY_LIMIT_BYTES,
    threads: int | None = None,
    on_result: Callable[[Path, str | None], None] = lambda path, error: None,
) -> PhotographSource:
    """Read a set into memory if its pictures fit, else leave it in its files.

    Args:
        folders: which photographs.
        size: S, one of `pictures.PICTURE_SIZES`; photographs of S x S px are taken as they are.
        memory_limit_bytes: for N x S x S x 3 bytes.
        threads: that read into memory; None takes one for each processor.
        on_result: called in order for each photograph that is read into memory or could not be,
            with its path and the reason, or None.

    Raises:
        DatasetError: it fits, and not one photograph can be read.
    """
    if len(folders) * size * size * 3 > memory_limit_bytes:
        return PhotographSource(folders=folders, size=size)
    images = torch.empty((len(folders), size, size, 3), dtype=torch.uint8)
    is_read = np.zeros(len(folders), np.bool_)
    failures: list[Failure] = []
    stream = pipeline.batches(
        (folders.path(index) for index in range(len(folders))),
        lambda path: pipeline.Loaded(crop=read_picture(path, size)),
        input_size=size,
        batch_size=_LOADING_BATCH,
        threads=pipeline.default_threads() if threads is None else threads,
    )
    num_read = num_tried = 0
    with closing(stream):
        for batch in stream:
            rows = sum(slot.row is not None for slot in batch.slots)
            images[num_read : num_read + rows] = torch.from_numpy(batch.images[:rows])
            num_read += rows
            for slot in batch.slots:
                is_read[num_tried] = slot.error is None
                num_tried += 1
                if slot.error is not None:
                    failures.append(Failure(path=slot.item, reason=slot.error))
                on_result(slot.item, slot.error)
    if not num_read:
        raise DatasetError(
            f"{folders.root}: none of {num_tried:,} photographs can be read, the first, "
            f"{failures[0].path}: {failures[0].reason}; mend that and start again"
        )
    return PhotographSource(
        folders=folders.select(np.flatnonzero(is_read)),
        size=size,
        images=images[:num_read],
        failures=tuple(failures),
    )


def batches(
    source: PhotographSource, order: NDArray[np.int64], *, batch_size: int, num_workers: int
) -> Generator[PhotographBatch]:
    """Yield the photographs `order` names, in that order, whatever the number of workers.

    Batches are full but for failures and for the last one. Closing the iterator ends its workers.

    Args:
        source: in memory, or in files.
        order: [any] int64, numbers from 0 to N - 1; an epoch, or what is left of one.
        batch_size: photographs taken for a batch.
        num_workers: processes that read files, 0 to read them in this one; a source in memory
            needs none.
    """
    parts = _Parts(order, batch_size)
    if source.images is not None:
        return _from_memory(source.images, source.folders.labels, parts)
    return _from_files(_PictureFiles(source.folders, source.size), parts, num_workers)


class _Parts(Sampler[NDArray[np.int64]]):
    """The numbers of one batch after the other."""

    def __init__(self, order: NDArray[np.int64], batch_size: int) -> None:
        self._order = order
        self._batch_size = batch_size

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        for start in range(0, len(self._order), self._batch_size):
            yield self._order[start : start + self._batch_size]

    def __len__(self) -> int:
        return -(-len(self._order) // self._batch_size)


class _PictureFiles(Dataset[PhotographBatch]):
    """What a worker has: where the files are."""

    def __init__(self, folders: ClassFolders, size: int) -> None:
        self._folders = folders
        self._size = size

    def __getitem__(self, part: NDArray[np.int64]) -> PhotographBatch:
        images = torch.empty((len(part), self._size, self._size, 3), dtype=torch.uint8)
        if get_worker_info() is not None:
            # Sending would copy it there, and the pieces of 25 MB that are freed then leave
            # holes in the heap: a worker takes 170 MB so, 380 MB otherwise.
            images.share_memory_()  # type: ignore[no-untyped-call]
        labels: list[int] = []
        failures: list[Failure] = []
        for index in part.tolist():
            path = self._folders.path(index)
            try:
                # A copy into the batch: what Pillow returns may be read-only.
                images.numpy()[len(labels)] = read_picture(path, self._size)
            except PhotographError as reason:
                failures.append(Failure(path=path, reason=str(reason)))
            else:
                labels.append(int(self._folders.labels[index]))
        return PhotographBatch(
            images=images[: len(labels)],
            labels=torch.tensor(labels, dtype=torch.int64),
            failures=tuple(failures),
        )


def _from_memory(
    images: torch.Tensor, labels: NDArray[np.int32], parts: _Parts
) -> Generator[PhotographBatch]:
    for part in parts:
        yield PhotographBatch(
            images=images[torch.tensor(part)],
            labels=torch.from_numpy(labels[part].astype(np.int64)),
        )


def _from_files(
    files: _PictureFiles, parts: _Parts, num_workers: int
) -> Generator[PhotographBatch]:
    loader = DataLoader(
        files,
        sampler=parts,
        batch_size=None,  # the sampler's batches are the batches
        num_workers=num_workers,
        multiprocessing_context=_fork_server() if num_workers else None,
        worker_init_fn=_live_as_long_as_the_parent,
        generator=torch.Generator(),  # or it would draw from torch's global one
    )
    yield from loader


def _fork_server() -> ForkServerContext:
    """Return the way in which workers are started.

    A fork of this process would take over the locks of its threads (torch's, CUDA's) without the
    threads, and wait for them for ever. A new interpreter for each worker would load torch
    again, in each epoch. The server imports it once, has no such threads, and is forked.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _live_as_long_as_the_parent(worker: int) -> None:
    """Outlive what a terminal sends to all, since the parent may need batches to finish.

    But not a parent that was killed: the loader's own watch sees the server that forked this
    process, which waits for this process in turn, and both would stay for ever.
    """
    ignore_warnings_of_pillow()
    for number in (signal.SIGINT, signal.SIGHUP):  # by SIGTERM the loader ends its workers
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None  # a worker has one
    parent.join()
    os._exit(1)
