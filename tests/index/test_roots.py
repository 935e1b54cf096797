"""The many ways to name the folders of an index, and what lies in them beside photographs."""

import os
import shutil
from pathlib import Path

import pytest

from alexnet_deploy.errors import NoPhotographsError, UsageError
from tests.support.index_runner import (
    Runners,
    counts,
    indexed,
    roots_of,
    rows_of,
    save,
    search,
    update,
)

RED, GREEN, BLUE = (200, 0, 0), (0, 200, 0), (0, 0, 200)
LATIN_1 = os.fsdecode(b"caf\xe9\n")


pytestmark = pytest.mark.usefixtures("runners")


@pytest.mark.parametrize("written", ["photos", "photos/", "./photos/sub/..", "link", "link/"])
def test_a_folder_is_the_same_root_however_it_is_written(
    photos: Path, index: Path, runners: Runners, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    (photos.parent / "link").symlink_to("photos")
    monkeypatch.chdir(photos.parent)
    assert counts(update(Path("index"), Path(written))) == (0, 0, 2, 0, 0)
    assert roots_of(index) == [photos]
    assert runners.num_opened == 0


def test_a_folder_that_is_given_twice_is_searched_once(photos: Path, index: Path) -> None:
    (photos.parent / "link").symlink_to("photos")
    folders = [photos, photos.parent / "link", photos / "sub", photos]
    assert counts(update(index, *folders)) == (0, 0, 2, 0, 0)
    assert roots_of(index) == [photos]


def test_a_folder_first_given_by_a_link_keeps_no_link(tmp_path: Path) -> None:
    red = save(tmp_path / "photos" / "red.bmp", RED)
    (tmp_path / "link").symlink_to("photos")
    update(tmp_path / "index", tmp_path / "link")
    assert list(indexed(tmp_path / "index")) == [red]


def test_a_sub_folder_is_a_part_of_its_root_and_alone_is_searched(
    photos: Path, index: Path
) -> None:
    save(photos / "new.bmp", BLUE)
    new = save(photos / "sub" / "new.bmp", (1, 2, 3))
    (photos / "red.bmp").unlink()
    assert counts(update(index, photos / "sub")) == (1, 0, 1, 0, 0)
    assert roots_of(index) == [photos]
    assert set(indexed(index)) == {photos / "red.bmp", photos / "sub" / "green.bmp", new}


def test_a_sub_folder_that_is_gone_is_missed_where_it_was(photos: Path, index: Path) -> None:
    shutil.rmtree(photos / "sub")
    (loss,) = update(index, photos / "sub").losses
    assert (loss.root.path, loss.num_lost, loss.num_indexed) == (photos, 1, 2)
    assert counts(update(index, photos / "sub", prune=True)) == (0, 0, 0, 1, 0)
    with pytest.raises(UsageError, match="does not exist; give a folder of photographs"):
        update(index, photos / "sub")


def test_names_that_only_begin_like_a_sub_folder_s_are_not_in_it(photos: Path, index: Path) -> None:
    for name in ("sub-", "sub0", "sub.bmp"):
        save(photos / name / "x.bmp", GREEN)
    update(index, photos)
    for name in ("sub-", "sub0", "sub.bmp"):
        shutil.rmtree(photos / name)
    assert counts(update(index, photos / "sub")) == (0, 0, 1, 0, 0)
    assert len(indexed(index)) == 5


def test_a_parent_folder_takes_in_the_roots_below_it(
    photos: Path, index: Path, runners: Runners
) -> None:
    top = photos.parent / "top"
    (top / "deep").mkdir(parents=True)
    photos.rename(top / "deep" / "photos")
    save(top / "other" / "blue.bmp", BLUE)
    update(index, top / "other", moved_roots=(f"{photos}={top}/deep/photos",))
    before = rows_of(index)
    assert len(roots_of(index)) == 2
    runners.colours.clear()
    new = save(top / "new.bmp", (1, 2, 3))
    assert counts(update(index, top)) == (1, 0, 3, 0, 0)
    assert runners.colours == [(1, 2, 3)]
    assert roots_of(index) == [top]
    after = rows_of(index)
    assert {path: row for path, row in after.items() if path != new} == before


def test_a_parent_and_a_root_in_it_given_together_are_one_root(photos: Path, index: Path) -> None:
    index.rename(photos / "index")
    save(photos.parent / "top.bmp", BLUE)
    for folders in ([photos, photos.parent], [photos.parent / "photos" / "sub", photos.parent]):
        update(photos / "index", *folders)
        assert roots_of(photos / "index") == [photos.parent]
        assert len(indexed(photos / "index")) == 3


def test_several_roots_are_indexed_together_or_one_after_the_other(
    photos: Path, index: Path, tmp_path: Path
) -> None:
    blue = save(tmp_path / "b" / "blue.bmp", BLUE)
    copy = save(tmp_path / "c" / "copy.bmp", RED)
    assert counts(update(index, tmp_path / "b", tmp_path / "c")) == (1, 1, 0, 0, 0)
    assert roots_of(index) == [photos, tmp_path / "b", tmp_path / "c"]
    save(copy, BLUE)
    assert counts(update(index)) == (0, 1, 3, 0, 0)  # no folder: all roots
    assert set(indexed(index)) == {photos / "red.bmp", photos / "sub" / "green.bmp", blue, copy}
    (result,) = search(index, [blue])
    assert result.neighbours[0].path == copy


def test_a_folder_that_moves_from_root_to_root_keeps_its_vectors(
    photos: Path, index: Path, tmp_path: Path, runners: Runners
) -> None:
    save(tmp_path / "b" / "blue.bmp", BLUE)
    update(index, tmp_path / "b")
    runners.colours.clear()
    (photos / "sub").rename(tmp_path / "b" / "sub")
    report = update(index)
    assert (counts(report), report.losses) == ((0, 1, 2, 1, 0), ())
    assert runners.colours == []
    assert tmp_path / "b" / "sub" / "green.bmp" in indexed(index)


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("nowhere", "nowhere: does not exist; give a folder of photographs"),
        ("photos/red.bmp", "red.bmp: is a file; an index holds folders, give the one it is in"),
        ("index", "index: is the index itself; give the folder of the photographs"),
        ("index/vectors", "vectors: is the index itself"),
    ],
)
def test_what_is_no_folder_of_photographs_is_refused(
    photos: Path, index: Path, tmp_path: Path, folder: str, message: str
) -> None:
    save(photos / "new.bmp", BLUE)
    with pytest.raises(UsageError, match=message):
        update(index, photos, tmp_path / folder)
    assert len(rows_of(index)) == 2


@pytest.mark.parametrize(
    "folders",
    [
        [],
        ["nowhere"],
        ["red.bmp"],
        ["*.bmp"],
    ],
    ids=str,
)
def test_no_index_is_made_of_what_is_no_folder(
    photos: Path, tmp_path: Path, folders: list[str]
) -> None:
    with pytest.raises((UsageError, NoPhotographsError)):
        update(tmp_path / "new", *(photos / folder for folder in folders))
    assert not (tmp_path / "new").exists()


def test_a_root_without_photographs_is_not_remembered(
    photos: Path, index: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(NoPhotographsError):
        update(index, tmp_path / "empty")
    assert roots_of(index) == [photos]


@pytest.mark.parametrize("name", ["moved", "a=b", "=", f"{LATIN_1}="])
def test_a_moved_root_keeps_all_that_it_had(
    tmp_path: Path, runners: Runners, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    old, new, index = tmp_path / "old=1", tmp_path / name, tmp_path / "index"
    save(old / "sub" / "red.bmp", RED)
    update(index, old)
    before = {path.relative_to(old): row for path, row in rows_of(index).items()}
    old.rename(new)
    runners.num_opened = 0
    assert counts(update(index, moved_roots=(f"./old=1/={name}",))) == (0, 0, 1, 0, 0)
    assert roots_of(index) == [new]
    assert {path.relative_to(new): row for path, row in rows_of(index).items()} == before
    assert runners.num_opened == 0


@pytest.mark.parametrize(
    ("move", "message"),
    [
        (
            "photos",
            r'moved_roots="photos": expected OLD=NEW with OLD one of .*/photos, /.*/other\)',
        ),
        ("nowhere=new", "expected OLD=NEW with OLD one of"),
        ("=new", "expected OLD=NEW with OLD one of"),
        ("photos=", 'moved_roots="photos=": NEW is not a folder'),
        ("photos=nowhere", "nowhere is not a folder"),
        ("photos=other/red.bmp", "is not a folder"),
        ("photos=other", "overlaps the root .*/other; index it as it is now"),
        ("photos=other/sub", "overlaps the root .*/other"),
        ("photos=.", "overlaps the root .*/other"),
        ("photos=index/vectors", "index"),
    ],
)
def test_a_move_that_cannot_be_is_refused_with_its_reason(
    photos: Path, index: Path, monkeypatch: pytest.MonkeyPatch, move: str, message: str
) -> None:
    shutil.copytree(photos, photos.parent / "other")
    (photos.parent / "new").mkdir()
    update(index, photos.parent / "other")
    monkeypatch.chdir(photos.parent)
    before = rows_of(index)
    with pytest.raises(UsageError, match=message):
        update(index, moved_roots=(move,))
    assert rows_of(index) == before


def test_a_move_without_an_old_name_is_refused_in_a_root_too(
    photos: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(photos, photos.parent / "new")
    monkeypatch.chdir(photos)
    with pytest.raises(UsageError, match="expected OLD=NEW"):
        update(index, moved_roots=("=../new",))


def test_an_index_among_the_photographs_is_never_indexed(tmp_path: Path) -> None:
    photos, index = tmp_path / "photos", tmp_path / "photos" / "index"
    red = save(photos / "red.bmp", RED)
    update(index, photos)
    save(index / "in the index.bmp", GREEN)
    save(index / "vectors" / "too.bmp", BLUE)
    (photos / "link").symlink_to("index")
    (tmp_path / "by a link").symlink_to(index)
    for directory in (index, tmp_path / "by a link"):
        for include_hidden in (False, True):
            report = update(directory, photos, include_hidden=include_hidden)
            assert counts(report) == (0, 0, 1, 0, 0)
    assert list(indexed(index)) == [red]


def test_an_index_that_is_made_by_a_run_among_hidden_files_is_not_found_by_it(
    tmp_path: Path,
) -> None:
    red = save(tmp_path / ".photos" / "red.bmp", RED)
    index = tmp_path / ".photos" / ".index"
    assert counts(update(index, tmp_path / ".photos", include_hidden=True)) == (1, 0, 0, 0, 0)
    assert list(rows_of(index)) == [red]


def test_links_in_a_root_lead_to_no_photograph_twice(
    photos: Path, index: Path, tmp_path: Path
) -> None:
    blue = save(tmp_path / "other" / "blue.bmp", BLUE)
    (photos / "a link inside").symlink_to("sub")
    (photos / "sub" / "up").symlink_to(photos)
    (photos / "to the other").symlink_to(tmp_path / "other")
    update(index, tmp_path / "other")
    assert counts(update(index)) == (0, 0, 3, 0, 0)
    assert set(rows_of(index)) == {photos / "red.bmp", photos / "sub" / "green.bmp", blue}
    # The link in a sub-folder, when that alone is searched, leads to photographs of the root.
    assert counts(update(index, photos / "sub")) == (0, 0, 2, 0, 0)


def test_a_link_to_elsewhere_is_followed_until_that_is_a_root_itself(
    photos: Path, index: Path, tmp_path: Path, runners: Runners
) -> None:
    blue = save(tmp_path / "other" / "blue.bmp", BLUE)
    (photos / "link").symlink_to(tmp_path / "other")
    update(index)
    assert photos / "link" / "blue.bmp" in indexed(index)
    runners.num_opened = 0
    runners.colours.clear()
    assert counts(update(index, photos / "link")) == (0, 1, 0, 0, 0)
    assert counts(update(index)) == (0, 0, 3, 1, 0)
    assert set(indexed(index)) == {photos / "red.bmp", photos / "sub" / "green.bmp", blue}
    assert runners.colours == []


def test_hidden_files_are_a_root_s_own_choice_and_remembered(
    photos: Path, index: Path, tmp_path: Path
) -> None:
    hidden = save(photos / ".hidden" / "blue.bmp", BLUE)
    other = save(tmp_path / "other" / "yellow.bmp", (200, 200, 0))
    save(tmp_path / "other" / ".hidden.bmp", (1, 2, 3))
    assert counts(update(index, photos)) == (0, 0, 2, 0, 0)
    assert counts(update(index, photos, include_hidden=True)) == (1, 0, 2, 0, 0)
    assert counts(update(index, photos, tmp_path / "other")) == (1, 0, 3, 0, 0)
    assert {hidden, other} < set(indexed(index))


def test_a_hidden_folder_of_a_root_needs_the_option_that_keeps_it(
    photos: Path, index: Path
) -> None:
    hidden = save(photos / ".hidden" / "blue.bmp", BLUE)
    with pytest.raises(UsageError, match=r"is hidden in .*; add include_hidden=True"):
        update(index, photos / ".hidden")
    update(index, photos / ".hidden", include_hidden=True)
    report = update(index, photos)
    assert (counts(report), report.losses) == ((0, 0, 3, 0, 0), ())
    assert hidden in indexed(index)


def test_names_that_are_not_utf_8_are_found_kept_and_moved(tmp_path: Path) -> None:
    root, index = tmp_path / f"{LATIN_1} root", tmp_path / f"{LATIN_1} index"
    red = save(root / LATIN_1 / f"{LATIN_1}.bmp", RED)
    green = save(root / "\u5b57 % ? #.bmp", GREEN)
    update(index, root)
    assert set(indexed(index)) == {red, green}
    assert counts(update(index, root / LATIN_1)) == (0, 0, 1, 0, 0)
    (result,) = search(index, [green])
    assert [neighbour.path for neighbour in result.neighbours] == [red]
    red.unlink()
    assert counts(update(index, root, prune=True)) == (0, 0, 1, 1, 0)


def test_a_hidden_root_that_is_taken_in_stays_in_the_index(
    photos: Path, index: Path, tmp_path: Path
) -> None:
    hidden = save(tmp_path / ".hidden" / "blue.bmp", BLUE)
    update(index, tmp_path / ".hidden")
    report = update(index, tmp_path)
    assert (counts(report), report.losses) == ((0, 0, 3, 0, 0), ())
    assert hidden in indexed(index)


def test_a_moved_root_may_have_left_a_link_behind(photos: Path, index: Path) -> None:
    before = rows_of(index)
    photos.rename(photos.with_name("moved"))
    photos.symlink_to("moved")
    update(index, moved_roots=(f"{photos}={photos.with_name('moved')}",))
    assert [row.id for row in rows_of(index).values()] == [row.id for row in before.values()]
    assert {path.parts[len(photos.parts) - 1] for path in indexed(index)} == {"moved"}
