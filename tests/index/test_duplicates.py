"""Which photographs of an index are called the same, and on what proof."""

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from alexnet_deploy.errors import IncompatibleFileError, UsageError
from alexnet_deploy.index import hashes
from alexnet_deploy.index.duplicate_groups import Duplicates, Group
from alexnet_deploy.photographs.likeness import Orientation
from alexnet_deploy.photographs.samples import varied_samples
from tests.support.edited import encoded, turned_picture
from tests.support.index_runner import photograph, save, update

pytestmark = pytest.mark.usefixtures("runners")

FIRST, *_, SECOND = varied_samples()[:5]
PICTURE = Image.open(FIRST).convert("RGB")


def find_duplicates(*arguments: Any, **options: Any) -> Duplicates:
    """Find them as `duplicates.find_duplicates` does, which loads FAISS."""
    from alexnet_deploy.index import duplicates

    return duplicates.find_duplicates(*arguments, **options)


def cut(picture: Image.Image, share: float = 0.9) -> Image.Image:
    """Return a picture without some of its left and its lower side."""
    left, bottom = round((1 - share) * picture.width), round(share * picture.height)
    return picture.crop((left, 0, picture.width, bottom))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder with a photograph, copies of it and another one, indexed."""
    folder = tmp_path / "photos"
    save(folder / "other.jpg", SECOND.read_bytes())
    save(folder / "photograph.jpg", FIRST.read_bytes())
    save(folder / "same bytes.jpg", FIRST.read_bytes())
    save(folder / "same pixels.png", encoded(PICTURE, "PNG"))
    save(folder / "poor.jpg", encoded(PICTURE, quality=50))
    save(folder / "grey.jpg", encoded(PICTURE.convert("L"), quality=50))
    turned = turned_picture(PICTURE, Orientation(mirrored=True, turned=90))
    save(folder / "turned.jpg", encoded(turned, quality=50))
    save(folder / "cut.jpg", encoded(cut(PICTURE), quality=50))
    update(tmp_path / "index", folder)
    return folder


def find(photos: Path) -> Duplicates:
    return find_duplicates(photos.with_name("index"), threads=2)


def named(groups: Sequence[Group]) -> list[tuple[str, set[str]]]:
    return [(one.first.name, {copy.path.name for copy in one.copies}) for one in groups]


def change(index: Path, sql: str) -> None:
    with closing(sqlite3.connect(index / "ledger.sqlite")) as connection:
        connection.executescript(f"PRAGMA foreign_keys = ON; {sql}; VACUUM")


def test_each_answer_begins_with_what_the_one_before_has_left(photos: Path) -> None:
    found = find(photos)
    assert named(found.same_bytes) == [("photograph.jpg", {"same bytes.jpg"})]
    assert named(found.same_pixels) == [("same pixels.png", {"photograph.jpg"})]
    ((first, copies),) = named(found.nearly_same)
    assert (first, copies) == ("same pixels.png", {"poor.jpg", "grey.jpg", "turned.jpg", "cut.jpg"})
    assert (found.num_photographs, found.num_failed) == (8, 0)


def test_a_copy_says_what_was_done_to_it(photos: Path) -> None:
    ((copies,),) = [[group.copies for group in find(photos).nearly_same]]
    remarks = {copy.path.name: copy.remark for copy in copies}
    assert remarks == {
        "poor.jpg": "",
        "grey.jpg": "grey",
        "turned.jpg": "mirrored, turned 90",
        "cut.jpg": "cropped",
    }
    shown = {copy.path.name: copy.shown for copy in copies}
    assert shown["cut.jpg"] == pytest.approx(0.81, abs=0.02)
    assert min(copy.correlation for copy in copies) >= 0.98


def test_a_larger_file_may_be_the_cut_one(tmp_path: Path) -> None:
    save(tmp_path / "photos" / "cut.png", encoded(cut(PICTURE), "PNG"))
    save(tmp_path / "photos" / "whole.jpg", encoded(PICTURE, quality=50))
    update(tmp_path / "index", tmp_path / "photos")
    ((group,),) = [find(tmp_path / "photos").nearly_same]
    (copy,) = group.copies
    assert (group.first.name, copy.path.name, copy.remark) == ("cut.png", "whole.jpg", "shows more")
    assert copy.beyond == pytest.approx(0.19, abs=0.02)


def test_a_group_holds_nothing_that_was_not_compared_with_its_first(tmp_path: Path) -> None:
    """Each is a cut of the one before, and the last too little of the first."""
    less = cut(PICTURE, 0.88)
    for name, picture, quality in (
        ("1", PICTURE, 95),
        ("2", less, 70),
        ("3", cut(less, 0.88), 30),
    ):
        save(tmp_path / "photos" / f"{name}.jpg", encoded(picture, quality=quality))
    update(tmp_path / "index", tmp_path / "photos")
    assert named(find(tmp_path / "photos").nearly_same) == [("1.jpg", {"2.jpg"})]
    (tmp_path / "photos" / "1.jpg").unlink()
    update(tmp_path / "index", tmp_path / "photos", prune=True)
    assert named(find(tmp_path / "photos").nearly_same) == [("2.jpg", {"3.jpg"})]


def test_flat_pictures_are_the_same_only_by_their_pixels(tmp_path: Path) -> None:
    for name, colour, edition in (("1", 100, 0), ("2", 100, 1), ("3", 101, 0)):
        save(tmp_path / "photos" / f"{name}.bmp", photograph((colour, 0, 0), edition))
    update(tmp_path / "index", tmp_path / "photos")
    found = find(tmp_path / "photos")
    assert named(found.same_pixels) == [("1.bmp", {"2.bmp"})]
    assert (found.same_bytes, found.nearly_same) == ((), ())


def test_a_large_jpeg_has_the_pixels_of_what_was_made_of_it(tmp_path: Path) -> None:
    """Its hash is of fewer pixels, for it is decoded at a fraction of its size."""
    noise = Image.effect_noise((2400, 1600), 40).convert("RGB")
    large = Image.blend(PICTURE.resize(noise.size), noise, 0.3)
    save(tmp_path / "photos" / "1.jpg", encoded(large, quality=60))
    with Image.open(tmp_path / "photos" / "1.jpg") as decoded:
        save(tmp_path / "photos" / "2.bmp", encoded(decoded, "BMP"))
    update(tmp_path / "index", tmp_path / "photos")
    assert named(find(tmp_path / "photos").same_pixels) == [("2.bmp", {"1.jpg"})]


def test_links_to_a_file_are_no_copies_of_it(tmp_path: Path) -> None:
    path = save(tmp_path / "photos" / "1.jpg", FIRST.read_bytes())
    path.with_name("soft.jpg").symlink_to(path)
    path.with_name("hard.jpg").hardlink_to(path)
    update(tmp_path / "index", tmp_path / "photos")
    assert find(tmp_path / "photos").same_bytes == ()


def test_a_later_run_decodes_what_is_new_and_writes_nothing_else(photos: Path) -> None:
    index, planned = photos.with_name("index"), list[int]()
    first = find(photos)
    before = (index / "ledger.sqlite").read_bytes()
    assert find_duplicates(index, on_plan=planned.append) == first
    assert (index / "ledger.sqlite").read_bytes() == before
    save(photos / "new.jpg", encoded(PICTURE, quality=40))
    update(index, photos)
    assert len(find_duplicates(index, on_plan=planned.append).nearly_same[0].copies) == 5
    assert planned == [7, 1 + 8]  # contents to compare; with one to hash


def test_a_run_that_was_stopped_is_continued(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashes, "_ROWS_PER_COMMIT", 2)
    index, done, planned = photos.with_name("index"), list[Path](), list[int]()

    def stop(path: Path, error: str | None) -> None:
        done.append(path)
        if len(done) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_duplicates(index, threads=2, on_read=stop)
    found = find_duplicates(index, threads=2, on_plan=planned.append)
    assert planned == [7 - 4 + 7]
    assert len(found.nearly_same[0].copies) == 4


def test_the_hashes_of_an_older_ledger_are_added(photos: Path) -> None:
    change(
        photos.with_name("index"), "DROP TABLE imported; DROP TABLE hashes; PRAGMA user_version = 5"
    )
    assert len(find(photos).nearly_same[0].copies) == 4


def test_hashes_go_with_their_photographs_and_move_with_them(photos: Path) -> None:
    index = photos.with_name("index")
    before = find(photos)
    (photos / "other.jpg").unlink()
    (photos / "grey.jpg").unlink()
    update(index, photos, prune=True)
    planned = list[int]()
    after = find_duplicates(index, on_plan=planned.append)
    assert planned == [5]
    assert after.same_pixels == before.same_pixels
    assert named(after.nearly_same) == [("same pixels.png", {"poor.jpg", "turned.jpg", "cut.jpg"})]


@pytest.mark.parametrize(
    ("change_to", "is_hashed"),
    [("gone", False), ("gone", True), ("changed", True), ("pipe", False), ("folder", True)],
)
def test_a_file_that_is_not_as_it_was_indexed_is_said_and_in_no_group(
    photos: Path, change_to: str, is_hashed: bool
) -> None:
    if is_hashed:
        find(photos)
    path, told = photos / "poor.jpg", dict[str, str]()
    if change_to == "changed":
        save(path, encoded(PICTURE, quality=60))
    else:
        path.unlink()
        if change_to == "pipe":
            os.mkfifo(path)
        elif change_to == "folder":
            path.mkdir()

    def tell(path: Path, error: str | None) -> None:
        if error is not None:
            told[path.name] = error

    found = find_duplicates(photos.with_name("index"), on_read=tell)
    assert list(told) == ["poor.jpg"]
    assert "is gone, or was changed" in told["poor.jpg"]
    assert found.num_failed == 1
    assert "poor.jpg" not in {copy.path.name for copy in found.nearly_same[0].copies}


@pytest.mark.parametrize("length", [14, FIRST.stat().st_size])
def test_a_copy_whose_file_was_changed_has_no_longer_the_same_bytes(
    photos: Path, length: int
) -> None:
    """Of the same length, too: of a file that had just been written the time proves nothing."""
    save(photos / "same bytes.jpg", bytes(length))
    told: list[str] = []
    assert find_duplicates(photos.with_name("index"), notify=told.append).same_bytes == ()
    assert any(line.startswith("1 files that had the bytes of others are gone") for line in told)


def test_hashes_of_another_length_are_refused(photos: Path) -> None:
    find(photos)
    for length in (0, 32, 447, 449, 100_000):
        change(photos.with_name("index"), f"UPDATE hashes SET hash = zeroblob({length})")
        with pytest.raises(IncompatibleFileError, match=r"damaged \(perceptual hashes have .* 448"):
            find(photos)


def test_equal_hashes_prove_nothing(photos: Path) -> None:
    expected = find(photos)
    change(photos.with_name("index"), "UPDATE hashes SET hash = zeroblob(448)")
    found = find(photos)
    assert found.same_pixels == expected.same_pixels
    assert "other.jpg" not in str(found)


def test_a_photograph_that_leaves_the_index_meanwhile_is_passed_over(photos: Path) -> None:
    index = photos.with_name("index")
    find(photos)

    def remove(line: str) -> None:
        assert line.startswith("comparing the pixels")
        for name in ("other.jpg", "grey.jpg", "turned.jpg"):
            (photos / name).unlink()
        update(index, photos, prune=True)

    found = find_duplicates(index, notify=remove)
    assert named(found.nearly_same) == [("same pixels.png", {"poor.jpg", "cut.jpg"})]
    assert (found.num_photographs, found.num_failed) == (5, 0)


def test_photographs_are_read_only_in_folders_that_the_user_has_named(photos: Path) -> None:
    index = photos.with_name("index")
    moved = index.rename(photos.with_name("from a stranger"))
    with pytest.raises(UsageError, match=f"its folders are {photos}, and you have not named them"):
        find_duplicates(moved)
    update(moved, photos)
    assert len(find_duplicates(moved).nearly_same) == 1


def test_a_folder_that_is_not_there_is_said_once(photos: Path) -> None:
    """Its drive may not be mounted; what only it has fails, and the rest is compared."""
    index, drive = photos.with_name("index"), photos.with_name("drive")
    save(drive / "only here.jpg", encoded(cut(PICTURE, 0.8)))
    save(drive / "grey again.jpg", (photos / "grey.jpg").read_bytes())
    update(index, drive)
    find(photos)
    drive.rename(drive.with_name("elsewhere"))
    told, read = list[str](), list[str | None]()
    found = find_duplicates(index, notify=told.append, on_read=lambda _, error: read.append(error))
    assert told[0] == f"{drive}: is not there; its 2 photographs are left out"
    assert set(read) == {None}
    assert (found.num_photographs, found.num_failed) == (8, 1)
    assert named(found.nearly_same) == named(find(photos).nearly_same)


def test_no_file_is_read_because_a_forged_ledger_says_that_it_was_imported(photos: Path) -> None:
    """What was imported is of no folder that the user has named."""
    index, outside = photos.with_name("index"), photos.with_name("outside.jpg")
    (photos / "other.jpg").rename(outside)
    change(
        index,
        "INSERT INTO roots VALUES (9, CAST('/v.parquet' AS BLOB), 0);"
        "INSERT INTO imported VALUES (9, 0, 0, 1);"
        "INSERT INTO photographs (root, path, sha256, position, status) "
        f"SELECT 9, CAST('{outside}' AS BLOB), sha256, position, status FROM photographs "
        "WHERE path = CAST('other.jpg' AS BLOB)",
    )
    read, told = list[tuple[Path, str | None]](), list[str]()
    found = find_duplicates(index, on_read=lambda *one: read.append(one), notify=told.append)
    assert told[0] == "1 imported vectors are left out: their photographs are not here"
    assert [path for path, error in read if error is not None] == [photos / "other.jpg"]
    assert outside not in {path for path, _ in read}
    assert (found.num_photographs, found.num_failed) == (8, 1)


def test_an_index_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere"):
        find_duplicates(tmp_path / "nowhere")
