"""A folder in the user's home is used only if nobody else can have written to it."""

import stat
from pathlib import Path

import pytest

from alexnet_deploy.errors import OutputError
from alexnet_deploy.files.private_folders import private_folder


def test_a_folder_is_made_where_the_variable_says_for_its_user_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "a" / "b"))
    for _ in range(2):
        folder = private_folder("state")
        assert folder == tmp_path / "a" / "b" / "alexnet-deploy"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("value", [None, "", "relative"])
def test_without_a_sensible_variable_it_is_in_the_home_folder(
    value: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    if value is None:
        monkeypatch.delenv("XDG_STATE_HOME")
    else:
        monkeypatch.setenv("XDG_STATE_HOME", value)
    folder = private_folder("state")
    assert folder == tmp_path / ".local" / "state" / "alexnet-deploy"


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o777])
def test_a_folder_that_others_may_use_is_refused(
    mode: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    private_folder("state").chmod(mode)
    with pytest.raises(OutputError, match="not a folder of yours alone"):
        private_folder("state")


def test_a_link_and_a_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "alexnet-deploy").symlink_to("elsewhere")
    with pytest.raises(OutputError, match="not a folder of yours alone"):
        private_folder("state")
    (tmp_path / "alexnet-deploy").unlink()
    (tmp_path / "alexnet-deploy").touch(0o600)
    with pytest.raises(OutputError, match="not a folder of yours alone"):
        private_folder("state")


def test_without_a_home_it_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(OutputError, match=r"no home folder is known .*; set XDG_STATE_HOME"):
        private_folder("state")
