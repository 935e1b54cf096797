"""A ledger that is corrupt, or on a full disk."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from alexnet_deploy.errors import IncompatibleFileError, OutputError
from alexnet_deploy.index import ledger
from alexnet_deploy.index.integrity import problems
from alexnet_deploy.index.storage import open_storage
from tests.support.index_runner import counts, indexed, save, save_colours, search, update

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


def test_a_ledger_that_cannot_grow_costs_the_batch_at_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(40):
        save(tmp_path / "photos" / f"{number} {'long name ' * 20}.bmp", (number + 1, 0, 0))
    index, real = tmp_path / "index", ledger._connect

    def connect(path: Path, mode: str) -> Any:
        connection = real(path, mode)
        connection.execute("PRAGMA max_page_count = 18")
        return connection

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "_connect", connect)
        with pytest.raises(OutputError, match=r"ledger.sqlite: cannot be written \(disk full\)"):
            update(index, tmp_path / "photos")
    num_indexed = len(indexed(index))
    assert 0 < num_indexed < 40
    assert num_indexed % 3 == 0
    assert check(index) == []
    assert counts(update(index, tmp_path / "photos")) == (40 - num_indexed, 0, num_indexed, 0, 0)


@pytest.mark.parametrize(
    "corrupt",
    [
        lambda _: b"",
        lambda _: b"text" * 5000,
        lambda data: b"x" * 100 + data[100:],
        lambda data: data[: len(data) // 2],
        lambda data: data[:47] + b"\x09" + data[48:],  # the schema format, 1 to 4
        lambda data: data.replace(b"include_hidden", b"include_nothin"),
        lambda data: data.replace(b"CREATE TABLE settings (", b"CREATE TABLE settings \xd7"),
        None,
    ],
    ids=["empty", "text", "header", "cut short", "format", "column", "not UTF-8", "missing"],
)
def test_a_corrupt_ledger_is_refused(
    photos: Path, index: Path, corrupt: Callable[[bytes], bytes] | None
) -> None:
    path = index / "ledger.sqlite"
    data = path.read_bytes()
    path.unlink()
    if corrupt is not None:
        path.write_bytes(corrupt(data))
    for run in (lambda: update(index, photos), lambda: list(search(index, [photos / "00.bmp"]))):
        with pytest.raises(IncompatibleFileError, match=r"ledger.sqlite: (damaged|does not exist)"):
            run()


def test_garbage_in_any_page_of_the_ledger_is_an_error_or_is_harmless(
    photos: Path, index: Path, tmp_path: Path
) -> None:
    data = (index / "ledger.sqlite").read_bytes()
    num_found = 0
    for start in range(0, len(data), 4096):
        broken = Path(shutil.copytree(index, tmp_path / f"broken {start}"))
        changed = bytearray(data)
        changed[start + 100 : start + 4096] = b"\x5a" * 3996
        (broken / "ledger.sqlite").write_bytes(changed)
        with suppress(IncompatibleFileError):
            list(search(broken, [photos / "00.bmp"]))
        with suppress(IncompatibleFileError):
            update(broken, photos)
        try:
            num_found += bool(check(broken))
        except IncompatibleFileError:
            num_found += 1
    assert num_found > 5


# In a process of its own, because closing a connection that another thread uses may kill it.
CLOSE_WHILE_THREADS_READ = """
import sqlite3, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from alexnet_deploy.index.ledger import Ledger

def read(ledger):
    while True:
        ledger.one("SELECT count(*) FROM photographs")

with ThreadPoolExecutor(4) as executor:
    for _ in range(200):
        ledger = Ledger.open(Path(sys.argv[1]))
        readers = [executor.submit(read, ledger) for _ in range(4)]
        ledger.one("SELECT 1")
        ledger.close()
        assert {type(reader.exception()) for reader in readers} == {sqlite3.ProgrammingError}
"""


def test_a_ledger_is_closed_while_threads_read_from_it(index: Path) -> None:
    # After an error the decode threads end by themselves, later than the run.
    done = subprocess.run(
        [sys.executable, "-c", CLOSE_WHILE_THREADS_READ, str(index)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_signal_ends_a_statement_that_would_never_end(tmp_path: Path) -> None:
    """A forged tree, whose pages name each other again and again, is read for ages."""
    endless, is_over = "r (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r)", threading.Event()

    def interrupt() -> None:
        while not is_over.wait(0.05):
            os.kill(os.getpid(), signal.SIGINT)

    def heed(number: int, frame: object) -> None:
        if not is_over.is_set():
            is_over.set()
            raise KeyboardInterrupt

    ledger.Ledger.create(tmp_path)
    thread = threading.Thread(target=interrupt)
    before = signal.signal(signal.SIGINT, heed)
    try:
        with ledger.Ledger.open(tmp_path) as opened:
            thread.start()
            with pytest.raises(KeyboardInterrupt):
                opened.one(f"WITH RECURSIVE {endless} SELECT max(x) FROM r")
    finally:
        is_over.set()
        thread.join()
        signal.signal(signal.SIGINT, before)
