"""What a run does with photographs that are new, changed, renamed, copied or damaged."""

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from alexnet_deploy.choices import Device
from alexnet_deploy.errors import IncompatibleFileError
from alexnet_deploy.index.integrity import problems
from alexnet_deploy.index.model import ModelRequest
from alexnet_deploy.index.storage import open_storage
from alexnet_deploy.index.update import bring_up_to_date
from alexnet_deploy.inference.run import PhotographResult
from alexnet_deploy.runtimes.base import RunnerOptions
from tests.support.index_runner import (
    DIMENSION,
    OVERFLOWING,
    REQUEST,
    TOO_BRIGHT,
    Colour,
    Runners,
    counts,
    indexed,
    photograph,
    rows_of,
    save,
    save_colours,
    search,
    update,
    vector_of,
    vectors_of,
)

RED, GREEN, BLUE = (200, 0, 0), (0, 200, 0), (0, 0, 200)
NOW = "alexnet_deploy.photographs.file_stamps.time.time_ns"


@pytest.fixture
def photos(tmp_path: Path, runners: Runners) -> Path:
    """Return a folder of two photographs, which `tmp_path / "index"` is the index of."""
    save(tmp_path / "photos" / "red.bmp", RED)
    save(tmp_path / "photos" / "sub" / "green.bmp", GREEN)
    assert counts(update(tmp_path / "index", tmp_path / "photos")) == (2, 0, 0, 0, 0)
    runners.num_opened = 0
    runners.colours.clear()
    return tmp_path / "photos"


@pytest.fixture
def index(photos: Path) -> Path:
    return photos.with_name("index")


def check(directory: Path) -> list[str]:
    with open_storage(directory) as index:
        return list(problems(index))


def segment_bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.glob("vectors/*.f16"))


def test_a_new_index_holds_the_vector_of_each_photograph(photos: Path, index: Path) -> None:
    colours: dict[Path, Colour] = {photos / "red.bmp": RED, photos / "sub/green.bmp": GREEN}
    assert indexed(index) == vectors_of(colours)
    assert sorted(os.listdir(index)) == ["ledger.sqlite", "lock", "manifest.json", "vectors"]
    assert check(index) == []


def test_a_second_run_does_nothing_and_opens_no_engine(
    photos: Path, index: Path, runners: Runners
) -> None:
    before = rows_of(index)
    assert counts(update(index, photos)) == (0, 0, 2, 0, 0)
    assert runners.num_opened == 0
    assert rows_of(index) == before


def test_the_last_lines_say_what_was_done(photos: Path, index: Path) -> None:
    save(photos / "blue.bmp", BLUE)
    save(photos / "bad.bmp", b"bad")
    line = update(index, photos).line()
    assert line.startswith("1 embedded, 0 reused, 2 unchanged, 0 removed, 1 failed in ")
    assert ", 1 failed before (retry_failed=True tries again) in " in update(index, photos).line()


def test_a_changed_file_is_embedded_again_and_keeps_its_place(
    photos: Path, index: Path, runners: Runners
) -> None:
    path = photos / "red.bmp"
    before = rows_of(index)[path].id
    save(path, BLUE)
    assert counts(update(index, photos)) == (1, 0, 1, 0, 0)
    assert runners.colours == [BLUE]
    assert indexed(index)[path] == vectors_of({path: BLUE})[path]
    assert rows_of(index)[path].id == before


def test_a_change_within_two_seconds_of_the_last_is_found_at_the_same_size_and_time(
    photos: Path, index: Path, runners: Runners
) -> None:
    path = save(photos / "fresh.bmp", BLUE)
    now = path.stat().st_mtime_ns + 10**12
    os.utime(path, ns=(now, now))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NOW, lambda: now + 10**9)
        update(index, photos)
        path.write_bytes(photograph((9, 9, 200)))
        os.utime(path, ns=(now, now))
        assert counts(update(index, photos)) == (1, 0, 2, 0, 0)
    assert runners.colours == [BLUE, (9, 9, 200)]


def test_a_touched_file_is_read_and_not_embedded(
    photos: Path, index: Path, runners: Runners
) -> None:
    os.utime(photos / "red.bmp", ns=(10**18, 10**18))
    for _ in range(2):
        assert counts(update(index, photos)) == (0, 0, 2, 0, 0)
    assert runners.colours == []


def test_a_renamed_file_and_a_copy_keep_the_vector(
    photos: Path, index: Path, runners: Runners
) -> None:
    (photos / "red.bmp").rename(photos / "sub" / "renamed.bmp")
    save(photos / "copy.bmp", GREEN)
    report = update(index, photos)
    assert counts(report) == (0, 2, 1, 1, 0)
    assert (report.losses, runners.colours) == ((), [])
    colours: dict[Path, Colour] = {
        photos / "sub" / "green.bmp": GREEN,
        photos / "copy.bmp": GREEN,
        photos / "sub" / "renamed.bmp": RED,
    }
    assert indexed(index) == vectors_of(colours)


def test_a_file_that_is_changed_back_needs_no_network(
    photos: Path, index: Path, runners: Runners
) -> None:
    for colour in (BLUE, RED):
        save(photos / "red.bmp", colour)
        update(index, photos)
    assert runners.colours == [BLUE]
    assert indexed(index)[photos / "red.bmp"] == tuple(vector_of(RED))


def test_renaming_all_that_a_root_holds_is_no_loss(
    photos: Path, index: Path, runners: Runners
) -> None:
    names = [path.rename(path.with_name(f"new {path.name}")) for path in photos.rglob("*.bmp")]
    report = update(index, photos)
    assert (counts(report), report.losses) == ((0, 2, 0, 2, 0), ())
    assert set(indexed(index)) == set(names)
    assert runners.colours == []


@pytest.mark.parametrize("batch_size", [1, 4])
def test_identical_files_share_one_vector(
    tmp_path: Path, runners: Runners, batch_size: int
) -> None:
    colours: list[Colour] = [RED, RED, GREEN, RED, BLUE]
    for number, colour in enumerate(colours):
        save(tmp_path / "photos" / f"{number}.bmp", colour)
    request = ModelRequest(layer="logits", batch_size=batch_size, threads=2)
    report = update(tmp_path / "index", tmp_path / "photos", request=request)
    assert counts(report) == (3, 2, 0, 0, 0)
    assert runners.colours == [RED, GREEN, BLUE]
    assert segment_bytes(tmp_path / "index") == 3 * 2 * DIMENSION


def test_what_cannot_be_read_is_a_row_with_its_reason(photos: Path, index: Path) -> None:
    (photos / "empty.bmp").touch()
    (photos / "broken link.bmp").symlink_to("nowhere.bmp")
    save(photos / "text.jpg", b"text")
    failures: list[PhotographResult[Path]] = []
    report = bring_up_to_date(index, [photos], REQUEST, on_result=failures.append)
    assert counts(report) == (0, 0, 2, 0, 3)
    assert all(result.error for result in failures)
    rows = rows_of(index)
    assert rows[photos / "empty.bmp"].status == "failed"
    assert "is empty (0 bytes)" in (rows[photos / "empty.bmp"].reason or "")
    assert "No such file" in (rows[photos / "broken link.bmp"].reason or "")
    assert "not an image" in (rows[photos / "text.jpg"].reason or "")


def test_a_failure_is_tried_again_when_asked_or_when_the_file_has_changed(
    photos: Path, index: Path
) -> None:
    bad = save(photos / "bad.bmp", b"bad")
    update(index, photos)
    again = update(index, photos)
    assert (counts(again), again.num_failed_before) == ((0, 0, 2, 0, 0), 1)
    retried = update(index, photos, retry_failed=True)
    assert (counts(retried), retried.num_failed_before) == ((0, 0, 2, 0, 1), 0)
    save(bad, b"bad again")
    assert counts(update(index, photos)) == (0, 0, 2, 0, 1)
    save(bad, BLUE)
    assert counts(update(index, photos)) == (1, 0, 2, 0, 0)


def test_a_photograph_that_becomes_damaged_is_found_no_more(photos: Path, index: Path) -> None:
    save(photos / "red.bmp", b"bad")
    report = update(index, photos)
    assert (counts(report), report.losses) == ((0, 0, 1, 0, 1), ())
    assert list(indexed(index)) == [photos / "sub" / "green.bmp"]
    (result,) = search(index, [photos / "sub" / "green.bmp"])
    assert result.neighbours == ()


@pytest.mark.parametrize(
    ("colour", "expected"),
    [
        (TOO_BRIGHT, "its logits activations reach 1e+06, an index holds up to 65504"),
        (OVERFLOWING, "its logits are not finite numbers: the network overflows in fp32"),
    ],
)
def test_activations_that_are_no_vector_are_a_failure_that_says_so(
    colour: Colour, expected: str, photos: Path, index: Path
) -> None:
    for name in ("bright.bmp", "sub/bright.bmp"):
        save(photos / name, colour)
    save(photos / "blue.bmp", BLUE)
    assert counts(update(index, photos)) == (1, 0, 2, 0, 2)
    for name in ("bright.bmp", "sub/bright.bmp"):
        reason = rows_of(index)[photos / name].reason or ""
        assert expected in reason
    assert check(index) == []


@settings(max_examples=8)
@example([(9, 9, n) for n in (1, 2, 3, 4, 2, 3, 4, 5, 5, 6, 7, 6, 7, 8, 6)])
@given(
    st.lists(
        st.sampled_from([TOO_BRIGHT, OVERFLOWING, b"bad", *((9, 9, n) for n in range(12))]),
        min_size=20,
        max_size=40,
    )
)
def test_copies_in_batches_that_are_computed_at_once_share_a_vector_or_a_failure(
    contents: list[Colour | bytes],
) -> None:
    """A GPU is given the next batches before the ledger knows of this one."""
    runners = Runners()
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr("alexnet_deploy.index.model.open_runner_of", runners.open)
        photos, found = Path(name).resolve() / "photos", []
        for number, content in enumerate([(1, 2, 3), *contents]):
            save(photos / f"{number:02}.bmp", content)
        devices: tuple[Device, ...] = ("cpu", "cuda")
        for device in devices:
            runners.device, index = device, photos.with_name(device)
            request = ModelRequest(layer="logits", batch_size=1)
            report = update(index, photos, request=request)
            found.append((counts(report), rows_of(index)))
            assert check(index) == []
    assert found[0] == found[1]


def test_prune_gives_space_back_and_changes_no_vector(
    tmp_path: Path, runners: Runners, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Ten vectors a segment.
    monkeypatch.setattr("alexnet_deploy.index.manifest.SEGMENT_BYTES", 10 * 2 * DIMENSION)
    photos, index = tmp_path / "photos", tmp_path / "index"
    paths = save_colours(photos, 35)
    update(index, photos)
    gone = [path for number, path in enumerate(paths) if number < 10 or number % 3]
    for path in gone:
        path.unlink()
    before = {path: vector for path, vector in indexed(index).items() if path not in gone}
    num_bytes = segment_bytes(index)
    assert counts(update(index, photos, prune=True)) == (0, 0, len(before), len(gone), 0)
    assert indexed(index) == before
    assert segment_bytes(index) < num_bytes / 2
    assert check(index) == []
    save_colours(photos, 35)
    update(index, photos)
    assert len(indexed(index)) == 35
    assert check(index) == []


@pytest.mark.parametrize("damage", ["flipped", "truncated", "removed"])
def test_damaged_vectors_are_named_and_repaired(
    photos: Path, index: Path, runners: Runners, damage: str
) -> None:
    before = rows_of(index)
    (segment,) = index.glob("vectors/*.f16")
    data = bytearray(segment.read_bytes())
    data[2 * DIMENSION + 3] ^= 1  # in the second of two vectors
    if damage == "flipped":
        segment.write_bytes(data)
    elif damage == "truncated":
        segment.write_bytes(data[: 3 * DIMENSION])
    else:
        segment.unlink()
    lines = check(index)
    assert len(lines) == (2 if damage == "removed" else 1)
    assert str(photos / "sub" / "green.bmp") in lines[-1]
    if damage != "flipped":
        save(photos / "new.bmp", BLUE)
        with pytest.raises(IncompatibleFileError, match="repair=True"):
            update(index, photos)
        (photos / "new.bmp").unlink()
    runners.colours.clear()
    num_damaged = len(lines)
    assert counts(update(index, photos, repair=True)) == (num_damaged, 0, 2 - num_damaged, 0, 0)
    assert runners.colours == [RED, GREEN][-num_damaged:]
    assert rows_of(index) == before
    assert check(index) == []


def test_what_waits_for_repair_is_not_found_and_still_waits_after_a_killed_run(
    photos: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (segment,) = index.glob("vectors/*.f16")
    segment.write_bytes(bytes(4 * DIMENSION))

    def refuse(model: object, options: RunnerOptions, *, notify: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("alexnet_deploy.index.model.open_runner_of", refuse)
        with pytest.raises(KeyboardInterrupt):
            update(index, photos, repair=True)
    assert indexed(index) == {}
    assert check(index) == ["2 photographs without a vector; alexnet-deploy index embeds them"]
    assert counts(update(index, photos)) == (2, 0, 0, 0, 0)
    assert np.isfinite([*indexed(index).values()]).all()
    assert check(index) == []
