"""What a search of folders leaves out is counted by suffix, with the extra that would read it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from alexnet_deploy.cli import cli
from alexnet_deploy.errors import DatasetError, NoPhotographsError
from alexnet_deploy.index.report import IndexReport
from alexnet_deploy.index.status import describe_index, readable_index
from alexnet_deploy.inference.failures import no_photographs
from alexnet_deploy.photographs import decoding, suffixes
from alexnet_deploy.photographs.class_folders import find_class_folders
from alexnet_deploy.photographs.finding import find_photographs
from alexnet_deploy.photographs.samples import varied_samples
from alexnet_deploy.photographs.suffixes import LeftOut, describe_left_out
from tests.support.index_runner import save, update

NAMES = (
    *("IMG_1.HEIC", "IMG_2.heic", "drawing.svg", "new.jxl", "notes.txt"),
    *("DSC_1.NEF", "DSC_1.JPG", "DSC_2.NEF", "DSC_3.dng", "DSC_3.tif", "film.mov"),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a mixed folder."""
    (tmp_path / "in").mkdir()
    for name in NAMES:
        (tmp_path / "in" / name).write_bytes(b"x")
    return tmp_path / "in"


@pytest.fixture
def _without_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suffixes, "has_module", lambda name: False)


@pytest.fixture
def _with_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suffixes, "has_module", lambda name: True)


def found(folder: Path, left_out: LeftOut) -> list[str]:
    return [path.name for path in find_photographs([folder], left_out=left_out)]


@pytest.mark.usefixtures("_without_extra")
def test_a_mixed_folder_is_told_apart(folder: Path) -> None:
    left_out = LeftOut()
    names = found(folder, left_out)
    assert names == ["DSC_1.JPG", "DSC_2.NEF", "DSC_3.dng", "DSC_3.tif"]
    assert left_out.counts == {".heic": 2, ".svg": 1, ".jxl": 1, ".nef": 1}
    assert left_out.line() == (
        "left out: 2 .heic (to read them: pip install 'alexnet-deploy[photos]'); "
        "1 .nef beside their JPEGs; 1 .jxl, 1 .svg (not read)"
    )
    assert describe_left_out({}) == ""


def test_each_suffix_of_a_format_that_is_read_is_read_or_said_to_be(tmp_path: Path) -> None:
    Image.init()
    for suffix, name in Image.registered_extensions().items():
        if name in {*decoding._FORMATS, "MPO"}:
            (tmp_path / f"a{suffix}").touch()
    left_out = LeftOut()
    names = found(tmp_path, left_out)
    assert sum(left_out.counts.values()) + len(names) == len(list(tmp_path.iterdir()))
    assert {".psd", ".sgi", ".ras"} <= left_out.counts.keys()
    # Greys in floating point, alone of these, are refused.
    assert left_out.line().endswith(" (read if named themselves); 1 .pfm (not read)")


def test_an_empty_search_names_heic_only_where_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for is_there in (False, True):
        monkeypatch.setattr(suffixes, "has_module", lambda name, is_there=is_there: is_there)
        assert (".heic" in str(no_photographs())) is is_there


@pytest.mark.usefixtures("_with_extra")
def test_with_the_extra_heic_is_found_and_a_raw_beside_it_is_the_same_photograph(
    folder: Path,
) -> None:
    (folder / "IMG_2.dng").touch()
    left_out = LeftOut()
    assert {"IMG_1.HEIC", "IMG_2.heic"} <= set(found(folder, left_out))
    assert left_out.counts == {".svg": 1, ".jxl": 1, ".nef": 1, ".dng": 1}


@pytest.mark.usefixtures("_without_extra")
def test_what_is_named_itself_is_never_left_out(folder: Path) -> None:
    left_out = LeftOut()
    named = [folder / "DSC_1.NEF", folder / "IMG_1.HEIC", folder / "DSC_1.JPG"]
    assert list(find_photographs(named, left_out=left_out)) == named
    assert left_out.line() == ""


def test_what_is_named_beside_its_folder_is_not_left_out_either(folder: Path) -> None:
    left_out: list[str] = []
    raw = folder / "DSC_1.NEF"
    assert raw in list(find_photographs([raw, folder], left_out=left_out.append))
    assert str(raw) not in left_out


@pytest.mark.usefixtures("_without_extra")
def test_classes_leave_out_the_same(folder: Path) -> None:
    left_out = LeftOut()
    assert len(find_class_folders(folder.parent, left_out=left_out)) == 4
    assert left_out.counts[".heic"] == 2


@pytest.mark.usefixtures("_without_extra")
def test_a_class_of_which_all_is_left_out_says_so(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.heic").touch()
    with pytest.raises(DatasetError, match=r"without photographs .*; left out: 1 .heic \(to read"):
        find_class_folders(tmp_path)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Return a folder with a photograph in a class, and three that are left out."""
    (tmp_path / "album" / "one").mkdir(parents=True)
    shutil.copy(varied_samples()[0], tmp_path / "album" / "one" / "a.jpg")
    for name in ("a.nef", "b.heic", "c.heic"):
        (tmp_path / "album" / "one" / name).write_bytes(b"x")
    return tmp_path / "album"


LINE = (
    "left out: 2 .heic (to read them: pip install 'alexnet-deploy[photos]'); "
    "1 .nef beside their JPEGs\n"
)
COUNTS = {".heic": 2, ".nef": 1}


@pytest.mark.usefixtures("_without_extra")
def test_every_command_says_what_it_left_out(album: Path, tmp_path: Path) -> None:
    result = run("classify", album, "--json")
    assert result.exit_code == 0, result.output
    assert (len(result.stdout.splitlines()), LINE in result.stderr) == (1, True)
    result = run("embed", album, "-o", tmp_path / "v.npy", "--json")
    assert (json.loads(result.stdout)["left_out"], LINE in result.stderr) == (COUNTS, True)
    (tmp_path / "truth.csv").write_text("path,label\none/a.jpg,accordion\n")
    result = run("evaluate", album, "--truth", tmp_path / "truth.csv", "--json")
    assert result.exit_code == 0, result.output
    assert (json.loads(result.stdout)["left_out"], LINE in result.stderr) == (COUNTS, True)
    (album / "one" / "a.jpg").unlink()
    (album / "one" / "a.nef").unlink()
    result = run("classify", album)
    assert result.exit_code == 1
    assert "no photograph found" in result.stderr
    assert "left out: 2 .heic (to read them" in result.stderr


def photos_in(folder: Path, *names: str) -> None:
    """Save photographs whose content counts, not their names."""
    for number, name in enumerate(names):
        save(folder / "saved.bmp", (10 * number, 50, len(name)))
        (folder / "saved.bmp").rename(folder / name)


def indexed(folder: Path) -> tuple[IndexReport, dict[str, Any]]:
    """Bring the index beside a folder up to date; return the report, and what `info` says."""
    directory = folder.with_name("index")
    report = update(directory, folder)
    return report, describe_index(directory, check=True)


@pytest.mark.usefixtures("_without_extra", "runners")
def test_an_index_says_it_and_so_does_its_description(tmp_path: Path) -> None:
    photos_in(tmp_path / "in", "a.jpg", "a.nef", "b.heic", "c.heic")
    report, description = indexed(tmp_path / "in")
    assert (report.num_embedded, json.loads(report.to_json())["left_out"]) == (1, COUNTS)
    assert (description["left_out"], description["problems"]) == (COUNTS, [])
    assert str(report.line()).endswith(f"; {LINE.strip()}")
    assert "  left out      2 .heic (to read them" in readable_index(description)
    (tmp_path / "in" / "c.heic").unlink()
    report, description = indexed(tmp_path / "in")
    assert report.summary.left_out.counts == description["left_out"] == {".heic": 1, ".nef": 1}


@pytest.mark.usefixtures("runners")
def test_a_row_whose_extra_is_gone_keeps_its_vector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos_in(tmp_path / "in", "a.jpg", "b.heic", "c.heic")
    monkeypatch.setattr(suffixes, "has_module", lambda name: True)
    assert indexed(tmp_path / "in")[0].num_embedded == 3
    monkeypatch.setattr(suffixes, "has_module", lambda name: False)
    report, description = indexed(tmp_path / "in")
    assert (report.num_removed, report.losses) == (0, ())
    assert (description["photographs"]["indexed"], description["left_out"]) == (3, {".heic": 2})
    (tmp_path / "in" / "b.heic").unlink()
    report = update(tmp_path / "index", tmp_path / "in", prune=True)
    assert report.num_removed == 1
    monkeypatch.setattr(suffixes, "has_module", lambda name: True)
    report, description = indexed(tmp_path / "in")
    assert (report.num_unchanged, report.num_embedded, description["left_out"]) == (2, 0, {})


@pytest.mark.usefixtures("runners")
def test_an_index_of_which_all_waits_for_an_extra_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos_in(tmp_path / "in", "b.heic", "c.heic")
    monkeypatch.setattr(suffixes, "has_module", lambda name: True)
    assert indexed(tmp_path / "in")[0].num_embedded == 2
    monkeypatch.setattr(suffixes, "has_module", lambda name: False)
    report, description = indexed(tmp_path / "in")
    assert (report.num_removed, description["photographs"]["indexed"]) == (0, 2)


@pytest.mark.usefixtures("runners", "_without_extra")
def test_what_is_excluded_or_removed_is_not_left_out(tmp_path: Path) -> None:
    for name, photograph in ((".", "a.jpg"), ("sub", "b.heic"), ("more", "c.heic")):
        photos_in(tmp_path / "in" / name, photograph)
    (tmp_path / "in" / "link").symlink_to("sub")
    update(tmp_path / "index", tmp_path / "in", exclude=("sub",))
    assert describe_index(tmp_path / "index", check=False)["left_out"] == {".heic": 1}
    update(tmp_path / "index", remove=(tmp_path / "in" / "more",))
    assert describe_index(tmp_path / "index", check=False)["left_out"] == {}


@pytest.mark.usefixtures("runners")
def test_a_raw_file_that_got_a_jpeg_is_no_loss(tmp_path: Path) -> None:
    photos_in(tmp_path / "in", "0.nef", "1.nef", "2.nef")
    assert indexed(tmp_path / "in")[0].num_embedded == 3
    photos_in(tmp_path / "in", "0.jpeg", "1.jpeg", "2.jpeg")
    report, _ = indexed(tmp_path / "in")
    assert (report.num_embedded, report.num_removed, report.losses) == (3, 3, ())


@pytest.mark.usefixtures("_without_extra", "runners")
def test_a_folder_of_which_all_is_left_out_makes_no_index(tmp_path: Path) -> None:
    photos_in(tmp_path / "in", "a.heic")
    with pytest.raises(NoPhotographsError, match=r"left out: 1 .heic \(to read them: pip install"):
        update(tmp_path / "index", tmp_path / "in")
    assert not (tmp_path / "index").exists()
