"""Size, time and hash of a file, and when its time proves nothing."""

import hashlib
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from alexnet_deploy.errors import PhotographError
from alexnet_deploy.photographs.file_stamps import is_settled, modified_ns, read_stamped

SECOND = 10**9
NOW = 1_800_000_000 * SECOND


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a file, and let it be `NOW`."""
    monkeypatch.setattr("alexnet_deploy.photographs.file_stamps.time.time_ns", lambda: NOW)
    (tmp_path / "a.jpg").write_bytes(b"some bytes")
    return tmp_path / "a.jpg"


def aged(path: Path, age_ns: int) -> int:
    os.utime(path, ns=(NOW - age_ns, NOW - age_ns))
    return NOW - age_ns


def test_a_stamp_holds_size_time_and_hash_of_the_bytes_that_come_with_it(path: Path) -> None:
    changed = aged(path, 60 * SECOND)
    data, stamp = read_stamped(path)
    assert data == b"some bytes"
    assert (stamp.size, stamp.mtime_ns) == (10, changed)
    assert stamp.sha256 == hashlib.sha256(b"some bytes").digest()


@pytest.mark.parametrize(
    ("age_ns", "proves"),
    [
        (0, False),
        (2 * SECOND, False),
        (2 * SECOND + 1, True),
        (-2 * SECOND, False),
        (-2 * SECOND - 1, True),
    ],
)
def test_a_time_proves_nothing_within_two_seconds(path: Path, age_ns: int, proves: bool) -> None:
    changed = aged(path, age_ns)
    assert is_settled(changed) is proves
    assert read_stamped(path)[1].mtime_ns == (changed if proves else None)


def test_a_file_that_was_just_written_is_not_settled(tmp_path: Path) -> None:
    path = tmp_path / "b.jpg"
    path.write_bytes(b"x")
    assert read_stamped(path)[1].mtime_ns is None
    assert is_settled(time.time_ns() - 3 * SECOND)


def test_a_time_beyond_64_bits_is_cut() -> None:
    for mtime_ns in (-5, 0, 2**63 - 1, 2**63, 2**70):
        status = cast(os.stat_result, SimpleNamespace(st_mtime_ns=mtime_ns))
        assert modified_ns(status) == min(mtime_ns, 2**63 - 1)


def test_an_empty_file_has_a_stamp_too(path: Path) -> None:
    path.write_bytes(b"")
    data, stamp = read_stamped(path)
    assert (data, stamp.size, stamp.sha256) == (b"", 0, hashlib.sha256().digest())


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("missing", "No such file"), ("folder", "is a folder"), ("pipe", "is a pipe")],
)
def test_what_cannot_be_read_has_a_reason_without_the_path(
    path: Path, kind: str, reason: str
) -> None:
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(PhotographError, match=reason) as caught:
        read_stamped(path)
    assert str(path) not in str(caught.value)


def test_a_file_larger_than_any_photograph_is_not_read(path: Path) -> None:
    with open(path, "r+b") as file:
        file.truncate(2**30 + 1)  # a hole: it takes no space
    with pytest.raises(PhotographError, match=r"has 1\.1 GB, at most .* scale it down"):
        read_stamped(path)


def test_a_change_of_one_bit_changes_the_hash_alone(path: Path) -> None:
    aged(path, 60 * SECOND)
    _, before = read_stamped(path)
    path.write_bytes(b"some bytEs")
    aged(path, 60 * SECOND)
    _, after = read_stamped(path)
    assert (before.size, before.mtime_ns) == (after.size, after.mtime_ns)
    assert before.sha256 != after.sha256
