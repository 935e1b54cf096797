"""Without folders a run reads those that its user named for this index, and no others."""

import shutil
from pathlib import Path

import pytest

from alexnet_deploy.errors import UsageError
from tests.support.index_runner import Runners, counts, indexed, save, save_colours, update

pytestmark = pytest.mark.usefixtures("runners")


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an index of `tmp_path / "photos"` and `tmp_path / "private"` that another made."""
    for name in ("photos", "private"):
        save_colours(tmp_path / name, 2)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "strangers home"))
    update(tmp_path / "index", tmp_path / "photos", tmp_path / "private")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "index"


def test_a_strangers_index_does_not_choose_what_is_read(
    foreign: Path, tmp_path: Path, runners: Runners
) -> None:
    save(tmp_path / "private" / "new.bmp", (1, 2, 3))
    before, runners.colours = indexed(foreign), []
    with pytest.raises(UsageError) as caught:
        update(foreign)
    message = str(caught.value)
    assert f"its folders are {tmp_path / 'photos'}, {tmp_path / 'private'}, and you" in message
    assert counts(update(foreign, tmp_path / "photos")) == (0, 0, 2, 0, 0)
    with pytest.raises(UsageError, match=f"its folders are {tmp_path / 'private'}, and you"):
        update(foreign)
    assert (indexed(foreign), runners.colours) == (before, [])


def test_folders_that_were_named_once_are_read_ever_after(foreign: Path, tmp_path: Path) -> None:
    update(foreign, tmp_path / "photos")
    update(foreign, tmp_path / "private")
    save(tmp_path / "private" / "new.bmp", (1, 2, 3))
    assert counts(update(foreign)) == (1, 0, 4, 0, 0)


def test_to_name_a_part_of_a_folder_is_not_to_name_all_of_it(foreign: Path, tmp_path: Path) -> None:
    (tmp_path / "private" / "shown").mkdir()
    save(tmp_path / "private" / "shown" / "new.bmp", (1, 2, 3))
    update(foreign, tmp_path / "photos", tmp_path / "private" / "shown")
    with pytest.raises(UsageError, match=f"its folders are {tmp_path / 'private'}, and you"):
        update(foreign)


def test_another_index_in_the_place_of_ones_own_is_told_apart(
    foreign: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    update(own, tmp_path / "photos")
    shutil.rmtree(own)
    foreign.rename(own)
    with pytest.raises(UsageError, match=f"its folders are {tmp_path / 'private'}, and you"):
        update(own)


def test_the_new_place_of_a_folder_that_moved_has_been_named(tmp_path: Path) -> None:
    save_colours(tmp_path / "old", 2)
    update(tmp_path / "index", tmp_path / "old")
    (tmp_path / "old").rename(tmp_path / "new")
    move = f"{tmp_path / 'old'}={tmp_path / 'new'}"
    assert counts(update(tmp_path / "index", moved_roots=(move,))) == (0, 0, 2, 0, 0)
    assert counts(update(tmp_path / "index")) == (0, 0, 2, 0, 0)


def test_many_folders_are_not_all_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [tmp_path / f"folder {number}\n" for number in range(8)]
    for folder in folders:
        save_colours(folder, 1)
    update(tmp_path / "index", *folders)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with pytest.raises(UsageError, match=r"folder 4\\n and 3 more, and you have not"):
        update(tmp_path / "index")


def test_where_nothing_can_be_remembered_folders_have_to_be_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_colours(tmp_path / "photos", 2)
    (tmp_path / "state").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    update(tmp_path / "index", tmp_path / "photos")
    with pytest.raises(UsageError, match=r"what you named is not known: .* cannot be written"):
        update(tmp_path / "index")
    assert counts(update(tmp_path / "index", tmp_path / "photos")) == (0, 0, 2, 0, 0)
