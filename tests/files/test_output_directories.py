"""Directories appear whole or not at all, and take the place of nothing that is anybody's.

That those of killed processes are removed is in `test_output_files`.
"""

import stat
from pathlib import Path

import pytest

from alexnet_deploy.errors import OutputError, UsageError
from alexnet_deploy.files.output_files import atomic_directory


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_directory_appears_when_it_is_whole_in_place_of_nothing_or_an_empty_one(
    tmp_path: Path,
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "behind")
    for name in ("new", "empty", "link"):
        with atomic_directory(tmp_path / name) as folder:
            (folder / "inner").mkdir()
            (folder / "inner" / "f").write_bytes(b"whole")
            assert not (tmp_path / name / "inner").exists()
        assert (tmp_path / name / "inner" / "f").read_bytes() == b"whole"
    assert names(tmp_path) == ["behind", "empty", "link", "new"]
    usual = tmp_path / "usual"
    usual.mkdir()
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == stat.S_IMODE(usual.stat().st_mode)


@pytest.mark.parametrize("content", ["a file", "a folder"])
def test_what_is_at_the_place_of_a_directory_stays(tmp_path: Path, content: str) -> None:
    """Also where it comes while the directory is being filled."""

    def put(path: Path) -> None:
        if content == "a file":
            path.write_text("foreign")
        else:
            path.mkdir()
            (path / "foreign").touch()

    put(tmp_path / "there")
    with (
        pytest.raises(UsageError, match=r"there: is there already, expected a new or an empty"),
        atomic_directory(tmp_path / "there"),
    ):
        pytest.fail("it is opened")
    with (
        pytest.raises(OutputError, match=r"came: cannot be written"),
        atomic_directory(tmp_path / "came"),
    ):
        put(tmp_path / "came")
    assert names(tmp_path) == ["came", "there"]
    assert (tmp_path / "there").is_file() or names(tmp_path / "there") == ["foreign"]


@pytest.mark.parametrize("kind", ["current", "mounted"])
def test_a_directory_that_cannot_be_replaced_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    if kind == "current":
        monkeypatch.chdir(folder)
    else:
        monkeypatch.setattr("os.path.ismount", lambda path: path == folder)
    with (
        pytest.raises(UsageError, match=r"mount point or the current folder.*a new folder in it"),
        atomic_directory(Path() if kind == "current" else folder),
    ):
        pytest.fail("it is opened")
    assert names(tmp_path) == ["d"]
    assert names(folder) == []


def test_a_new_directory_that_another_process_takes_for_a_leftover_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = Path.mkdir
    made = []

    def make_and_lose_the_first(path: Path) -> None:
        make(path)
        made.append(path)
        if len(made) == 1:
            path.rmdir()

    monkeypatch.setattr(Path, "mkdir", make_and_lose_the_first)
    with atomic_directory(tmp_path / "d") as folder:
        assert [folder] == made[1:]
    assert names(tmp_path) == ["d"]


def test_an_error_leaves_no_directory(tmp_path: Path) -> None:
    def fail() -> None:
        with atomic_directory(tmp_path / "d") as folder:
            (folder / "f").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    with (
        pytest.raises(OutputError, match="create its folder first"),
        atomic_directory(tmp_path / "nowhere" / "d"),
    ):
        pytest.fail("it is opened")
    assert names(tmp_path) == []
