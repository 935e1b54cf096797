"""An index directory on a full disk, closed, locked, or with other things in it."""

import errno
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from alexnet_deploy.errors import (
    IncompatibleFileError,
    IndexLockedError,
    OutputError,
    UsageError,
)
from alexnet_deploy.index import ledger
from alexnet_deploy.index.integrity import problems
from alexnet_deploy.index.storage import open_storage, open_storage_to_write
from tests.support.index_runner import Runners, counts, indexed, save, save_colours, search, update

pytestmark = pytest.mark.usefixtures("runners")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder of ten photographs."""
    save_colours(tmp_path / "photos", 10)
    return tmp_path / "photos"


@pytest.fixture
def index(photos: Path) -> Path:
    """Return an index of `photos`."""
    update(photos.with_name("index"), photos)
    return photos.with_name("index")


def check(directory: Path) -> list[str]:
    with open_storage(directory) as index:
        return list(problems(index))


def num_found(directory: Path, query: Path) -> int:
    (result,) = search(directory, [query])
    return len(result.neighbours)


def test_a_full_disk_in_the_middle_costs_the_batch_at_hand(
    photos: Path, runners: Runners, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, num_left, real = photos.with_name("index"), 100, os.pwrite

    def write_some(descriptor: int, data: memoryview, offset: int) -> int:
        nonlocal num_left
        if not os.readlink(f"/proc/self/fd/{descriptor}").endswith(".f16"):
            return real(descriptor, data, offset)
        if not num_left:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = real(descriptor, data[: min(len(data), num_left)], offset)
        num_left -= written
        return written

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", write_some)
        with pytest.raises(OutputError, match=r"00000.f16: cannot be written.*free some space"):
            update(index, photos)
    assert (len(indexed(index)), check(index)) == (6, [])  # two batches of three
    assert num_found(index, photos / "00.bmp") == 5
    runners.colours.clear()
    assert counts(update(index, photos)) == (4, 0, 6, 0, 0)
    assert (len(indexed(index)), len(runners.colours), check(index)) == (10, 4, [])


@contextmanager
def files_up_to(num_bytes: int) -> Iterator[None]:
    """Let the system refuse to make any file larger."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_wherever_the_disk_ends_the_run_says_so_and_the_next_goes_on(tmp_path: Path) -> None:
    for number in range(40):
        save(tmp_path / "photos" / f"{number} {'long name ' * 20}.bmp", (number + 1, 0, 0))
    index, num_refused = tmp_path / "index", 0
    for limit in range(0, 200_000, 4096):
        try:
            with files_up_to(limit):
                update(index, tmp_path / "photos")
            break
        except OutputError:
            num_refused += 1
        if (index / "manifest.json").exists():
            assert check(index) == []
    assert num_refused > 10
    assert (len(indexed(index)), check(index)) == (40, [])


@pytest.mark.parametrize("move", ["index", "index/new"], ids=["file", "below a file"])
def test_an_index_cannot_be_where_a_file_is(photos: Path, tmp_path: Path, move: str) -> None:
    (tmp_path / "index").write_bytes(b"a file")
    with pytest.raises((UsageError, OutputError), match=r"is a file"):
        update(tmp_path / move, photos)
    with pytest.raises(UsageError, match=r"is a file|does not exist"):
        list(search(tmp_path / move, [photos / "00.bmp"]))


def test_the_folder_of_a_new_index_must_exist(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"nowhere/index: .*create its folder first"):
        update(tmp_path / "nowhere" / "index", photos)
    with pytest.raises(UsageError, match=r"nowhere: does not exist; make it with"):
        list(search(tmp_path / "nowhere", [photos / "00.bmp"]))


# Root writes everywhere, so this becomes nobody first, in a process of its own. It imports before
# that, because the interpreter's own files may be closed to nobody.
AS_ORDINARY_USER = """
import mmap, os, sys
from pathlib import Path
from tests.support import index_runner
import alexnet_deploy.index.exact_search, alexnet_deploy.index.model as directory
from alexnet_deploy.errors import AlexNetDeployError
from tests.support.index_runner import search
directory.open_runner_of = index_runner.Runners().open
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
place = Path(sys.argv[1])
try:
    (result,) = search(place / "index", [place / "photos" / "00.bmp"])
    print(len(result.neighbours), "neighbours")
except AlexNetDeployError as error:
    print("search", error.exit_code, error)
try:
    index_runner.update(place / "index", place / "photos")
except AlexNetDeployError as error:
    print("index", error.exit_code, error)
"""


@contextmanager
def place_for_all() -> Iterator[Path]:
    """Yield a folder with an index that others may read; pytest closes its own to others."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        save_colours(place / "photos", 4)
        update(place / "index", place / "photos")
        yield place
        (place / "index").chmod(0o755)  # so that it can be removed


def lines_as_ordinary_user(place: Path) -> list[str]:
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", AS_ORDINARY_USER, str(place)],
        capture_output=True,
        text=True,
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
        check=False,
    )
    assert done.stderr == ""
    return [line.replace(str(place), "PLACE") for line in done.stdout.splitlines()]


def test_an_index_that_may_only_be_read_is_searched_and_not_written() -> None:
    with place_for_all() as place:
        for path in (place / "index").rglob("*"):
            path.chmod(0o555 if path.is_dir() else 0o444)
        (place / "index").chmod(0o555)
        found, refused = lines_as_ordinary_user(place)
    assert found == "3 neighbours"
    assert refused.startswith("index 1 PLACE/index/lock: cannot be written (Permission denied); ")


def test_an_index_that_may_not_be_looked_into_is_an_error_that_says_so() -> None:
    with place_for_all() as place:
        (place / "index").chmod(0)
        searched, refused = lines_as_ordinary_user(place)
    assert searched.startswith("search 5 PLACE/index/manifest.json: cannot be read (Permission")
    assert refused.startswith("index ")
    assert "Permission denied" in refused


def test_a_second_writer_is_told_who_the_first_is_and_searching_goes_on(
    photos: Path, index: Path
) -> None:
    holder = rf"process {os.getpid()} on .*, since \d{{4}}-.*, is writing to it; wait until"
    with open_storage_to_write(index):
        with pytest.raises(IndexLockedError, match=holder):
            update(index, photos)
        assert num_found(index, photos / "00.bmp") == 9
        (index / "lock").write_bytes(b"")
        with pytest.raises(IndexLockedError, match="another process is writing to it"):
            update(index, photos)
    assert counts(update(index, photos)) == (0, 0, 10, 0, 0)


def test_a_directory_of_other_things_does_not_become_an_index(photos: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    save(other / "thesis.pdf", b"%PDF")
    for directory in (other, photos):
        with pytest.raises(UsageError, match="is not an index, contains other files"):
            update(directory, photos)
        with pytest.raises(IncompatibleFileError, match=r"no manifest.json, so it is not an index"):
            list(search(directory, [photos / "00.bmp"]))
    assert os.listdir(other) == ["thesis.pdf"]


@pytest.mark.parametrize("num_left", range(4))
def test_creation_goes_on_from_what_a_killed_one_has_left(
    photos: Path, tmp_path: Path, num_left: int
) -> None:
    whole, index = tmp_path / "whole", tmp_path / "index"
    empty = tmp_path / "empty" / "x.bmp"
    save(empty, b"bad")
    update(whole, empty.parent)  # a ledger with a failure in it
    index.mkdir()
    (index / ".ledger.sqlite.part").write_bytes(b"half a ledger")
    (index / ".ledger.sqlite.part-journal").write_bytes(b"half a journal")
    (index / ".alexnet-deploy-0123.part").write_bytes(b"half a manifest")
    if num_left > 0:
        (index / "lock").write_bytes(b'{"pid": 1')
    if num_left > 1:
        (index / "vectors").mkdir()
    if num_left > 2:
        ledger.Ledger.create(index)
    assert counts(update(index, photos)) == (10, 0, 0, 0, 0)
    assert check(index) == []
