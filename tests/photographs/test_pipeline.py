"""Order, padding, bounds and failures of the decode threads."""

import random
import threading
import time
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from alexnet_deploy.errors import PhotographError, UsageError
from alexnet_deploy.model.spec import PRESETS
from alexnet_deploy.photographs import pipeline
from alexnet_deploy.photographs.pipeline import Batch, Loaded, batches, crop_loader
from alexnet_deploy.photographs.pixels import EXACT
from tests.support.waiting import PATIENCE_S, threads_have_ended, wait_until

SPEC = PRESETS["torchvision"]


def colour(number: int) -> tuple[int, int, int]:
    """Return a colour of its own for each number below 65,536."""
    return (number % 256, number // 256, 77)


def load_by_name(path: Path, *_: object) -> Image.Image:
    """Stand in for the decoder: the name says the colour, how long it takes, and if it fails."""
    kind, number = path.name.split("-")
    time.sleep(random.random() * 0.002)
    if kind == "bad":
        raise PhotographError(f"reason {number}")
    return Image.new("RGB", (8, 8), colour(int(number)))


def names(failures: list[bool]) -> list[Path]:
    return [Path(f"{'bad' if bad else 'good'}-{number}") for number, bad in enumerate(failures)]


def batches_of(
    paths: Iterable[Path], *, batch_size: int, threads: int
) -> Generator[Batch[Path], None, None]:
    return batches(
        paths, crop_loader(SPEC, EXACT), input_size=224, batch_size=batch_size, threads=threads
    )


@settings(max_examples=40)
@given(
    failures=st.lists(st.booleans(), max_size=40),
    batch_size=st.integers(1, 7),
    threads=st.integers(1, 4),
)
def test_each_path_gets_its_own_pixels_in_order(
    failures: list[bool], batch_size: int, threads: int
) -> None:
    paths = names(failures)
    seen: list[Path] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "load_image", load_by_name)
        for batch in batches_of(paths, batch_size=batch_size, threads=threads):
            rows = [slot.row for slot in batch.slots if slot.row is not None]
            assert rows == list(range(len(rows)))
            assert batch.images.shape == (len(rows), 224, 224, 3)
            assert len(rows) <= batch_size
            for slot in batch.slots:
                seen.append(slot.item)
                kind, number = slot.item.name.split("-")
                if kind == "bad":
                    assert (slot.row, slot.error) == (None, f"reason {number}")
                else:
                    assert slot.error is None
                    assert slot.row is not None
                    assert (batch.images[slot.row] == colour(int(number))).all()
    assert seen == paths


def test_a_photograph_s_pixels_do_not_depend_on_its_neighbours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pipeline, "load_image", load_by_name)
    (alone,) = batches_of([Path("good-9")], batch_size=4, threads=1)
    (among,) = batches_of([*names([False] * 3), Path("good-9")], batch_size=4, threads=2)
    np.testing.assert_array_equal(alone.images[0], among.images[3])


def test_no_more_than_the_window_is_loaded_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    num_taken = 0

    def endless() -> Iterator[Path]:
        nonlocal num_taken
        while True:
            num_taken += 1
            yield Path(f"good-{num_taken % 1000}")

    monkeypatch.setattr(pipeline, "load_image", load_by_name)
    stream = batches_of(endless(), batch_size=4, threads=2)
    assert num_taken == 0
    for number in range(1, 6):
        next(stream)
        time.sleep(0.05)  # time enough for threads to run ahead, if they could
        assert num_taken <= 4 * number + 8
    stream.close()
    wait_until(threads_have_ended)


def test_a_long_run_of_failures_is_handed_on_in_bounded_pieces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pipeline, "load_image", load_by_name)
    sizes = [len(batch.slots) for batch in batches_of(names([True] * 70), batch_size=4, threads=2)]
    assert sizes == [32, 32, 6]


def test_no_paths_give_no_batch() -> None:
    assert list(batches_of([], batch_size=4, threads=2)) == []


def test_an_error_of_our_own_is_not_a_failed_photograph(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Image.Image:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(pipeline, "load_image", broken)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        list(batches_of(names([False] * 20), batch_size=4, threads=2))
    wait_until(threads_have_ended)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_error_while_listing_ends_the_threads(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted() -> Iterator[Path]:
        yield from names([False] * 6)
        raise error

    monkeypatch.setattr(pipeline, "load_image", load_by_name)
    with pytest.raises(error):
        list(batches_of(interrupted(), batch_size=2, threads=2))
    wait_until(threads_have_ended)


def test_closing_drops_what_has_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    begun: list[Path] = []

    def held_back(path: Path, *_: object) -> Image.Image:
        begun.append(path)
        if path.name != "good-0":
            gate.wait(PATIENCE_S)
        return load_by_name(path)

    monkeypatch.setattr(pipeline, "load_image", held_back)
    stream = batches_of(names([False] * 50), batch_size=1, threads=2)
    next(stream)
    start = time.monotonic()
    stream.close()
    waited_s = time.monotonic() - start
    gate.set()
    wait_until(threads_have_ended)
    assert waited_s < PATIENCE_S  # for which the threads are held
    assert len(begun) <= 3  # the first, and one in each thread


@pytest.mark.parametrize(("batch_size", "threads"), [(0, 1), (1, 0), (-3, 1)])
def test_numbers_below_one_are_refused_at_the_call(batch_size: int, threads: int) -> None:
    with pytest.raises(UsageError, match="expected 1 or more"):
        batches_of([], batch_size=batch_size, threads=threads)


def test_a_crop_that_needs_no_row_keeps_its_place_and_no_pixels() -> None:
    def load(path: Path) -> Loaded:
        return Loaded(crop=np.full((8, 8, 3), int(path.name), np.uint8))

    numbers = [5, 6, 5, 7, 6, 5, 8]
    seen: set[int] = set()

    def is_first(loaded: Loaded) -> bool:
        assert loaded.crop is not None
        number = int(loaded.crop[0, 0, 0])
        is_new = number not in seen
        seen.add(number)
        return is_new

    stream = batches(
        [Path(str(number)) for number in numbers],
        load,
        input_size=8,
        batch_size=2,
        threads=3,
        needs_row=is_first,
    )
    slots, rows = [], []
    for batch in stream:
        slots += [(slot.item.name, slot.row is not None, slot.error) for slot in batch.slots]
        rows += [
            int(batch.images[slot.row, 0, 0, 0]) for slot in batch.slots if slot.row is not None
        ]
    firsts = [True, True, False, True, False, False, True]
    expected = zip(numbers, firsts, strict=True)
    assert slots == [(str(number), first, None) for number, first in expected]
    assert rows == [5, 6, 7, 8]
