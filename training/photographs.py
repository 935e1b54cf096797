"""From class folders to batches of whole pictures, in an order that the caller gives.

    class folders -> hold_out -> open_source -> batches -> augmentation, on the device

A set that fits is read once and kept in memory. A larger one is read from its files in every epoch,
by worker processes of torch's DataLoader.

Memory then grows by only 50 bytes for each of the N photographs:

- No process holds a Python object per photograph: names are one block of bytes, classes and order
  are arrays. Objects would take ten times the space, and workers that share them with their parent
  would copy each page whose reference counts they touch.
- Workers receive the indices of one batch at a time, and keep nothing of a batch once it is sent.
- At most two batches per worker are in flight: 2 x 128 x 256 x 256 x 3 bytes = 50 MB, in shared
  memory (/dev/shm), of which a container may need more: docker run --shm-size.
- A photograph that cannot be read is reported with its batch, and not remembered here.

`tools/loader_memory.py` measures this on 100,000 files.

S = 256, the side of a picture in px; n pictures in a batch.
"""

import math
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, get_worker_info

from alexnet_deploy.console.group import ignore_warnings_of_pillow
from alexnet_deploy.errors import DatasetError, PhotographError
from alexnet_deploy.photographs import pipeline
from alexnet_deploy.photographs.class_folders import ClassFolders
from training.pictures import Failure, PictureForm, read_picture

_LOADING_BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotographBatch:
    """Some photographs, before augmentation.

    Attributes:
        images: [n, S, S, 3] uint8, RGB, on the CPU.
        labels: [n] int64, class indices.
        failures: photographs of this batch that could not be read; they reduce n, possibly to 0.
    """

    images: torch.Tensor
    labels: torch.Tensor
    failures: tuple[Failure, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PhotographSource:
    """Photographs to make batches of.

    Attributes:
        folders: the photographs, indexed as `batches` expects.
        form: of the pictures; its size is S.
        images: [N, S, S, 3] uint8, all pictures, or None if they are read from their files.
        failures: photographs that could not be read and were removed from `folders`. Without
            `images`, failures come with each batch instead.
    """

    folders: ClassFolders
    form: PictureForm
    images: torch.Tensor | None = None
    failures: tuple[Failure, ...] = ()

    def __len__(self) -> int:
        return len(self.folders)


def hold_out(folders: ClassFolders, share: float, seed: int) -> tuple[ClassFolders, ClassFolders]:
    """Split photographs at random into a training set and a validation set.

    Each class gives up `share` of its photographs, rounded, but at least one, and keeps at least
    one; a class of one photograph keeps it. The same arguments give the same split.

    Args:
        folders: which photographs.
        share: more than 0 and less than 1.
        seed: of the split.

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
    form: PictureForm,
    memory_limit_bytes: int,
    on_result: Callable[[Path, str | None], None] = lambda path, error: None,
) -> PhotographSource:
    """Read a set into memory if its pictures fit, otherwise leave it in its files.

    Args:
        folders: which photographs.
        form: of the pictures; photographs of S x S px are used unchanged.
        memory_limit_bytes: limit on the N x S x S x 3 bytes of the pictures.
        on_result: called in order for each photograph when reading into memory, with its path and
            the reason why it cannot be read, or None.

    Raises:
        DatasetError: the set fits, and no photograph can be read.
    """
    size = form.size
    if len(folders) * size * size * 3 > memory_limit_bytes:
        return PhotographSource(folders=folders, form=form)
    images = torch.empty((len(folders), size, size, 3), dtype=torch.uint8)
    is_read = np.zeros(len(folders), np.bool_)
    failures: list[Failure] = []
    stream = pipeline.batches(
        (folders.path(index) for index in range(len(folders))),
        lambda path: pipeline.Loaded(crop=read_picture(path, form)),
        input_size=size,
        batch_size=_LOADING_BATCH,
        threads=pipeline.default_threads(),
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
            f"{failures[0].path}: {failures[0].reason}; repair that and start again"
        )
    return PhotographSource(
        folders=folders.select(np.flatnonzero(is_read)),
        form=form,
        images=images[:num_read],
        failures=tuple(failures),
    )


def batches(
    source: PhotographSource, order: NDArray[np.int64], *, batch_size: int, num_workers: int
) -> Generator[PhotographBatch]:
    """Yield photographs in the given order, whatever the number of workers.

    Batches are full except for failures and the last batch. Closing the generator ends its
    workers.

    Args:
        source: in memory, or in files.
        order: [any] int64, indices from 0 to N - 1; an epoch, or the rest of one.
        batch_size: photographs per batch, 1 or more.
        num_workers: processes that read files, 0 to read them in this one; a source in memory
            needs none.
    """
    parts = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    if source.images is not None:
        return _from_memory(source.images, source.folders.labels, parts)
    return _from_files(_PictureFiles(source.folders, source.form), parts, num_workers)


class _PictureFiles(Dataset[PhotographBatch]):
    """What a worker knows: where the files are."""

    def __init__(self, folders: ClassFolders, form: PictureForm) -> None:
        self._folders = folders
        self._form = form

    def __getitem__(self, part: NDArray[np.int64]) -> PhotographBatch:
        size = self._form.size
        images = torch.empty((len(part), size, size, 3), dtype=torch.uint8)
        if get_worker_info() is not None:
            # Sending would copy it there anyway, and the freed 25 MB blocks would fragment the
            # heap: a worker takes 170 MB this way, 380 MB otherwise.
            images.share_memory_()  # type: ignore[no-untyped-call]
        labels: list[int] = []
        failures: list[Failure] = []
        for index in part.tolist():
            path = self._folders.path(index)
            try:
                # A copy into the batch, since Pillow's array may be read-only.
                images.numpy()[len(labels)] = read_picture(path, self._form)
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
    images: torch.Tensor, labels: NDArray[np.int32], parts: list[NDArray[np.int64]]
) -> Generator[PhotographBatch]:
    for part in parts:
        yield PhotographBatch(
            images=images[torch.tensor(part)],
            labels=torch.from_numpy(labels[part].astype(np.int64)),
        )


def _from_files(
    files: _PictureFiles, parts: list[NDArray[np.int64]], num_workers: int
) -> Generator[PhotographBatch]:
    loader = DataLoader(
        files,
        sampler=parts,
        batch_size=None,  # the sampler's batches are the batches
        num_workers=num_workers,
        multiprocessing_context=_fork_server() if num_workers else None,
        worker_init_fn=_live_as_long_as_the_parent,
        generator=torch.Generator(),  # otherwise it would draw from torch's global generator
    )
    yield from loader


def _fork_server() -> ForkServerContext:
    """Return the start method of the workers.

    A fork of this process would inherit locks held by its threads (torch's, CUDA's) without the
    threads, and could wait for them forever. A new interpreter for each worker would load torch
    again in every epoch. The fork server imports it once and has no such threads.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _live_as_long_as_the_parent(worker: int) -> None:
    """Ignore signals from the terminal, since the parent may need batches to finish its step.

    But exit if the parent was killed: the loader's own watchdog sees only the server that forked
    this process, which in turn waits for this process, and both would stay forever.
    """
    ignore_warnings_of_pillow()
    for number in (signal.SIGINT, signal.SIGHUP):  # the loader ends its workers with SIGTERM
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None  # a worker has one
    parent.join()
    os._exit(1)
