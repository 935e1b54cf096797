"""What a run finds in folders, and what it does about photographs that are gone."""

import os
from pathlib import Path
from typing import Any

import pytest

from alexnet_deploy.errors import MissingPhotographsError, NoPhotographsError, UsageError
from alexnet_deploy.index.model import ModelRequest
from alexnet_deploy.index.scan import Scan
from tests.support.index_runner import (
    LAYER,
    Runners,
    counts,
    indexed,
    rows_of,
    save,
    save_colours,
    update,
)

RED, GREEN, BLUE = (200, 0, 0), (0, 200, 0), (0, 0, 200)


def test_photographs_that_are_gone_leave_up_to_a_fifth_of_a_root(
    tmp_path: Path, runners: Runners
) -> None:
    paths = save_colours(tmp_path / "photos", 10)
    update(tmp_path / "index", tmp_path / "photos")
    for path in paths[:2]:
        path.unlink()
    report = update(tmp_path / "index", tmp_path / "photos")
    assert (counts(report), report.losses) == ((0, 0, 8, 2, 0), ())
    assert set(indexed(tmp_path / "index")) == set(paths[2:])


def test_more_than_a_fifth_of_a_root_is_kept_until_prune(tmp_path: Path, runners: Runners) -> None:
    paths = save_colours(tmp_path / "photos", 10)
    update(tmp_path / "index", tmp_path / "photos")
    for path in paths[:3]:
        path.unlink()
    for _ in range(2):
        report = update(tmp_path / "index", tmp_path / "photos")
        assert counts(report) == (0, 0, 7, 0, 0)
        with pytest.raises(MissingPhotographsError, match="photos: 3 of 10 indexed photographs"):
            report.check_losses()
        assert set(indexed(tmp_path / "index")) == set(paths)
    pruned = update(tmp_path / "index", tmp_path / "photos", prune=True)
    assert (counts(pruned), pruned.losses) == ((0, 0, 7, 3, 0), ())
    assert set(indexed(tmp_path / "index")) == set(paths[3:])


@pytest.mark.parametrize("is_killed", [False, True])
def test_photographs_that_are_added_make_a_loss_no_smaller(
    tmp_path: Path, runners: Runners, is_killed: bool
) -> None:
    photos, index = tmp_path / "outer" / "photos", tmp_path / "index"
    drive = photos / "drive"
    lost = save_colours(drive, 3)
    update(index, photos)
    drive.rename(tmp_path / "elsewhere")
    for number in range(40):
        save(photos / f"{number}.bmp", (number, 9, 9))
    if is_killed:  # once all were added
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Scan, "losses", raise_interrupt)
            with pytest.raises(KeyboardInterrupt):
                update(index, photos)
    for _ in range(3):
        with pytest.raises(MissingPhotographsError, match=r": 3 of (3|43) indexed photographs"):
            update(index, photos).check_losses()
        update(index, drive)
        assert set(lost) < set(indexed(index))
    with pytest.raises(MissingPhotographsError, match="outer: 3 of 43 indexed photographs"):
        update(index, photos.parent).check_losses()
    (tmp_path / "elsewhere").rename(drive)
    assert counts(update(index, photos.parent)) == (0, 0, 43, 0, 0)
    lost[0].unlink()  # all having been there again, one of 43 is few
    assert counts(update(index, photos.parent)) == (0, 0, 42, 1, 0)


def raise_interrupt(scan: Scan) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(("count", "is_there"), [(20, True), (5000, False)])
def test_a_drive_that_is_not_mounted_costs_none_of_its_photographs(
    tmp_path: Path, runners: Runners, count: int, is_there: bool
) -> None:
    drive, index = tmp_path / "drive", tmp_path / "index"
    first = save(drive / "0000.bmp", RED)
    for number in range(1, count):
        os.link(first, drive / f"{number:04}.bmp")
    save(tmp_path / "photos" / "green.bmp", GREEN)
    save(tmp_path / "photos" / "blue.bmp", BLUE)
    request = ModelRequest(layer=LAYER, batch_size=100, threads=2)
    update(index, tmp_path / "photos", drive, request=request)
    drive.rename(tmp_path / "elsewhere")
    if is_there:
        drive.mkdir()
    save(tmp_path / "photos" / "new.bmp", (1, 2, 3))
    report = update(index)
    assert counts(report) == (1, 0, 2, 0, 0)
    why = "" if is_there else r" \(the folder is missing\)"
    expected = rf"drive: {count:,} of {count:,} indexed photographs are gone{why}; they stay"
    with pytest.raises(MissingPhotographsError, match=expected):
        report.check_losses()
    assert len(indexed(index)) == count + 3
    if is_there:
        drive.rmdir()
    (tmp_path / "elsewhere").rename(drive)
    assert counts(update(index)) == (0, 0, count + 3, 0, 0)


def test_a_loss_in_one_root_keeps_no_other_from_being_cleared(
    tmp_path: Path, runners: Runners
) -> None:
    first = save_colours(tmp_path / "a", 5)
    save(tmp_path / "b" / "lost.bmp", RED)
    update(tmp_path / "index", tmp_path / "a", tmp_path / "b")
    first[0].unlink()
    (tmp_path / "b" / "lost.bmp").unlink()
    report = update(tmp_path / "index")
    assert counts(report) == (0, 0, 4, 1, 0)
    (loss,) = report.losses
    assert (loss.root.path, loss.num_lost, loss.num_indexed) == (tmp_path / "b", 1, 1)


def test_failures_that_are_gone_are_no_loss(photos: Path, index: Path) -> None:
    bad = [save(photos / f"bad {number}.bmp", b"bad") for number in range(5)]
    update(index, photos)
    for path in bad:
        path.unlink()
    report = update(index, photos)
    assert (counts(report), report.losses) == ((0, 0, 2, 5, 0), ())


def close_folder(patch: pytest.MonkeyPatch, folder: Path, error: OSError) -> None:
    """Let nobody list a folder; root, as whom tests may run, could list any."""
    real = os.scandir

    def scandir(path: Any) -> Any:
        if Path(path) == folder:
            raise error
        return real(path)

    patch.setattr(os, "scandir", scandir)


def test_a_folder_that_cannot_be_listed_keeps_its_photographs(photos: Path, index: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        close_folder(patch, photos / "sub", PermissionError(13, "Permission denied"))
        report = update(index, photos, prune=True)
    assert (counts(report), report.losses) == ((0, 0, 1, 0, 1), ())
    assert set(indexed(index)) == {photos / "red.bmp", photos / "sub" / "green.bmp"}
    assert "Permission denied" in (rows_of(index)[photos / "sub"].reason or "")
    assert counts(update(index, photos)) == (0, 0, 2, 1, 0)
    assert set(rows_of(index)) == {photos / "red.bmp", photos / "sub" / "green.bmp"}


def test_a_root_that_cannot_be_listed_is_an_error(photos: Path, index: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        close_folder(patch, photos, OSError(5, "Input/output error"))
        with pytest.raises(UsageError, match=r"cannot be searched \(Input/output error\)"):
            update(index, photos, prune=True)
    assert len(indexed(index)) == 2


def test_a_time_far_in_the_future_is_a_time(photos: Path, index: Path) -> None:
    os.utime(photos / "red.bmp", (10**10, 10**10))  # the year 2286
    for _ in range(2):
        assert counts(update(index, photos)) == (0, 0, 2, 0, 0)


def test_a_folder_without_photographs_makes_no_index(tmp_path: Path, runners: Runners) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(NoPhotographsError):
        update(tmp_path / "index", tmp_path / "photos")
    assert not (tmp_path / "index").exists()
    assert runners.num_opened == 0


def test_a_folder_that_cannot_be_looked_at_keeps_its_photographs(photos: Path, index: Path) -> None:
    real = os.stat

    def closed(path: Any, *arguments: Any, **keywords: Any) -> Any:
        # As below a folder that may be listed and not entered.
        if str(path) == str(photos / "sub"):
            raise PermissionError(13, "Permission denied")
        return real(path, *arguments, **keywords)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "stat", closed)
        report = update(index, photos, prune=True)
    assert (counts(report), report.losses) == ((0, 0, 1, 0, 1), ())
    assert set(indexed(index)) == {photos / "red.bmp", photos / "sub" / "green.bmp"}


def test_what_could_not_be_opened_is_tried_again_and_what_is_damaged_is_not(
    photos: Path, index: Path
) -> None:
    blue = save(photos / "blue.bmp", BLUE)
    os.utime(blue, (10**9, 10**9))
    (photos / "damaged.bmp").write_bytes(b"BM, and no more")
    os.utime(photos / "damaged.bmp", (10**9, 10**9))
    with pytest.MonkeyPatch.context() as patch:
        real = os.open

        def closed(path: Any, *arguments: Any, **keywords: Any) -> int:
            if path == blue:
                raise PermissionError(13, "Permission denied")
            return real(path, *arguments, **keywords)

        patch.setattr(os, "open", closed)
        assert counts(update(index, photos)) == (0, 0, 2, 0, 2)
    report = update(index, photos)
    assert (counts(report), report.num_failed_before) == ((1, 0, 2, 0, 0), 1)
