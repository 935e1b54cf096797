"""Files appear whole or not at all, through links too, and pipes and devices stay what they are."""

import errno
import io
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from alexnet_deploy.errors import OutputError
from alexnet_deploy.files.output_files import atomic_write, write_together


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write(path: Path, content: bytes = b"new") -> None:
    with atomic_write(path) as file:
        file.write(content)


def test_a_file_appears_when_it_is_whole_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "f"
    with atomic_write(path) as file:
        file.write(b"....")
        file.seek(0)
        file.write(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new."
    assert names(tmp_path) == ["f"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "elsewhere")])
def test_an_error_in_the_body_passes_through_and_leaves_the_old_file(
    tmp_path: Path, error: BaseException
) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")

    def write_some_and_fail() -> None:
        with atomic_write(path) as file:
            file.write(b"n" * 10)
            raise error

    with pytest.raises(type(error)) as caught:
        write_some_and_fail()
    assert caught.value is error
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["f"]


def test_a_new_file_has_the_mode_of_any_other_and_a_replaced_one_keeps_its_own(
    tmp_path: Path,
) -> None:
    write(tmp_path / "new")
    with (tmp_path / "other").open("wb"):
        assert (tmp_path / "new").stat().st_mode == (tmp_path / "other").stat().st_mode
    (tmp_path / "new").chmod(0o600)
    write(tmp_path / "new")
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["\u5b57" * 84 + ".p", "x" * 255])
def test_the_longest_name_that_a_file_may_have_can_be_written(tmp_path: Path, name: str) -> None:
    assert len(os.fsencode(name)) > 250
    write(tmp_path / name)
    assert names(tmp_path) == [name]


def test_a_link_stays_and_what_it_leads_to_is_written(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    (there / "old").write_bytes(b"old")
    for name in ("old", "not-yet"):
        link = tmp_path / f"to-{name}"
        link.symlink_to(Path("there", name))
        write(link)
        assert link.is_symlink()
        assert (there / name).read_bytes() == b"new"
    assert names(there) == ["not-yet", "old"]


def test_a_pipe_is_written_into_and_cannot_be_sought(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    with atomic_write(pipe) as file:
        assert not file.seekable()
        with pytest.raises(io.UnsupportedOperation):
            file.seek(0)
        file.write(b"new")
    reader.join(10)
    assert read == [b"new"]
    assert pipe.is_fifo()
    assert names(tmp_path) == ["pipe"]


def test_a_reader_that_goes_away_is_no_error_of_the_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)

    def write_to_nobody() -> None:
        with atomic_write(pipe) as file:
            os.close(reader)
            file.write(b"new")

    with pytest.raises(BrokenPipeError):
        write_to_nobody()


def test_a_device_is_written_into_and_stays(tmp_path: Path) -> None:
    link = tmp_path / "null"
    link.symlink_to(os.devnull)
    for path in (Path(os.devnull), link):
        write(path)
    assert link.is_symlink()
    assert Path(os.devnull).is_char_device()


TO_STDOUT = """
import sys
from pathlib import Path
from alexnet_deploy.files.output_files import atomic_write
with atomic_write(Path("/dev/stdout")) as file:
    file.write(b"new")
print("and more")
"""


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="this system has no /dev/stdout")
def test_standard_output_is_not_replaced_wherever_it_goes(tmp_path: Path) -> None:
    command = [sys.executable, "-c", TO_STDOUT]
    assert subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout == b"newand more\n"
    log = tmp_path / "log"
    log.write_bytes(b"old ")
    with log.open("ab") as file:
        subprocess.run(command, check=True, stdout=file)
    assert log.read_bytes() == b"old newand more\n"


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("no-such/f", "No such file or directory.*create its folder first"),
        ("file/f", "Not a directory.*is a file; choose another place"),
        ("folder", "Is a directory.*name a file in it"),
        ("x" * 256, "File name too long.*shorter name"),
        ("circle", "symbolic links form a loop"),
    ],
)
def test_a_place_that_cannot_be_is_refused_at_once_with_its_remedy(
    tmp_path: Path, place: str, message: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "circle").symlink_to("circle")
    before = names(tmp_path)
    with pytest.raises(OutputError, match=message) as caught, atomic_write(tmp_path / place):
        pytest.fail("the body was entered")
    assert str(caught.value).startswith(f"{tmp_path / place}: cannot be written (")
    assert names(tmp_path) == before


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EACCES, "write permission"),  # as root the tests have every right
        (errno.EROFS, "another place"),
        (errno.ENOSPC, "free some space"),
        (errno.EIO, "another place"),
    ],
)
def test_a_file_that_cannot_be_opened_names_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, remedy: str
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OutputError, match=remedy):
        write(tmp_path / "f")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("num_bytes", [3, 10**6])  # fails when flushed, and when written
def test_a_full_disk_is_an_output_error_that_names_the_file(num_bytes: int) -> None:
    with pytest.raises(
        OutputError, match=r"^/dev/full: .*free some space or choose another place$"
    ):
        write(Path("/dev/full"), bytes(num_bytes))


def test_files_that_belong_together_come_last_to_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Die at each step after the files are complete: old and new never stand side by side."""
    paths = [tmp_path / name for name in ("a", "b", "c")]
    steps = 0

    def die_at(limit: int) -> None:
        nonlocal steps
        steps = 0

        def counted(original: str) -> None:
            real = getattr(os, original)

            def call(*arguments: str) -> None:
                nonlocal steps
                steps += 1
                if steps > limit:
                    raise KeyboardInterrupt  # for the clean-up too, as after a kill
                real(*arguments)

            patch.setattr(os, original, call)

        counted("replace")
        counted("unlink")

    for limit in range(6):
        for path in paths:
            path.write_bytes(b"old")
        with monkeypatch.context() as patch:
            die_at(limit)
            try:
                with write_together(paths) as files:
                    for file in files:
                        file.write(b"new")
            except KeyboardInterrupt:
                pass
        contents = [path.read_bytes() if path.exists() else b"" for path in paths]
        assert len({*contents} - {b""}) == 1, limit
        if contents[0] == b"new":
            assert contents == [b"new"] * 3
        for leftover in tmp_path.glob(".*.part"):
            leftover.unlink()
    assert contents == [b"new"] * 3


def test_an_error_before_the_end_leaves_all_old_files(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a", "b")]
    for path in paths:
        path.write_bytes(b"old")

    def write_one_and_fail() -> None:
        with write_together(paths) as files:
            files[0].write(b"new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_one_and_fail()
    assert [path.read_bytes() for path in paths] == [b"old", b"old"]
    assert names(tmp_path) == ["a", "b"]


@pytest.mark.parametrize("num_old", [0, 1, 3])
@pytest.mark.parametrize("failing", [0, 1, 2])
@pytest.mark.parametrize("has_links", [True, False])
def test_files_that_cannot_be_renamed_leave_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_old: int, failing: int, has_links: bool
) -> None:
    paths = [tmp_path / name for name in ("a", "b", "c")]
    for path in paths[:num_old]:
        path.write_bytes(b"old")
    replace = os.replace
    failed = False

    def fail_once(source: Path, target: Path) -> None:
        nonlocal failed
        if target == paths[failing] and not failed:
            failed = True
            raise OSError(errno.EIO, "Input/output error")
        replace(source, target)

    def no_links(*_: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "replace", fail_once)
    if not has_links:
        monkeypatch.setattr(os, "link", no_links)
    with pytest.raises(OutputError, match="Input/output error"), write_together(paths):
        pass
    assert names(tmp_path) == ["a", "b", "c"][:num_old]
    assert {path.read_bytes() for path in paths[:num_old]} <= {b"old"}


WRITE_UNTIL_KILLED = """
import sys, time
from pathlib import Path
from alexnet_deploy.files.output_files import atomic_directory, atomic_write
with globals()[sys.argv[2]](Path(sys.argv[1])) as made:
    if isinstance(made, Path):
        (made / "file").write_bytes(b"half")
    else:
        made.write(b"half")
        made.flush()
    print("open", flush=True)
    time.sleep(3600)
"""


@pytest.mark.parametrize("kind", ["atomic_write", "atomic_directory"])
def test_what_a_killed_process_left_is_removed_and_what_is_in_use_is_not(
    tmp_path: Path, kind: str
) -> None:
    def begin(name: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", WRITE_UNTIL_KILLED, str(tmp_path / name), kind]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        return process

    killed = begin("killed")
    killed.kill()
    killed.communicate()
    (left,) = names(tmp_path)
    (tmp_path / ".alexnet-deploy-mine.part").write_bytes(b"")
    (tmp_path / f".alexnet-deploy-{'0' * 16}.part").symlink_to(
        tmp_path / ".alexnet-deploy-mine.part"
    )
    os.mkfifo(tmp_path / f".alexnet-deploy-{'1' * 16}.part")
    foreign = sorted(set(names(tmp_path)) - {left})

    running = begin("running")  # removes it, and is writing when the next one begins
    (in_use,) = set(names(tmp_path)) - set(foreign)
    assert in_use != left
    write(tmp_path / "f")
    assert names(tmp_path) == sorted([*foreign, in_use, "f"])
    running.kill()
    running.communicate()
