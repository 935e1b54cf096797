"""`duplicates`, through the command line."""

import json
from pathlib import Path

import pytest
from PIL import Image

from alexnet_deploy.photographs.samples import varied_samples
from tests.support.command_line import done, refused, run
from tests.support.edited import encoded
from tests.support.fake_packages import error_of_import
from tests.support.index_runner import save

pytestmark = pytest.mark.usefixtures("runners")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a photograph, the same again, and grey, indexed in `alexnet-index/`."""
    monkeypatch.chdir(tmp_path)
    sample = varied_samples()[0]
    for name in ("1.jpg", "2.jpg"):
        save(Path("photos", name), sample.read_bytes())
    with Image.open(sample) as picture:
        save(Path("photos", "grey.jpg"), encoded(picture.convert("L"), quality=30))
    done("index", "photos", "--layer", "logits")
    return tmp_path / "photos"


def test_groups_are_listed_and_counted(photos: Path) -> None:
    result = done("duplicates")
    assert result.stdout == (
        f"same bytes\n  {photos}/1.jpg\n  {photos}/2.jpg\n\n"
        f"nearly the same\n  {photos}/1.jpg\n  {photos}/grey.jpg  (grey)\n"
    )
    assert result.stderr == (
        "2 photographs to be hashed, once; what is stored stays if it is stopped\n"
        "comparing the pixels of 2 photographs\n"
        "3 photographs; copies among them: 1 same bytes, 0 same pixels, 1 nearly the same\n"
    )
    assert done("duplicates", "-q").stderr == ""
    (grey,) = json.loads(done("duplicates", "--json").stdout)["nearly_same"][0]["copies"]
    assert (grey["grey"], grey["turned"], grey["mirrored"]) == (True, 0, False)


def test_sheets_are_drawn(photos: Path) -> None:
    done("duplicates", "--sheet", "d.html", "--sheet", "d.png")
    page = Path("d.html").read_text()
    assert page.count("<figure") == 4
    assert page.count("<image") == 2  # each picture is there once
    with Image.open("d.png") as sheet:
        assert sheet.format == "PNG"


def test_a_sheet_is_not_drawn_over_a_photograph_or_another_sheet(photos: Path) -> None:
    save(photos / "4.png", encoded(Image.new("RGB", (8, 8), "red"), "PNG"))
    done("index", "photos", "--layer", "logits")
    assert "4.png" in refused(2, "duplicates", "--sheet", photos / "4.png")
    twice = ("--sheet", "d.html", "--sheet", "./d.html")
    assert "--sheet d.html: is named twice" in refused(2, "duplicates", *twice)


def test_a_sheet_that_cannot_be_written_is_refused_before_the_work(photos: Path) -> None:
    told = refused(1, "duplicates", "--sheet", "nowhere/d.html")
    assert "nowhere/d.html: cannot be written" in told
    assert "to be hashed" not in told


def test_too_many_that_are_gone_are_a_failure(photos: Path) -> None:
    (photos / "grey.jpg").unlink()
    result = run("duplicates")
    assert result.exit_code == 3
    assert f"failed: {photos}/grey.jpg: is gone, or was changed" in result.stderr
    assert result.stdout.startswith("same bytes\n")
    done("duplicates", "--max-failures", "1")


def test_photographs_of_a_folder_that_is_not_there_are_counted_among_all(photos: Path) -> None:
    other = photos.with_name("other")
    save(other / "green.png", encoded(Image.new("RGB", (300, 300), "green"), "PNG"))
    done("index", "other", "--layer", "logits")
    other.rename(photos.with_name("away"))
    photos.rename(photos.with_name("away too"))
    assert "3 of 3 photographs could not be read, so there is no" in refused(3, "duplicates")
    photos.with_name("away too").rename(photos)
    assert "1 of 4 photographs could not be read" in refused(3, "duplicates")
    done("duplicates", "--max-failures", "25%")


def test_whose_folders_were_not_named_it_says_how_to_name_them(
    photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "elsewhere"))
    assert "may be read, once, with alexnet-deploy index FOLDER" in refused(2, "duplicates")


def test_an_index_without_copies_prints_nothing(photos: Path) -> None:
    for name in ("2.jpg", "grey.jpg"):
        (photos / name).unlink()
    done("index", "photos", "--layer", "logits", "--prune")
    assert done("duplicates").stdout == ""


def test_without_imagehash_it_says_what_to_install(tmp_path: Path) -> None:
    told = error_of_import(
        "photographs.perceptual_hash", tmp_path, before="sys.modules['imagehash'] = None"
    )
    assert told.startswith("MissingPackageError: finding duplicates needs the package ImageHash")
    assert "pip install 'alexnet-deploy[duplicates]'" in told
