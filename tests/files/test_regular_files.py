"""Files that are opened as they should be: regular, no link, of bounded size."""

import os
from pathlib import Path

import pytest

from alexnet_deploy.errors import IncompatibleFileError
from alexnet_deploy.files import regular_files
from alexnet_deploy.files.regular_files import (
    ForeignEntryError,
    open_folder,
    open_regular,
    read_file,
)


def test_only_regular_files_of_a_sensible_size_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(FileNotFoundError):
        read_file(path, "make it again")
    path.write_bytes(b"12345")
    assert read_file(path, "make it again") == b"12345"
    monkeypatch.setattr(regular_files, "MAX_BYTES", 4)
    with pytest.raises(IncompatibleFileError, match="it has 5 bytes, more than 4"):
        read_file(path, "make it again")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(IncompatibleFileError, match=r"not a regular file.*fix that, or"):
        read_file(tmp_path / "pipe", "make it again")
    with pytest.raises(IncompatibleFileError, match="is not a regular file"):
        read_file(tmp_path, "make it again")


def test_a_link_is_followed_only_where_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "folder").symlink_to(tmp_path)
    with pytest.raises(ForeignEntryError, match="it is a link"):
        open_regular(tmp_path / "link", os.O_RDONLY)
    with open(open_regular(tmp_path / "link", os.O_RDONLY, follow_links=True), "rb") as file:
        assert file.read() == b"x"
    with pytest.raises(ForeignEntryError, match="expected a folder"):
        open_folder(tmp_path / "folder")
    with pytest.raises(IncompatibleFileError, match="it is a link"):
        read_file(tmp_path / "link", "make it again", follow_links=False)
