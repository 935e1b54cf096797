"""`prepare` stores what a plain Pillow loop would, and says what it cannot store."""

import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from alexnet_deploy.errors import DatasetError, UsageError
from alexnet_deploy.photographs.class_folders import find_class_folders
from tests.support.class_pictures import (
    BAD,
    GOOD,
    SIZE,
    save_bad,
    save_good,
    save_noise,
    square_by_hand,
)
from tests.support.prepare_runs import FORM, STORED, contents, run
from training.pictures import PictureForm
from training.prepare import prepare
from training.prepared import read_prepared


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return save_good(tmp_path / "source")


def resized_by_hand(path: Path) -> NDArray[np.uint8]:
    """Return the square picture, encoded as a JPEG and decoded."""
    data = io.BytesIO()
    square_by_hand(pixels_of(path)).save(data, "JPEG", quality=95, subsampling=0)
    return np.asarray(Image.open(data))


def pixels_of(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def test_pictures_and_statistics_are_those_of_a_plain_loop(source: Path, tmp_path: Path) -> None:
    (source / next(iter(GOOD))).with_name("drawing.svg").touch()
    report = run(source, tmp_path / "target")
    assert report.line().endswith(" 0 photographs skipped; left out: 1 .svg (not read)")
    expected = np.stack([resized_by_hand(source / name) for name in GOOD])
    stored = np.stack([np.asarray(pixels_of(tmp_path / "target" / STORED[name])) for name in GOOD])
    np.testing.assert_array_equal(stored, expected)
    assert report.num_made == report.statistics.num_photographs == len(GOOD)
    np.testing.assert_array_equal(
        report.statistics.mean_image, expected.astype(np.float64).mean(axis=0).astype(np.float32)
    )
    # np.cov rounds at each sum, ours only once.
    covariance = np.cov(expected.reshape(-1, 3).astype(np.float64), rowvar=False, ddof=0)
    np.testing.assert_allclose(report.statistics.covariance, covariance, rtol=1e-12)


def test_the_folder_is_plain_class_folders_of_the_same_classes(
    source: Path, tmp_path: Path
) -> None:
    target = tmp_path / "new" / "target"
    run(source, target)
    assert sorted(contents(target)) == sorted([*STORED.values(), "mean_image.npy", "prepared.json"])
    found, expected = find_class_folders(target), find_class_folders(source)
    assert found.classes == expected.classes
    assert found.labels.tolist() == expected.labels.tolist()
    with Image.open(target / "bee/1.jpg") as image:
        assert (image.format, image.size, image.mode) == ("JPEG", (SIZE, SIZE), "RGB")
        assert [part[1:3] for part in image.layer] == [(1, 1)] * 3  # type: ignore[attr-defined]
    mean_image = np.load(target / "mean_image.npy")
    assert (mean_image.shape, mean_image.dtype) == ((SIZE, SIZE, 3), np.float32)


def test_photographs_that_cannot_be_read_are_reported_and_listed(
    source: Path, tmp_path: Path
) -> None:
    save_bad(source)
    results: list[tuple[Path, str | None]] = []
    report = prepare(
        source,
        tmp_path / "target",
        form=FORM,
        on_result=lambda path, error: results.append((path, error)),
    )
    folders = find_class_folders(source)
    assert [path for path, _ in results] == [folders.path(i) for i in range(len(folders))]
    failed = {path: error for path, error in results if error is not None}
    assert list(failed) == [source / name for name in BAD]
    assert {one.path: one.reason for one in report.skipped} == failed
    assert report.line() == "8 pictures made, 0 were there already, 3 photographs skipped"
    fields = json.loads((tmp_path / "target/prepared.json").read_text())
    assert [one["path"] for one in fields["skipped"]] == list(BAD)
    assert [one["reason"] for one in fields["skipped"]] == list(failed.values())
    assert fields["skipped"][1]["reason"].startswith("is empty")
    assert fields["classes"] == {"bee": 3, "cow": 3, "elk": 2}
    assert (fields["size"], fields["quality"], fields["num_photographs"]) == (SIZE, 95, 8)
    prepared = read_prepared(find_class_folders(tmp_path / "target"))
    assert prepared is not None
    assert prepared.form == FORM
    found, made = prepared.statistics, report.statistics
    np.testing.assert_array_equal(found.mean_image, made.mean_image)
    np.testing.assert_array_equal(found.covariance, made.covariance)
    assert found.num_photographs == 8


def test_a_second_run_makes_nothing_and_changes_nothing(source: Path, tmp_path: Path) -> None:
    save_bad(source)
    target = tmp_path / "target"
    run(source, target)
    before = contents(target)
    inodes = {name: (target / name).stat().st_ino for name in STORED.values()}
    assert run(source, target, threads=1).num_made == 0
    assert contents(target) == before
    assert {name: (target / name).stat().st_ino for name in STORED.values()} == inodes


def damage(target: Path) -> None:
    path = target / "bee/1.jpg"
    path.write_bytes(path.read_bytes()[:-100])


def replace_photograph(target: Path) -> None:
    save_noise(target.parent / "source/bee/1.jpg", (90, 90), 1234)


def replace_by_one_of_the_same_length(target: Path) -> None:
    path = target.parent / "source/elk/small.bmp"
    length = path.stat().st_size
    save_noise(path, GOOD["elk/small.bmp"], 1234)
    assert path.stat().st_size == length


def resize_stored(target: Path) -> None:
    """Keep the comment, change the size: as if by another program."""
    path = target / "bee/1.jpg"
    with Image.open(path) as image:
        image.resize((SIZE, SIZE + 1)).save(path, comment=image.info["comment"])


@pytest.mark.parametrize(
    "change",
    [damage, replace_photograph, replace_by_one_of_the_same_length, resize_stored],
)
def test_only_what_changed_is_made_again(
    source: Path, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    target = tmp_path / "target"
    run(source, target)
    change(target)
    assert run(source, target).num_made == 1
    run(source, tmp_path / "whole")
    assert contents(target) == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    "change", [{"size": SIZE + 1}, {"resize": "squash"}, {"filter": "bilinear"}]
)
def test_another_form_makes_all_again(source: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    other = dataclasses.replace(FORM, **change)
    run(source, tmp_path / "target")
    assert run(source, tmp_path / "target", form=other).num_made == len(GOOD)
    run(source, tmp_path / "whole", form=other)
    assert contents(tmp_path / "target") == contents(tmp_path / "whole")


def test_options_out_of_range_are_usage_errors(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="size is 62, expected 63 to 4096"):
        PictureForm(size=62)
    with pytest.raises(UsageError, match="threads is 0"):
        run(source, tmp_path / "target", threads=0)


@pytest.mark.parametrize(
    ("source_name", "target_name"),
    [
        ("source", "source"),
        ("source", "source/new"),
        ("source/bee", "source"),
        ("source", "link/x"),
    ],
)
def test_one_folder_inside_the_other_is_refused(
    source: Path, tmp_path: Path, source_name: str, target_name: str
) -> None:
    (tmp_path / "link").symlink_to(source)
    before = contents(source)
    with pytest.raises(UsageError, match="choose a folder beside it"):
        run(tmp_path / source_name, tmp_path / target_name)
    assert contents(source) == before


@pytest.mark.parametrize("name", ["bee/other.jpg", "ant/1.jpg", "notes.txt", "bee/more/2.jpg"])
def test_a_target_with_other_files_is_refused_as_it_is(
    source: Path, tmp_path: Path, name: str
) -> None:
    target = tmp_path / "target"
    save_noise(target / name.replace(".txt", ".png"), (80, 80), 0)
    (target / name.replace(".txt", ".png")).rename(target / name)
    before = contents(target)
    with pytest.raises(DatasetError, match="holds 1 files or folders that are not made from"):
        run(source, target)
    assert contents(target) == before


def test_a_target_that_is_a_file_is_refused_and_hidden_files_are_not(
    source: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="Not a directory"):
        run(source, tmp_path / "file")
    (tmp_path / "target").mkdir()
    (tmp_path / "target/.DS_Store").touch()
    assert run(source, tmp_path / "target").num_made == len(GOOD)


def test_two_photographs_of_one_name_are_refused(source: Path, tmp_path: Path) -> None:
    save_noise(source / "bee/2.png.jpg", (80, 80), 0)
    with pytest.raises(
        DatasetError, match=r"2.png and 2.png.jpg would both be stored as 2.png.jpg"
    ):
        run(source, tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_a_class_in_which_nothing_can_be_read_is_an_error_to_mend(
    source: Path, tmp_path: Path
) -> None:
    for name in ("fox/1.jpg", "fox/2.jpg"):
        (source / "fox").mkdir(exist_ok=True)
        (source / name).touch()
    target = tmp_path / "target"
    with pytest.raises(DatasetError, match=r"fox: none of its photographs can be read .*is empty"):
        run(source, target)
    assert not (target / "prepared.json").exists()
    save_noise(source / "fox/1.jpg", (80, 80), 0)
    report = run(source, target)
    assert (report.num_made, len(report.skipped)) == (1, 1)


def test_a_photograph_that_went_bad_costs_its_picture_only_by_hand(
    source: Path, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    run(source, target)
    (source / "bee/2.png").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"bee/2.png: is empty .*such as .*bee/2.png.jpg"):
        run(source, target)
    assert (target / "bee/2.png.jpg").exists()
    (target / "bee/2.png.jpg").unlink()
    assert len(run(source, target).skipped) == 1
