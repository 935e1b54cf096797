"""Which neighbours are called identical: people delete files on that word."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet_deploy.index.results import Query
from alexnet_deploy.photographs import file_stamps
from tests.support.index_runner import photograph, save, search, update, vector_of

RED = (200, 0, 0)

pytestmark = pytest.mark.usefixtures("runners")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder with two copies, and another file with the same picture, indexed."""
    save(tmp_path / "photos" / "red.bmp", RED)
    save(tmp_path / "photos" / "copy.bmp", RED)
    save(tmp_path / "photos" / "alike.bmp", photograph(RED, edition=1))
    update(tmp_path / "index", tmp_path / "photos")
    return tmp_path / "photos"


def identical_to(photos: Path, query: Query) -> set[str]:
    (result,) = search(photos.with_name("index"), [query])
    assert {one.l2_distance for one in result.neighbours} == {0.0}
    return {one.path.name for one in result.neighbours if one.is_identical}


def test_only_files_with_the_bytes_of_the_query_are_identical(photos: Path) -> None:
    assert identical_to(photos, photos / "red.bmp") == {"copy.bmp"}
    assert identical_to(photos, photograph(RED)) == {"copy.bmp", "red.bmp"}
    assert identical_to(photos, photos / "alike.bmp") == set()
    assert identical_to(photos, photograph(RED, edition=2)) == set()
    with open(photos / "red.bmp", "rb") as file:
        assert identical_to(photos, file) == {"copy.bmp", "red.bmp"}


def test_what_has_no_file_has_no_identical_one(photos: Path) -> None:
    assert identical_to(photos, Image.new("RGB", (8, 8), RED)) == set()
    assert identical_to(photos, np.full((8, 8, 3), RED, np.uint8)) == set()
    assert identical_to(photos, vector_of(RED)) == set()


@pytest.mark.parametrize("change", ["size", "time", "gone"])
def test_a_file_that_has_changed_since_it_was_indexed_is_not_identical(
    photos: Path, change: str
) -> None:
    copy = photos / "copy.bmp"
    before = copy.stat().st_mtime_ns
    if change == "gone":
        copy.unlink()
    elif change == "size":
        copy.write_bytes(photograph(RED) + b"more")
        os.utime(copy, ns=(before, before))
    else:
        copy.write_bytes(photograph((0, 0, 200)))
    assert identical_to(photos, photos / "red.bmp") == set()
    (result,) = search(photos.with_name("index"), [photos / "red.bmp"])
    remarks = {one.path.name: one.remark for one in result.neighbours}
    assert remarks == {"copy.bmp": "gone" if change == "gone" else "changed", "alike.bmp": ""}
    assert [one.is_changed for one in result.neighbours].count(True) == (change != "gone")
    update(photos.with_name("index"), photos)
    (result,) = search(photos.with_name("index"), [photos / "red.bmp"])
    assert not any(one.is_changed or one.is_gone for one in result.neighbours)


def test_a_file_whose_time_proves_nothing_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_stamps, "is_settled", lambda _: False)  # as just after it was written
    fresh = save(tmp_path / "new" / "fresh.bmp", RED)
    update(tmp_path / "index", tmp_path / "new")
    (result,) = search(tmp_path / "index", [photograph(RED)])
    assert [one.is_identical for one in result.neighbours] == [True]
    save(fresh, photograph(RED, edition=1))
    (result,) = search(tmp_path / "index", [photograph(RED)])
    assert [one.is_identical for one in result.neighbours] == [False]


def test_a_file_that_was_replaced_by_a_folder_s_absence_is_gone(photos: Path) -> None:
    photos.rename(photos.with_name("moved"))
    photos.write_bytes(b"not a folder any more")
    (result,) = search(photos.with_name("index"), [photograph(RED)])
    assert [one.is_gone for one in result.neighbours] == [True] * 3
