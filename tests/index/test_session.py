"""An index that stays open: its queries as they were given, its threads, files and damage."""

import gc
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from alexnet_deploy.errors import ClosedError, IncompatibleFileError
from alexnet_deploy.index.results import Query
from alexnet_deploy.index.session import Index
from alexnet_deploy.inference.run import RunSummary
from tests.support.index_runner import (
    REQUEST,
    Runners,
    photograph,
    save,
    search,
    update,
)
from tests.support.waiting import PATIENCE_S

RED, BLUE = (200, 0, 0), (0, 0, 200)


@pytest.fixture
def photos(tmp_path: Path, runners: Runners) -> Path:
    """Return a folder of two photographs, which `tmp_path / "index"` is the index of."""
    for name, colour in (("blue", BLUE), ("red", RED)):
        save(tmp_path / "photos" / f"{name}.bmp", colour)
    update(tmp_path / "index", tmp_path / "photos")
    return tmp_path / "photos"


def test_a_result_has_the_query_that_was_given(photos: Path, index: Path, tmp_path: Path) -> None:
    with open(photos / "red.bmp", "rb") as file, open(photos / "blue.bmp", "rb") as closed:
        closed.close()
        picture = Image.new("L", (9, 9))
        array, vector = np.zeros((9, 9), np.uint8), np.ones(8, np.float16)
        queries: list[Query] = [file, closed, picture, array, vector, photograph(RED)]
        results = list(search(index, queries))
        pairs = zip(results, queries, strict=True)
        assert all(result.query is query for result, query in pairs)
        errors = [result.error is not None for result in results]
        assert errors == [False, True, False, False, False, False]
        assert "closed file" in (results[1].error or "")
    (result,) = search(index, str(photos / "red.bmp"))
    assert result.query == photos / "red.bmp"
    first, second = search(index, [vector, vector])
    assert (first == first, first == second) == (True, False)


def test_a_lazy_iterable_is_read_32_queries_at_a_time(photos: Path, index: Path) -> None:
    taken = 0

    def queries() -> Iterator[Path]:
        nonlocal taken
        for _ in range(40):
            taken += 1
            yield photos / "red.bmp"

    results = search(index, queries())
    assert taken == 0
    next(results)
    assert taken == 32
    assert len(list(results)) == 39


def test_a_vector_beyond_float16_is_counted_as_failed(index: Path) -> None:
    summary = RunSummary()
    (result,) = search(index, np.full(8, 1e6, np.float32), summary=summary)
    assert "reach 1e+06" in (result.error or "")
    assert (summary.num_done, summary.num_failed) == (0, 1)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no list of open files here")
def test_closing_gives_the_files_back_at_once(photos: Path, index: Path) -> None:
    def open_files() -> set[str]:
        links = (os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd"))
        files = {os.path.realpath(link) for link in links}
        return {file for file in files if file.startswith(os.path.realpath(index))}

    gc.disable()
    try:
        with Index(index, REQUEST) as opened:
            results = opened.search([photos / "red.bmp"] * 40)
            next(results)
            assert {Path(file).suffix for file in open_files()} >= {".f16", ".sqlite"}
        assert open_files() == set()
    finally:
        gc.enable()


def test_searches_that_need_no_network_go_on_while_it_is_loaded(
    photos: Path, index: Path, runners: Runners, monkeypatch: pytest.MonkeyPatch
) -> None:
    loading, may_end = threading.Event(), threading.Event()

    def open_slowly(*arguments: Any, **options: Any) -> object:
        loading.set()
        assert may_end.wait(PATIENCE_S)
        return runners.open(*arguments, **options)

    monkeypatch.setattr("alexnet_deploy.index.model.open_runner_of", open_slowly)
    with Index(index, REQUEST) as opened, ThreadPoolExecutor(2) as executor:
        other = executor.submit(lambda: list(opened.search(photograph((9, 9, 9)))))
        assert loading.wait(PATIENCE_S)
        indexed = executor.submit(lambda: list(opened.search(photos / "red.bmp")))
        try:
            assert len(indexed.result(PATIENCE_S)) == 1
        finally:
            may_end.set()
        assert len(other.result(PATIENCE_S)) == 1


def test_a_query_whose_vector_is_lost_is_told_of_the_damage(photos: Path, index: Path) -> None:
    for path in photos.iterdir():
        save(path, b"bad")  # its vector stays, of no photograph, so that no ranking reads it
    update(index, photos)
    (segment,) = (index / "vectors").iterdir()
    segment.write_bytes(b"")
    with pytest.raises(IncompatibleFileError, match=r"00000\.f16: has 0 bytes.*repair=True"):
        list(search(index, photograph(RED)))


@pytest.mark.parametrize("is_built_again", [False, True])
def test_an_index_that_is_gone_does_not_go_on_answering(
    photos: Path, index: Path, is_built_again: bool
) -> None:
    with Index(index, REQUEST) as opened:
        assert len(list(opened.search(photos / "red.bmp"))) == 1
        index.rename(index.with_name("moved"))
        if is_built_again:
            update(index, photos)
        with pytest.raises(ClosedError, match="was deleted or replaced since it was opened; open"):
            opened.search(photos / "red.bmp")
