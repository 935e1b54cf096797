"""The list of photographs that a run could not read."""

import json
from pathlib import Path

import pytest

from alexnet_deploy.errors import IncompatibleFileError
from training.pictures import Failure
from training.skipped import SKIPPED_NAME, SkippedPhotographs

ODD = Path("a\nb\udcff.jpg")
"""A line break and a byte that is not UTF-8."""


def listed(folder: Path) -> list[dict[str, str]]:
    return [
        json.loads(line) for line in (folder / SKIPPED_NAME).read_text("ascii").split("\n")[:-1]
    ]


def test_without_a_skipped_photograph_there_is_no_file(tmp_path: Path) -> None:
    SkippedPhotographs(tmp_path).save()
    assert list(tmp_path.iterdir()) == []


def test_each_photograph_is_listed_once_whatever_its_name(tmp_path: Path) -> None:
    skipped = SkippedPhotographs(tmp_path)
    skipped.add(
        [Failure(path=ODD, reason="first"), Failure(path=Path("2.jpg"), reason="caf\u00e9")]
    )
    skipped.save()
    skipped.add([Failure(path=ODD, reason="again")])
    skipped.save()
    odd, two = listed(tmp_path)
    assert (Path(odd["path"]), odd["reason"]) == (ODD, "first")
    assert two == {"path": "2.jpg", "reason": "caf\u00e9"}


def test_a_list_is_gone_on_with(tmp_path: Path) -> None:
    for name in ("1.jpg", "2.jpg", "1.jpg"):
        skipped = SkippedPhotographs(tmp_path)
        skipped.add([Failure(path=Path(name), reason="no JPEG")])
        skipped.save()
    assert [one["path"] for one in listed(tmp_path)] == ["1.jpg", "2.jpg"]


@pytest.mark.parametrize("content", ["no JSON\n", "[]\n", "{}\n", "\u00e9\n", "[" * 100_000])
def test_something_else_is_not_overwritten(tmp_path: Path, content: str) -> None:
    (tmp_path / SKIPPED_NAME).write_text(content, "utf-8")
    with pytest.raises(IncompatibleFileError, match=r"line 1: damaged .*move the list away"):
        SkippedPhotographs(tmp_path)
