"""Paths that are no file to read, in every way in which that happens."""

import errno
import os
from pathlib import Path

import pytest

from alexnet_deploy.errors import UsageError
from alexnet_deploy.files.input_files import existing_file


def test_a_file_is_let_through(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    existing_file(tmp_path / "a", "a file")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing", r"no such file; give a map$"),
        ("", r"is a folder; give a map$"),
        ("file/inside", "no such file"),
        ("x" * 300, "cannot be opened"),
        ("zero\0byte", "no such file"),
    ],
)
def test_what_is_no_file_is_refused_with_the_reason(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match=reason):
        existing_file(tmp_path / name, "a map")


def test_a_file_that_may_not_be_read_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, mode: str) -> None:  # chmod would not keep root out
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    (tmp_path / "a.safetensors").write_bytes(b"")
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(
        UsageError, match=r"cannot be opened \(Permission denied\); fix that, or give a"
    ):
        existing_file(tmp_path / "a.safetensors", "a checkpoint")
