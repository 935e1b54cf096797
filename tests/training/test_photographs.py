"""Batches hold what a plain Pillow loop reads, in the order given, from memory and from files."""

import io
import multiprocessing
import os
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from alexnet_deploy.errors import DatasetError
from alexnet_deploy.photographs.class_folders import ClassFolders, find_class_folders
from tests.support.class_pictures import (
    BAD,
    GOOD,
    SIZE,
    save_bad,
    save_good,
    save_noise,
    square_by_hand,
)
from tests.support.prepare_runs import FORM
from training.photographs import PhotographBatch, PhotographSource, batches, hold_out, open_source

LABELS = {"bee": 0, "cow": 1, "elk": 2}
IN_FILES = 0
"""A memory limit that no picture fits in."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return save_bad(save_good(tmp_path / "root"))


@pytest.fixture
def few_cores() -> Iterator[None]:
    """Let torch start two workers on a machine with one core, of which it warns."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        yield


def opened(root: Path, memory_limit_bytes: int = 2**30) -> PhotographSource:
    return open_source(find_class_folders(root), form=FORM, memory_limit_bytes=memory_limit_bytes)


def taken(
    source: PhotographSource, order: list[int], *, batch_size: int = 4, num_workers: int = 0
) -> list[PhotographBatch]:
    numbers = np.array(order, np.int64)
    return list(batches(source, numbers, batch_size=batch_size, num_workers=num_workers))


def picture_by_hand(path: Path) -> NDArray[np.uint8] | None:
    """Return None for what Pillow cannot read."""
    try:
        with Image.open(io.BytesIO(path.read_bytes())) as opened_image:
            return np.asarray(square_by_hand(opened_image))
    except OSError:
        return None


def assert_holds(batch: PhotographBatch, paths: list[Path]) -> None:
    """Compare a batch with what is read by hand."""
    pictures = {path: picture_by_hand(path) for path in paths}
    good = [path for path in paths if pictures[path] is not None]
    assert (batch.images.dtype, batch.labels.dtype) == (torch.uint8, torch.int64)
    assert batch.images.shape == (len(good), SIZE, SIZE, 3)
    for row, path in enumerate(good):
        np.testing.assert_array_equal(batch.images[row].numpy(), pictures[path])
    classes = [next(part for part in path.parts if part in LABELS) for path in good]
    assert batch.labels.tolist() == [LABELS[name] for name in classes]
    assert [one.path for one in batch.failures] == [path for path in paths if path not in good]
    assert all(one.reason for one in batch.failures)


def test_a_source_in_files_reads_the_order_given_and_names_what_it_cannot_read(
    root: Path,
) -> None:
    source = opened(root, IN_FILES)
    assert source.images is None
    assert source.failures == ()
    assert len(source) == len(GOOD) + len(BAD)
    order = [7, 0, 3, 3, 10, 1, 2, 9, 8, 4]
    found = taken(source, order)
    assert len(found) == 3
    for number, batch in enumerate(found):
        assert_holds(batch, [source.folders.path(i) for i in order[4 * number : 4 * number + 4]])
    failed = [one.path for batch in found for one in batch.failures]
    assert {path.relative_to(root) for path in failed} <= {Path(name) for name in BAD}
    assert failed


def test_a_source_in_memory_has_dropped_what_it_could_not_read(root: Path) -> None:
    results: list[tuple[Path, str | None]] = []
    folders = find_class_folders(root)
    source = open_source(
        folders,
        form=FORM,
        memory_limit_bytes=2**30,
        on_result=lambda path, error: results.append((path, error)),
    )
    assert source.images is not None
    assert source.images.shape == (len(GOOD), SIZE, SIZE, 3)
    assert [one.path for one in source.failures] == [root / name for name in BAD]
    assert {path: error for path, error in results if error} == {
        one.path: one.reason for one in source.failures
    }
    assert [path for path, _ in results] == [folders.path(i) for i in range(len(folders))]
    assert len(source) == len(GOOD)
    order = [7, 0, 3, 3, 2]
    for number, batch in enumerate(taken(source, order)):
        assert_holds(batch, [source.folders.path(i) for i in order[4 * number : 4 * number + 4]])


@pytest.mark.usefixtures("few_cores")
def test_workers_give_the_same_batches_as_none_and_as_memory(root: Path) -> None:
    for name in BAD:
        (root / name).unlink()
    files, memory = opened(root, IN_FILES), opened(root)
    order = list(range(len(files))) * 3
    state = torch.get_rng_state()
    expected = taken(memory, order)
    for found in (taken(files, order), taken(files, order, num_workers=2)):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert torch.equal(one.images, other.images)
            assert torch.equal(one.labels, other.labels)
    # Resuming must not depend on what was read.
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.usefixtures("few_cores")
def test_failures_come_from_workers_and_an_epoch_may_be_left_in_its_middle(root: Path) -> None:
    source = opened(root, IN_FILES)
    numbers = np.arange(len(source))
    left = batches(source, numbers, batch_size=1, num_workers=2)
    assert_holds(next(left), [source.folders.path(0)])
    del left
    assert multiprocessing.active_children() == []
    again = batches(source, numbers[3:], batch_size=len(source), num_workers=1)
    (rest,) = again
    assert_holds(rest, [source.folders.path(i) for i in range(3, len(source))])
    assert len(rest.failures) >= 2


@pytest.mark.usefixtures("few_cores")
def test_an_interrupt_of_the_terminal_does_not_stop_the_workers(root: Path) -> None:
    source = opened(root, IN_FILES)
    stream = batches(source, np.arange(len(source)), batch_size=1, num_workers=2)
    found = [next(stream), next(stream)]  # one from each worker, so both are at work
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    for worker in workers:
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGINT)
    assert len(found + list(stream)) == len(source)


def test_a_batch_of_nothing_but_failures_is_empty(tmp_path: Path) -> None:
    root = save_bad(tmp_path / "root")
    source = opened(root, IN_FILES)
    (batch,) = taken(source, [0, 1, 2])
    assert_holds(batch, [root / name for name in BAD])
    assert len(batch.failures) == 3
    with pytest.raises(DatasetError, match="none of 3 photographs can be read, the first"):
        opened(root)


def test_pictures_are_kept_in_memory_up_to_the_limit(root: Path) -> None:
    num_bytes = (len(GOOD) + len(BAD)) * SIZE * SIZE * 3
    assert opened(root, num_bytes).images is not None
    assert opened(root, num_bytes - 1).images is None


def test_a_picture_of_the_right_size_is_taken_as_it_is(tmp_path: Path) -> None:
    save_noise(tmp_path / "root/bee/1.png", (SIZE, SIZE), 0)
    (batch,) = taken(opened(tmp_path / "root", IN_FILES), [0])
    with Image.open(tmp_path / "root/bee/1.png") as image:
        np.testing.assert_array_equal(batch.images[0].numpy(), np.asarray(image))


def test_a_batch_from_memory_is_no_view_of_it(root: Path) -> None:
    source = opened(root)
    (batch,) = taken(source, [0])
    batch.images.zero_()
    assert source.images is not None
    assert source.images[0].any()


@pytest.mark.parametrize("memory_limit_bytes", [IN_FILES, 2**30])
def test_an_empty_order_has_no_batches(root: Path, memory_limit_bytes: int) -> None:
    assert taken(opened(root, memory_limit_bytes), []) == []


def folders_of(counts: list[int]) -> ClassFolders:
    """Return folders of so many photographs in each class, none of which is on the disk."""
    names = [f"{number}.jpg".encode() for number in range(sum(counts))]
    ends = np.cumsum([len(name) for name in names], dtype=np.int64)
    return ClassFolders(
        root=Path("root"),
        classes=tuple(f"class{number}" for number in range(len(counts))),
        labels=np.repeat(np.arange(len(counts), dtype=np.int32), counts),
        names=b"".join(names),
        spans=np.stack([ends - [len(name) for name in names], ends], axis=1),
    )


@given(
    counts=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    share=st.floats(0.001, 0.999),
    seed=st.integers(0, 2**32),
)
def test_every_class_of_two_or_more_is_in_both_parts_in_about_its_share(
    counts: list[int], share: float, seed: int
) -> None:
    folders = folders_of(counts)
    if max(counts) == 1:
        with pytest.raises(DatasetError, match="no class has two photographs"):
            hold_out(folders, share, seed)
        return
    train, validation = hold_out(folders, share, seed)
    every = [folders.path(i) for i in range(len(folders))]
    parts = [[part.path(i) for i in range(len(part))] for part in (train, validation)]
    assert sorted(parts[0] + parts[1]) == sorted(every)
    assert parts == [sorted(part, key=every.index) for part in parts]
    for number, count in enumerate(counts):
        num_held = int((validation.labels == number).sum())
        assert int((train.labels == number).sum()) == count - num_held
        if count == 1:
            assert num_held == 0
        else:
            assert 1 <= num_held <= count - 1
            assert abs(num_held - share * count) <= 1
    again = hold_out(folders, share, seed)
    assert [part.labels.tolist() for part in again] == [
        part.labels.tolist() for part in (train, validation)
    ]
    np.testing.assert_array_equal(again[1].spans, validation.spans)


def test_another_seed_holds_out_other_photographs() -> None:
    folders = folders_of([100, 100])
    held = [hold_out(folders, 0.2, seed)[1].spans.tolist() for seed in range(3)]
    assert held[0] != held[1] != held[2] != held[0]
