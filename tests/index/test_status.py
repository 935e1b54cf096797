"""What an index says of itself, and what a check of it finds."""

import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from alexnet_deploy.errors import IncompatibleFileError, UsageError
from alexnet_deploy.index.status import describe_index, readable_index
from tests.support.index_runner import DIMENSION, LAYER, TOO_BRIGHT, Runners, save, update

RED, GREEN, BLUE = (200, 0, 0), (0, 200, 0), (0, 0, 200)
ROW_BYTES = 2 * DIMENSION


pytestmark = pytest.mark.usefixtures("runners")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder of three photographs, which `tmp_path / "index"` is the index of."""
    for name, colour in (("blue", BLUE), ("green", GREEN), ("red", RED)):
        save(tmp_path / "photos" / f"{name}.bmp", colour)
    update(tmp_path / "index", tmp_path / "photos")
    return tmp_path / "photos"


def told(directory: Path) -> dict[str, Any]:
    return describe_index(directory, check=False)


def found(directory: Path) -> list[str]:
    """Return what a check says, and see that the text for people says it, too."""
    description = describe_index(directory, check=True)
    problems: list[str] = description["problems"]
    text = readable_index(description)
    assert all(f"  problem       {line}" in text for line in problems)
    return problems


def execute(directory: Path, *statements: str) -> None:
    """Change the ledger behind the index's back."""
    connection = sqlite3.connect(directory / "ledger.sqlite")
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def segment(directory: Path) -> Path:
    (path,) = directory.glob("vectors/*.f16")
    return path


def test_it_says_what_the_vectors_are_and_how_much_there_is(
    photos: Path, index: Path, runners: Runners
) -> None:
    description = told(index)
    assert description["path"] == str(index)
    assert (description["kind"], description["format"]) == ("index", 2)
    assert (description["metric"], description["model"]) == ("cosine", None)
    assert (description["layer"], description["dimension"]) == (LAYER, DIMENSION)
    assert (description["precision"], description["decode"]) == (
        "fp32",
        {"decoder": "pillow-13+libheif-1.23", "scale": "scaled", "colour": "srgb"},
    )
    assert description["identity"] == runners.identity
    assert description["preprocessing"]["input_size"] == 67
    files = [path for path in index.rglob("*") if path.is_file()]
    assert description["size_bytes"] == sum(path.stat().st_size for path in files)
    assert description["photographs"] == {"indexed": 3, "failed": 0, "pending": 0}
    assert description["vectors"] == {"used": 3, "unused": 0}
    assert description["failures"] == []


def test_vectors_that_no_photograph_has_are_unused_until_a_prune(photos: Path, index: Path) -> None:
    save(photos / "copy.bmp", GREEN)
    save(photos / "red.bmp", (1, 2, 3))
    update(index)
    description = told(index)
    assert description["photographs"]["indexed"] == 4
    assert description["vectors"] == {"used": 3, "unused": 1}
    assert "3 of 8 numbers, float16; 1 unused; free them with: " in readable_index(description)
    update(index, prune=True)
    assert told(index)["vectors"] == {"used": 3, "unused": 0}
    assert "unused" not in readable_index(told(index))


def test_roots_come_with_their_counts_and_whether_they_are_there(
    tmp_path: Path, photos: Path, index: Path
) -> None:
    save(tmp_path / "more" / ".hidden.bmp", BLUE)
    update(index, tmp_path / "more", include_hidden=True)
    photos.rename(tmp_path / "away")
    expected: list[tuple[Any, ...]] = [
        (photos, 3, False, [], False),
        (tmp_path / "more", 1, True, [], True),
    ]
    roots = [tuple(root.values()) for root in told(index)["roots"]]
    assert roots == [(str(path), *others) for path, *others in expected]
    lines = [line for line in readable_index(told(index)).splitlines() if "  root " in line]
    assert [line.endswith("NOT THERE") for line in lines] == [True, False]


def test_the_last_five_runs_come_newest_first(photos: Path, index: Path) -> None:
    save(photos / "new.bmp", (5, 5, 5))
    for _ in range(6):
        update(index)
    runs = told(index)["runs"]
    assert len(runs) == 5
    assert [run["started"] for run in runs] == sorted(
        (run["started"] for run in runs), reverse=True
    )
    assert all(run["finished"] >= run["started"] for run in runs)
    assert [run["unchanged"] for run in runs] == [4] * 5
    assert [run["runner"] for run in runs] == [None] * 5
    assert "  4 unchanged, " in readable_index(told(index))
    save(photos / "newer.bmp", (6, 5, 5))
    update(index)
    assert (told(index)["runs"][0]["embedded"], told(index)["runs"][0]["runner"]) == (
        1,
        "fake runner",
    )


def test_an_interrupted_run_is_shown(
    photos: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    save(photos / "new.bmp", (5, 5, 5))
    monkeypatch.setattr("alexnet_deploy.index.model.open_runner_of", interrupt)
    with pytest.raises(KeyboardInterrupt):
        update(index)
    last, first = told(index)["runs"]
    assert (last["finished"], first["embedded"]) == (None, 3)
    runs = [line for line in readable_index(told(index)).splitlines() if "  run " in line]
    assert [line.endswith("  not finished") for line in runs] == [True, False]


def test_the_commonest_failures_come_first_with_an_example(photos: Path, index: Path) -> None:
    for name in ("b.bmp", "a.bmp", "c.bmp"):
        save(photos / name, b"")
    save(photos / "bright.bmp", TOO_BRIGHT)
    update(index)
    description = told(index)
    assert description["photographs"] == {"indexed": 3, "failed": 4, "pending": 0}
    assert [failure["count"] for failure in description["failures"]] == [3, 1]
    assert description["failures"][0]["example"] == str(photos / "a.bmp")
    assert "is empty (0 bytes)" in description["failures"][0]["reason"]
    text = readable_index(description)
    assert "3 indexed, 4 failed" in text
    for failure in description["failures"]:
        line = f"{failure['count']} x {failure['reason']} ({failure['example']})"
        assert f"  failed        {line}" in text


def test_a_sound_index_has_no_problems(photos: Path, index: Path) -> None:
    save(photos / "bad.jpg", b"bad")
    update(index)
    assert found(index) == []
    assert "problem" not in readable_index(told(index))
    assert "  problem       none: " in readable_index(describe_index(index, check=True))
    with open(segment(index), "ab") as file:
        file.write(b"of a batch that was never committed")
    assert found(index) == []


@pytest.mark.parametrize("bit", [0, 7])
@pytest.mark.parametrize("row", [0, 2])
def test_a_flipped_bit_is_found_and_its_photograph_named(
    photos: Path, index: Path, row: int, bit: int
) -> None:
    data = bytearray(segment(index).read_bytes())
    data[row * ROW_BYTES + 5] ^= 1 << bit
    segment(index).write_bytes(data)
    path = sorted(photos.iterdir())[row]
    assert found(index) == [f"vector {row}: was changed since it was written ({path})"]


def test_a_truncated_and_a_removed_segment_are_found(photos: Path, index: Path) -> None:
    reason = "is missing, its segment was truncated or removed"
    names = ("blue", "green", "red")
    lost = [f"vector {n}: {reason} ({photos / name}.bmp)" for n, name in enumerate(names)]
    segment(index).write_bytes(segment(index).read_bytes()[: 3 * ROW_BYTES - 1])
    assert found(index) == lost[2:]
    segment(index).unlink()
    assert found(index) == lost


@pytest.mark.parametrize(
    ("statements", "problem"),
    [
        (
            ["UPDATE photographs SET position = 1 WHERE position = 0"],
            "ledger: photograph 1 has the vector of other content",
        ),
        (
            ["PRAGMA foreign_keys = OFF", "DELETE FROM vectors WHERE position = 0"],
            "ledger: row 1 of photographs refers to a missing row of vectors",
        ),
        (
            ["UPDATE settings SET next_position = 2"],
            "ledger: vector 2 lies beyond the 2 committed",
        ),
        (
            ["UPDATE photographs SET status = 'pending', position = NULL WHERE id = 1"],
            "1 photographs without a vector; alexnet-deploy index embeds them",
        ),
    ],
    ids=["another's vector", "no vector", "beyond the end", "pending"],
)
def test_a_wrong_row_in_the_ledger_is_found(
    index: Path, statements: list[str], problem: str
) -> None:
    execute(index, *statements)
    assert found(index) == [problem]


def test_a_damaged_vector_of_no_photograph_is_said_to_be_that(photos: Path, index: Path) -> None:
    save(photos / "blue.bmp", (1, 2, 3))
    update(index)
    data = bytearray(segment(index).read_bytes())
    data[0] ^= 1
    segment(index).write_bytes(data)
    assert found(index) == [
        "vector 0: was changed since it was written (no longer any photograph's)"
    ]


def test_the_text_is_harmless_to_a_terminal(tmp_path: Path) -> None:
    evil = tmp_path / os.fsdecode(b"\x1b[31m\n\xff \xe2\x80\xae")
    save(evil / "a\nb.bmp", RED)
    save(evil / "c\x07.bmp", b"bad")
    update(evil / "index", evil)
    data = segment(evil / "index").read_bytes()
    segment(evil / "index").write_bytes(bytes(len(data)))
    description = describe_index(evil / "index", check=True)
    lines = readable_index(description).split("\n")
    assert all(line.isprintable() for line in lines)
    assert all(line.startswith("  ") for line in lines[1:])
    assert sum(r"\x1b[31m\n\xff \u202e" in line for line in lines) == 4
    assert {"path", "path_base64"} <= set(description) & set(description["roots"][0])


def test_what_is_no_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        told(tmp_path / "nowhere")
    with pytest.raises(IncompatibleFileError, match="is not an index"):
        told(tmp_path)
