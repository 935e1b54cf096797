"""An index in daily life, through the command line: what is left out, gone, turned, or failed."""

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from tests.support.command_line import done, refused
from tests.support.index_runner import save

RED, GREEN, BLUE = (200, 0, 0), (0, 200, 0), (0, 0, 200)


pytestmark = pytest.mark.usefixtures("runners")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three photographs in `photos/`, indexed in `alexnet-index/`, seen from the folder above."""
    monkeypatch.chdir(tmp_path)
    for name, colour in (("blue", BLUE), ("green", GREEN), ("red", RED)):
        save(Path("photos", f"{name}.bmp"), colour)
    done("index", "photos", "--layer", "logits")
    return tmp_path / "photos"


def test_patterns_are_excluded_until_others_are_given_and_folders_removed(photos: Path) -> None:
    def removed(*arguments: str) -> int:
        told = json.loads(done("index", *arguments, "--json").stdout)
        return int(told["removed"])

    assert removed("--exclude", "red*", "--exclude", "blue.bmp") == 2
    (root,) = json.loads(done("info", "alexnet-index", "--json").stdout)["roots"]
    assert root["exclude"] == ["blue.bmp", "red*"]
    assert (
        f"  root          {photos}  1  without blue.bmp, red*\n"
        in done("info", "alexnet-index").stdout
    )
    assert removed() == 0
    again = json.loads(done("index", "--exclude", "", "--json").stdout)
    assert (again["reused"], again["unchanged"]) == (2, 1)
    assert "--exclude ..: expected names" in refused(2, "index", "--exclude", "..")
    assert removed("--remove", "photos") == 3
    assert "--remove photos: no folder of the index" in refused(2, "index", "--remove", "photos")


def test_search_with_rotations_says_which_was_the_nearest(photos: Path) -> None:
    picture = Image.new("RGB", (80, 80), (9, 90, 9))
    picture.paste((250, 9, 90), (0, 0, 40, 40))
    picture.save(photos / "upright.png")
    picture.rotate(-90).save(photos / "clockwise.png")
    done("index")
    arguments = ("search", "photos/upright.png", "-k", "1", "--rotations")
    (nearest,) = json.loads(done(*arguments, "--json").stdout)["results"]
    assert (Path(nearest["path"]).name, nearest["rotation"]) == ("clockwise.png", 90)
    assert "  turned 90   " in done(*arguments).stdout


def test_what_is_gone_is_marked_and_left_out_of_the_paths(photos: Path) -> None:
    save(photos / "copy.bmp", RED)
    done("index")
    (photos / "green.bmp").unlink()
    (photos / "blue.bmp").write_bytes(b"")
    table = done("search", "photos/red.bmp").stdout.splitlines()[2:-1]
    remarks = {Path(line.split()[-1]).name: line.split()[2:-1] for line in table}
    assert remarks == {"copy.bmp": ["identical"], "green.bmp": ["gone"], "blue.bmp": ["changed"]}
    paths = done("search", "photos/red.bmp", "--paths").stdout.splitlines()
    assert {Path(path).name for path in paths} == {"copy.bmp", "blue.bmp"}
    told = json.loads(done("search", "photos/red.bmp", "--json").stdout)["results"]
    flags = {Path(one["path"]).name: (one["identical"], one["gone"]) for one in told}
    assert flags["copy.bmp"] == (True, False)
    assert flags["green.bmp"] == (False, True)
    done("search", "photos/red.bmp", "--sheet", "sheet.html")
    page = Path("sheet.html").read_text("utf-8")
    assert [page.count(f">{remark}<") for remark in ("gone", "changed", "identical")] == [1, 1, 1]


def test_several_sheets_are_all_written_and_one_is_not_named_twice(photos: Path) -> None:
    sheets = ("--sheet", "a.html", "--sheet", "b.png")
    done("search", "photos/red.bmp", *sheets)
    assert Path("a.html").read_text("utf-8").count("<svg") == 3
    assert Path("b.png").stat().st_size > 1000
    again = ("--sheet", "photos/../a.html")
    assert "a.html: is named twice" in refused(2, "search", "photos/red.bmp", *sheets, *again)


def test_info_names_every_failure(photos: Path) -> None:
    name = os.fsdecode(b"new\nline \xff.bmp")
    bad = [save(photos / each, b"") for each in (*(f"{n}.bmp" for n in range(7)), name)]
    done("index", "--max-failures", "100")
    paths = done("info", "alexnet-index", "--failures", "-0").stdout_bytes.split(b"\0")
    assert sorted(paths) == sorted([b"", *map(os.fsencode, bad)])
    lines = done("info", "alexnet-index", "--failures").stdout.splitlines()
    assert len(lines) == 8
    assert lines[0].startswith(f"{photos / '0.bmp'}: is empty (0 bytes)")
    told = list(
        map(json.loads, done("info", "alexnet-index", "--failures", "--json").stdout.splitlines())
    )
    assert {tuple(one) for one in told} == {("path", "error"), ("path", "path_base64", "error")}
    for arguments in (["-0"], ["--failures", "--check"], ["--failures", "-0", "--json"]):
        refused(2, "info", "alexnet-index", *arguments)
    assert "--failures is for an index" in refused(2, "info", "--failures")
    assert "--failures is for an index" in refused(2, "info", photos / "red.bmp", "--failures")
