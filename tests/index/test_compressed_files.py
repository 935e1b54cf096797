"""An `ann/` that is not as it was written is never used, said aloud, and made anew."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from alexnet_deploy.index.compressed_files import read_compressed
from alexnet_deploy.index.compression import row_type
from alexnet_deploy.index.storage import open_storage
from tests.support.compressed_index import assert_same, compress, ranker_of, record_of
from tests.support.made_index import add, clustered, make_index, run_on

DIMENSION, NUM_AXES = 24, 15
RECORD, AXES, ROWS = "compressed.json", "00000.axes", "00000.rows"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("good") / "index"
    make_index(directory, DIMENSION)
    with run_on(directory) as index:
        add(index, clustered(200, DIMENSION))
        compress(index)
        assert record_of(index).num_axes == NUM_AXES
    return directory


def state(**fields: object) -> Callable[[Path], None]:
    """Return what changes the record."""

    def change(folder: Path) -> None:
        path = folder / RECORD
        path.write_text(json.dumps(json.loads(path.read_bytes()) | fields), "utf-8")

    return change


def number(at: int, value: float) -> Callable[[Path], None]:
    """Return what changes a number of the axes."""

    def change(folder: Path) -> None:
        numbers = np.fromfile(folder / AXES, "<f8")
        numbers[at] = value
        numbers.tofile(folder / AXES)

    return change


def row(at: int, field: str, value: float) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        rows = np.fromfile(folder / ROWS, row_type(NUM_AXES))
        rows[field][at] = value
        rows.tofile(folder / ROWS)

    return change


def cut(name: str) -> Callable[[Path], None]:
    return lambda folder: os.truncate(folder / name, (folder / name).stat().st_size - 1)


def hole(name: str, size: int, **fields: object) -> Callable[[Path], None]:
    """Return what puts a file without contents in the place of one."""

    def change(folder: Path) -> None:
        state(**fields)(folder)
        (folder / name).unlink()
        (folder / name).touch()
        os.truncate(folder / name, size)

    return change


def link(folder: Path) -> None:
    """Put a link in the place of the folder."""
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to(folder.with_name("elsewhere"))


def put(name: str, make: Callable[[Path], None]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return change


FORGERIES: dict[str, tuple[Callable[[Path], None], str]] = {
    "a link": (link, "it is a link"),
    "no JSON": (lambda folder: os.truncate(folder / RECORD, 100), "compressed.json"),
    "a huge record": (hole(RECORD, 2**40), "compressed.json"),
    "a long record": (state(recall=[0.5] * 10**5), "bytes"),
    "a record as a pipe": (put(RECORD, os.mkfifo), "regular file"),
    "a record as a link": (put(RECORD, lambda path: path.symlink_to("../manifest.json")), "link"),
    "another network": (state(identity="1" * 64), "of another index"),
    "another layer": (state(layer="fc6"), "of another index"),
    "another run": (state(run=2), "of a later state"),
    "another start": (state(started=1.0), "of a later state"),
    "a later position": (state(next_position=201), "the next position is 201"),
    "no axes": (state(num_axes=0), "num_axes is 0"),
    "many axes": (state(num_axes=4096), "num_axes is 4096"),
    "more axes": (state(num_axes=16), "bytes, expected"),
    "an infinite error": (state(error=1e300), "error is 1e+300"),
    "another fit": (state(fit=1), "missing"),
    "more rows": (state(num_rows=201), "bytes, expected"),
    "rows that are a hole": (hole(ROWS, 2**42, num_rows=2**36), "positions"),
    "axes that are a hole": (hole(AXES, 2**32), "not orthonormal"),
    "axes cut off": (cut(AXES), "bytes, expected"),
    "rows cut off": (cut(ROWS), "bytes, expected"),
    "no axes file": (lambda folder: (folder / AXES).unlink(), "missing"),
    "rows as a pipe": (put(ROWS, os.mkfifo), "regular file"),
    "rows as a folder": (put(ROWS, os.mkdir), "regular file"),
    "rows as a link": (put(ROWS, lambda path: path.symlink_to("../ledger.sqlite")), "link"),
    "an axis that is not a number": (number(DIMENSION, np.nan), "not finite, or too large"),
    "an infinite mean": (number(0, np.inf), "not finite, or too large"),
    "a longer axis": (number(DIMENSION, 1.0), "not orthonormal"),
    "a step of 0": (number(-1, 0.0), "not positive"),
    "a step below 0": (number(-1, -1.0), "not positive"),
    "a position twice": (row(5, "position", 4), "positions"),
    "a position below 0": (row(0, "position", -1), "positions"),
    "the lowest position": (row(7, "position", -(2**63)), "positions"),
    "a position too far": (row(-1, "position", 200), "positions"),
    "a length below 0": (row(3, "length", -1), "length"),
    "a length that is not a number": (row(3, "length", np.nan), "length"),
    "an infinite length": (row(3, "length", np.inf), "length"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_what_is_not_as_it_was_written_is_not_used_and_made_anew(
    name: str, good: Path, tmp_path: Path
) -> None:
    told: list[str] = []
    forge, reason = FORGERIES[name]
    directory = tmp_path / "index"
    shutil.copytree(good, directory)
    forge(directory / "ann")
    with open_storage(directory) as index:
        assert_same(index, ranker_of(index, told), clustered(5, DIMENSION, seed=1))
    (line,) = told
    assert reason in line
    assert line.endswith("until then every vector is compared")
    if name not in ("rows as a folder", "a link"):  # which are not ours to remove
        with run_on(directory) as index:
            compress(index)
            assert read_compressed(index) is not None
