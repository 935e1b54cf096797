"""What an index leaves out and gives up: patterns that are kept with its roots, folders removed."""

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alexnet_deploy.errors import NoPhotographsError, UsageError
from alexnet_deploy.index.exclusions import Patterns, moved_into, within
from alexnet_deploy.index.model import ModelRequest
from alexnet_deploy.index.roots import all_roots
from alexnet_deploy.index.storage import open_storage
from alexnet_deploy.index.update import UpdateOptions, bring_up_to_date
from tests.support.index_runner import (
    REQUEST,
    Runners,
    counts,
    indexed,
    roots_of,
    save,
    search,
    update,
)

RED, GREEN, BLUE, GREY = (200, 0, 0), (0, 200, 0), (0, 0, 200), (9, 9, 9)


@pytest.fixture
def photos(tmp_path: Path, runners: Runners) -> Path:
    """Return a folder with `red.bmp`, `raw/green.bmp` and `2019/raw/blue.bmp`, indexed."""
    for name, colour in (("red", RED), ("raw/green", GREEN), ("2019/raw/blue", BLUE)):
        save(tmp_path / "photos" / f"{name}.bmp", colour)
    update(tmp_path / "index", tmp_path / "photos")
    runners.colours.clear()
    return tmp_path / "photos"


def names_in(directory: Path) -> set[str]:
    return {path.name for path in indexed(directory)}


def kept_by(directory: Path) -> dict[str, tuple[str, ...]]:
    with open_storage(directory) as index:
        return {root.path.name: root.exclude for root in all_roots(index.ledger)}


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("raw", ["raw/a.jpg", "x/raw/y/a.jpg", "x/raw"], ["raws/a.jpg", "x/Raw/a.jpg"]),
        ("raw/", ["raw/a.jpg", "x/raw/a.jpg"], ["raws/a.jpg"]),
        ("*.png", ["a.png", "x/y/a.png"], ["a.png.jpg"]),
        ("./raw", ["raw/a.jpg", "raw"], ["x/raw/a.jpg"]),
        ("2019/raw", ["2019/raw/a.jpg"], ["x/2019/raw/a.jpg", "2019/x/raw/a.jpg", "2019"]),
        ("20??/*/a.jpg", ["2019/x/a.jpg"], ["2019/a.jpg", "2019/x/y/a.jpg"]),
        ("2019/**/raw", ["2019/raw/a.jpg", "2019/x/y/raw/a.jpg"], ["raw/a.jpg"]),
        ("2019/**", ["2019/a.jpg", "2019"], ["2020/a.jpg"]),
        ("**/**/raw", ["raw", "x/y/raw"], ["x"]),
        ("[ab].jpg", ["a.jpg"], ["c.jpg"]),
        ("caf\udce9", ["x/caf\udce9/a.jpg"], ["cafe"]),
    ],
)
def test_a_pattern_matches(pattern: str, matching: list[str], others: list[str]) -> None:
    exclusions = Patterns([pattern])
    assert [path for path in others if exclusions.match(path)] == []
    assert exclusions.unmatched == {pattern}
    assert [path for path in matching if not exclusions.match(path)] == []
    assert exclusions.unmatched == set()
    moved = Patterns([moved_into(pattern, "top/[1]")])
    assert [path for path in matching if not moved.match(f"top/[1]/{path}")] == []
    assert [path for path in matching if moved.match(path) or moved.match(f"top/1/{path}")] == []


def matches_in_plain_python(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """Return whether the first of `names`, one or more, match all of a pattern from the root."""
    if not pattern or not names:
        return not pattern
    if pattern[0] == "**":
        return matches_in_plain_python(names, pattern[1:]) or (
            matches_in_plain_python(names[1:], pattern)
        )
    return fnmatchcase(names[0], pattern[0]) and matches_in_plain_python(names[1:], pattern[1:])


_NAMES = st.text("ab*", min_size=1, max_size=4)
_GLOBS = st.text("ab*?[]!-", min_size=1, max_size=6).filter(lambda name: set(name) != {"*"})


@given(st.lists(_NAMES, min_size=1, max_size=5), st.lists(_GLOBS | st.just("**"), max_size=5))
def test_any_pattern_matches_what_it_does_name_by_name(path: list[str], parts: list[str]) -> None:
    pattern = [*parts, "a*"]  # what is nothing but ** matches everything
    is_match = Patterns(["/".join([".", *pattern])]).match("/".join(path))
    assert is_match == matches_in_plain_python(path, pattern)


def test_no_pattern_takes_for_ever() -> None:
    deep, names = "/".join(["a"] * 2000), "*a" * 120
    assert not Patterns([f"{names}b"]).match("a" * 250)
    assert not Patterns(["**/a/" * 1000 + "b"]).match(deep)


def test_a_whole_path_is_taken_for_the_root_that_it_is_in() -> None:
    assert within("/p/q/raw", Path("/p/q")) == "./raw"
    assert within("/p/raw", Path("/p/q")) is None
    assert within("/raw", Path("/")) == "./raw"
    assert within("a/raw", Path("/p/q")) == "a/raw"


def test_excluded_photographs_leave_the_index_and_stay_away(
    photos: Path, index: Path, runners: Runners
) -> None:
    report = update(index, photos, exclude=("raw", "r*.bmp"))
    assert (counts(report), report.losses) == ((0, 0, 0, 3, 0), ())
    save(photos / "grey.bmp", GREY)
    for _ in range(2):
        update(index)
        assert names_in(index) == {"grey.bmp"}
    assert runners.colours == [GREY]
    assert kept_by(index) == {"photos": ("r*.bmp", "raw")}


def test_the_patterns_that_are_given_replace_those_before(photos: Path, index: Path) -> None:
    update(index, photos, exclude=("raw",))
    update(index, exclude=("*/raw",))
    assert names_in(index) == {"red.bmp", "green.bmp"}
    assert counts(update(index, exclude=())) == (0, 1, 2, 0, 0)
    assert kept_by(index) == {"photos": ()}


def test_an_excluded_folder_is_not_even_listed(photos: Path, index: Path) -> None:
    (photos / "raw" / "loop").symlink_to(photos)
    seen: list[str] = []

    def scandir(path: object) -> Any:
        seen.append(str(path))
        return real(path)

    real = os.scandir
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "scandir", scandir)
        update(index, photos, exclude=("raw",))
    assert set(seen) - {str(index)} == {str(photos), str(photos / "2019")}


def test_a_link_is_no_way_around(photos: Path, index: Path) -> None:
    (photos / "linked").symlink_to("raw")
    assert counts(update(index, photos, exclude=("raw",)))[3] == 2
    assert names_in(index) == {"red.bmp"}


def test_a_new_index_can_leave_out_from_the_start(
    photos: Path, tmp_path: Path, runners: Runners
) -> None:
    with pytest.raises(NoPhotographsError):
        update(tmp_path / "new", photos, exclude=("*.bmp",))
    assert not (tmp_path / "new").exists()
    update(tmp_path / "new", photos, exclude=(str(photos / "2019"), "raw"))
    assert names_in(tmp_path / "new") == {"red.bmp"}
    assert runners.colours == [RED]


def test_a_pattern_that_matches_nothing_is_told_when_it_is_given(photos: Path, index: Path) -> None:
    lines: list[str] = []
    for options in (UpdateOptions(exclude=("raw", "photos/raw")), UpdateOptions()):
        bring_up_to_date(index, [photos], REQUEST, options, notify=lines.append)
    assert lines == [f"{photos}: nothing in it matches photos/raw"]


@pytest.mark.parametrize("pattern", ["", ".", "/", "**", "../raw", "raw/.."])
def test_what_is_no_pattern_is_refused(photos: Path, index: Path, pattern: str) -> None:
    with pytest.raises(UsageError, match="expected names in the folder"):
        update(index, photos, exclude=(pattern,))
    with pytest.raises(UsageError, match=f"lies in none of {photos}"):
        update(index, photos, exclude=("/elsewhere/raw",))
    assert len(names_in(index)) == 3


def test_an_excluded_folder_cannot_be_given(photos: Path, index: Path) -> None:
    update(index, photos, exclude=("raw",))
    with pytest.raises(UsageError, match=r"raw: is excluded from .*photos; give the patterns"):
        update(index, photos / "raw")
    update(index, photos / "raw", exclude=())
    assert names_in(index) == {"red.bmp", "green.bmp"}


def test_a_root_that_becomes_a_part_of_another_keeps_its_patterns(
    photos: Path, index: Path, tmp_path: Path
) -> None:
    update(index, photos, exclude=("raw",))
    index.rename(photos / "index")
    save(tmp_path / "raw" / "grey.bmp", GREY)
    update(photos / "index", tmp_path)
    assert kept_by(photos / "index") == {tmp_path.name: ("./photos/**/raw",)}
    assert names_in(photos / "index") == {"red.bmp", "grey.bmp"}


def test_a_folder_that_is_there_is_removed_and_nothing_else_is_done(
    photos: Path, index: Path, tmp_path: Path, runners: Runners
) -> None:
    save(tmp_path / "more" / "grey.bmp", GREY)
    update(index, tmp_path / "more", exclude=("x",))
    runners.num_opened = 0
    save(photos / "new.bmp", (1, 2, 3))
    assert counts(update(index, remove=(tmp_path / "more",))) == (0, 0, 0, 1, 0)
    assert (roots_of(index), kept_by(index)) == ([photos], {"photos": ()})
    assert runners.num_opened == 0
    assert counts(update(index, photos, remove=(photos,))) == (1, 3, 0, 3, 0)
    assert counts(update(index, remove=(tmp_path,)))[3] == 4
    assert (roots_of(index), names_in(index)) == ([], set())
    with pytest.raises(UsageError, match="no folder of the index is there"):
        update(index, remove=(photos,))
    assert counts(update(index, photos)) == (0, 4, 0, 0, 0), "their vectors are still there"


def test_a_removed_part_of_a_root_stays_out(photos: Path, index: Path) -> None:
    assert counts(update(index, remove=(photos / "raw",))) == (0, 0, 0, 1, 0)
    assert counts(update(index, photos)) == (0, 0, 2, 0, 0)
    assert kept_by(index) == {"photos": ("./raw",)}
    with pytest.raises(UsageError, match=f"remove=.*nowhere.: no folder of the index .*{photos}"):
        update(index, remove=(photos / "nowhere",))
    with pytest.raises(UsageError, match="does not exist yet, so it has no folders"):
        update(index.with_name("new"), photos, remove=(photos,))


def test_an_older_ledger_is_searched_as_it_is_and_changed_when_it_is_written_to(
    photos: Path, index: Path
) -> None:
    ledger = index / "ledger.sqlite"
    with closing(sqlite3.connect(ledger)) as connection:
        connection.executescript(
            "DROP TABLE imported; DROP TABLE hashes; DROP TABLE before_loss; "
            "DROP TABLE left_out; DROP TABLE exclusions; "
            "PRAGMA user_version = 2; VACUUM"
        )
    before = ledger.read_bytes()
    (result,) = search(index, [photos / "red.bmp"], ModelRequest())
    assert len(result.neighbours) == 2
    assert ledger.read_bytes() == before
    assert counts(update(index, photos, exclude=("raw",))) == (0, 0, 1, 2, 0)
    assert kept_by(index) == {"photos": ("raw",)}
