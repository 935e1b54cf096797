"""A search of some of the photographs, against a model in plain Python that filters and ranks."""

import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from alexnet_deploy.choices import METRICS, Metric
from alexnet_deploy.errors import UsageError
from alexnet_deploy.index.filters import Filters, Selector
from alexnet_deploy.index.session import Index
from alexnet_deploy.index.storage import open_storage
from tests.support.index_runner import (
    REQUEST,
    Colour,
    Runners,
    photograph,
    rows_of,
    save,
    search,
    update,
    vector_of,
)

RED, GREEN = (200, 0, 0), (0, 200, 0)
COLOURS = (RED, GREEN, (0, 0, 200), (200, 60, 60))
MAY = datetime(2024, 5, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
FOLDERS = ("one", "one/raw", "one/raw/2019", "two", "two/raw.png", "two/Raw")
"""Two roots, `one` and `two`, and folders in them."""
GLOBS: dict[str, Callable[[Sequence[str]], bool]] = {
    "*.png": lambda names: any(name.endswith(".png") for name in names),
    "raw": lambda names: "raw" in names,
    "raw/[12]": lambda names: names[0] == "raw" and names[1] in {"1", "2"},
    "raw/**/b.*": lambda names: names[0] == "raw" and names[-1] == "b.png",
    "./?.bmp": lambda names: names == ["a.bmp"],
    "**/2/*": lambda names: "2" in names[:-1],
}
"""What each pattern matches, given the names from the root."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Photograph:
    """A row of the model; its file may be gone, and the index then knows no time of it."""

    id: int
    path: Path
    vector: NDArray[np.float64]
    modified: datetime
    is_gone: bool


def save_dated(path: Path, content: Colour | bytes, moment: datetime) -> Path:
    """Write a photograph that was last modified then."""
    save(path, content)
    moment_ns = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000
    os.utime(path, ns=(moment_ns, moment_ns))
    return path


def forget_times(directory: Path, *paths: bytes) -> None:
    """Let the ledger hold no time of these, as of files that were indexed right after a change."""
    with closing(sqlite3.connect(directory / "ledger.sqlite")) as connection, connection:
        connection.executemany(
            "UPDATE photographs SET mtime_ns = NULL WHERE path = ?", [(path,) for path in paths]
        )


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Index, list[Photograph]]]:
    """Open an index of photographs in FOLDERS, most of them copies of others."""
    top, generator = tmp_path_factory.mktemp("many"), np.random.default_rng(0)
    colours: dict[Path, Colour] = {}
    for folder in FOLDERS:
        for name in ("a.bmp", "0/a.bmp", "1/b.png", "2/c.png"):
            path = top / folder / name
            colours[path] = COLOURS[int(generator.integers(len(COLOURS)))]
            content = photograph(colours[path], edition=int(generator.integers(2)))
            save_dated(path, content, MAY + int(generator.integers(4)) * 24 * HOUR)
    (top / "link").symlink_to("one/raw")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("alexnet_deploy.index.model.open_runner_of", Runners().open)
        update(top / "index", top / "one", top / "two")
    forget_times(top / "index", b"a.bmp", b"raw/1/b.png", b"Raw/2/c.png")
    gone = top / "two" / "a.bmp"
    photographs = [
        Photograph(
            id=row.id,
            path=path,
            vector=vector_of(colours[path]).astype(np.float64),
            modified=datetime.fromtimestamp(path.stat().st_mtime, UTC),
            is_gone=path == gone,
        )
        for path, row in rows_of(top / "index").items()
    ]
    gone.unlink()
    with Index(top / "index", REQUEST) as index:
        yield index, photographs


def modelled(
    photographs: Sequence[Photograph],
    top: Path,
    within: Sequence[str],
    globs: Sequence[str],
    since: datetime | None,
) -> list[Photograph]:
    """Return those that pass, one filter after the other."""
    folders = {Path(os.path.realpath(top / folder)) for folder in within}
    return [
        one
        for one in photographs
        if not folders or folders & {*one.path.parents}
        if not globs or any(GLOBS[glob]([*one.path.relative_to(top).parts[1:]]) for glob in globs)
        if since is None or (not one.is_gone and one.modified >= since)
    ]


def farness(one: Photograph, query: NDArray[np.float64], metric: Metric) -> float:
    if metric == "l2":
        return float(np.linalg.norm(one.vector - query))
    norms = np.linalg.norm(one.vector) * np.linalg.norm(query)
    return float(-(one.vector * query).sum() / norms)


@given(data=st.data())
def test_a_search_ranks_what_passes_all_filters(
    many: tuple[Index, list[Photograph]], data: st.DataObject
) -> None:
    index, photographs = many
    top = index.directory.parent
    within = data.draw(st.lists(st.sampled_from((*FOLDERS, ".", "link")), max_size=3))
    globs = data.draw(st.lists(st.sampled_from(list(GLOBS)), max_size=3))
    hours = data.draw(st.none() | st.integers(-12, 90))
    since = None if hours is None else MAY + hours * HOUR
    metric, k = data.draw(st.sampled_from(METRICS)), data.draw(st.integers(1, 30))
    vector = vector_of(data.draw(st.sampled_from((*COLOURS, (7, 80, 190)))))
    (result,) = index.search(
        vector,
        k,
        metric=metric,
        within=[top / folder for folder in within],
        glob=globs,
        since=None if since is None else since.isoformat(),
    )
    query = vector.astype(np.float64)
    left = modelled(photographs, top, within, globs, since)
    left.sort(key=lambda one: (farness(one, query, metric), one.id))
    assert [one.path for one in result.neighbours] == [one.path for one in left[:k]]


@pytest.fixture
def photos(tmp_path: Path, runners: Runners) -> Path:
    """Return a folder with the roots `one` and `two` of the index in it, all copies but one."""
    for day, path in enumerate(("one/red", "one/raw/red", "two/red", "two/raw/green")):
        colour = GREEN if path.endswith("green") else RED
        save_dated(tmp_path / f"{path}.bmp", colour, MAY + day * 24 * HOUR)
    save_dated(tmp_path / "one" / "raw" / "bad.bmp", b"bad", MAY)
    update(tmp_path / "index", tmp_path / "one", tmp_path / "two")
    return tmp_path


def found(photos: Path, query: Any = None, **options: Any) -> list[str]:
    given = photograph(RED) if query is None else query
    (result,) = search(photos / "index", given, **options)
    assert result.error is None
    return [str(one.path.relative_to(photos)) for one in result.neighbours]


def test_of_one_vector_only_those_photographs_are_found_that_pass(photos: Path) -> None:
    assert found(photos, k=1, within=photos / "two") == ["two/red.bmp"]
    assert found(photos, glob="raw") == ["one/raw/red.bmp", "two/raw/green.bmp"]
    assert found(photos, k=1, since=date(2024, 5, 3)) == ["two/red.bmp"]
    assert found(photos, photos / "one" / "red.bmp", within=photos / "one") == ["one/raw/red.bmp"]
    assert found(photos, photos / "one" / "red.bmp", k=1, within=photos / "two") == ["two/red.bmp"]


@pytest.mark.parametrize(
    "folder", ["one/raw", "one/raw/", "./two/../one/raw", "link", "linked/raw", "linked/../one/raw"]
)
def test_a_folder_is_found_by_whatever_name(
    photos: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    (photos / "link").symlink_to("one/raw")
    (photos / "linked").symlink_to("one")
    monkeypatch.chdir(photos)
    assert found(photos, within=folder) == ["one/raw/red.bmp"]
    assert found(photos, within=str(photos / folder)) == ["one/raw/red.bmp"]


def test_what_is_indexed_through_a_link_is_in_the_folder_of_the_link(
    photos: Path, tmp_path: Path
) -> None:
    save(tmp_path / "elsewhere" / "sub" / "grey.bmp", (9, 9, 9))
    (photos / "one" / "away").symlink_to(tmp_path / "elsewhere")
    update(photos / "index", photos / "one")
    (photos / "linked").symlink_to("one")
    for folder in ("one/away", "one/away/sub", "linked/away", "linked/away/sub"):
        assert found(photos, within=photos / folder) == ["one/away/sub/grey.bmp"]
    assert found(photos, within=photos / "one" / "away" / ".." / "two") == (
        found(photos, within=photos / "two")
    )


def test_a_folder_that_is_gone_from_the_disk_is_still_one_of_the_index(photos: Path) -> None:
    shutil.rmtree(photos / "one")
    assert found(photos, within=photos / "one" / "raw") == ["one/raw/red.bmp"]
    assert found(photos, within=photos / "one") == ["one/red.bmp", "one/raw/red.bmp"]


def test_a_folder_without_photographs_is_no_mistake(photos: Path) -> None:
    (photos / "one" / "new").mkdir()
    assert found(photos, within=photos / "one" / "new") == []


@pytest.mark.parametrize("folder", ["three", "one/rwa", "one/red.bmp", "index", "on"])
def test_what_is_no_folder_of_the_index_is_refused_at_the_call(photos: Path, folder: str) -> None:
    with pytest.raises(
        UsageError, match=f"within=.*{folder}.: no folder of .* has {photos}/one, {photos}/two"
    ):
        search(photos / "index", [], within=[photos / "two", photos / folder])


def test_a_pattern_is_one_for_what_an_index_leaves_out(photos: Path) -> None:
    assert found(photos, glob=str(photos / "one" / "**")) == ["one/red.bmp", "one/raw/red.bmp"]
    with pytest.raises(UsageError, match=r"glob=.\.\./x.: expected names in the folder"):
        search(photos / "index", [], glob="../x")
    with pytest.raises(UsageError, match=f"glob=./elsewhere.: lies in none of {photos}/one, "):
        search(photos / "index", [], glob=["*.png", "/elsewhere"])


def since_ns(since: Any) -> int | None:
    return Filters.of((), (), since).since_ns


def test_a_time_is_local_unless_it_says_its_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "EAST-5")  # five hours before UTC
    time.tzset()
    try:
        for since in (
            *("2024-05-03", date(2024, 5, 3), "20240503", "2024-W18-5"),
            *("2024-05-03T00:00", datetime(2024, 5, 3), "2024-05-03 00:00:00.000000"),
            *("2024-05-02T19:00Z", datetime(2024, 5, 2, 19, tzinfo=UTC)),
            *("2024-05-02T14:00-05:00", datetime(2024, 5, 3, 1, tzinfo=timezone(6 * HOUR))),
        ):
            assert since_ns(since) == 1_714_676_400 * 10**9, since
        assert since_ns("2024-05-03T00:00:00.000001") == 1_714_676_400 * 10**9 + 1000
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_file_of_that_very_microsecond_passes(photos: Path) -> None:
    assert found(photos, since=MAY + 72 * HOUR) == ["two/raw/green.bmp"]
    assert found(photos, since=MAY + 72 * HOUR + timedelta(microseconds=1)) == []


def test_no_time_of_the_calendar_is_too_far(photos: Path) -> None:
    assert len(found(photos, since="0001-01-01T12:00Z")) == 4
    assert len(found(photos, since="9999-12-31T12:00Z")) == 0


def test_what_is_no_time_is_refused_at_the_call(photos: Path) -> None:
    message = r"since is .*, expected a date or a time such as 2024-05-01"
    with pytest.raises(UsageError, match=message):
        search(photos / "index", [], since="yesterday")
    for since in ("", "2024-13-01", "2024-02-30", 5, b"2024", "0001-01-01T00:00+05:00"):
        with pytest.raises(UsageError, match=message):
            since_ns(since)


def test_a_time_that_the_index_does_not_have_is_the_files_own(photos: Path) -> None:
    forget_times(photos / "index", b"red.bmp")
    save_dated(photos / "one" / "red.bmp", RED, MAY + 216 * HOUR)
    (photos / "two" / "red.bmp").unlink()
    assert found(photos, since=MAY + 24 * HOUR) == [
        *("one/red.bmp", "one/raw/red.bmp", "two/raw/green.bmp")
    ]
    assert len(found(photos)) == 4


def test_a_person_is_told_once_that_nothing_is_left(photos: Path) -> None:
    lines: list[str] = []
    results = search(photos / "index", [photograph(RED)] * 40, glob="*.png", notify=lines.append)
    assert lines == ["no indexed photograph passes the filters, so that nothing will be found"]
    assert [result.neighbours for result in results] == [()] * 40
    assert len(lines) == 1


def test_an_open_index_filters_what_is_committed_meanwhile(photos: Path) -> None:
    with Index(photos / "index", REQUEST) as index:
        for number in range(2):
            (result,) = index.search(vector_of(GREEN), 1, glob="*.png")
            assert [one.path.name for one in result.neighbours] == ["new.png"] * number
            save(photos / "two" / "new.png", RED)
            update(photos / "index", photos / "two")


def test_a_selection_is_kept_until_the_ledger_or_the_filters_change(photos: Path) -> None:
    raw, png = Filters.of((), "raw", None), Filters.of((), "*.png", None)
    with open_storage(photos / "index") as storage:
        selector = Selector(storage.ledger)
        first = selector.select(raw)
        assert selector.select(Filters.of([], ["raw"], None)) is first
        assert selector.select(png) is not first
        second = selector.select(raw)
        (photos / "one" / "red.bmp").unlink()
        update(photos / "index", photos / "one", prune=True)
        assert selector.select(raw) is not second
        assert selector.select(Filters.of((), (), None)) is None
