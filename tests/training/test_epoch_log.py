"""The log of a run: every line is whole, in the order of the epochs, or refused."""

import dataclasses
import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet_deploy.errors import IncompatibleFileError, OutputError, UsageError
from tests.support.full_disk import files_limited_to
from training.epoch_log import EpochRecord, append_record, cut_back, read_log

RECORD = EpochRecord(
    epoch=3,
    step=162,
    learning_rate=0.01,
    train_loss=2.25,
    train_top1=0.5,
    val_loss=2.5,
    val_top1=0.375,
    val_top5=0.75,
    val_mean_class_top1=0.25,
    images_per_second=71.5,
    wall_s=98.25,
    num_skipped=1,
    best=True,
)
SHARES = st.floats(0, 1)
AMOUNTS = st.floats(0, allow_infinity=False)
WHOLE = st.integers(0, 2**40)
RECORDS = st.builds(
    EpochRecord,
    epoch=WHOLE,
    step=WHOLE,
    learning_rate=AMOUNTS,
    train_loss=st.none() | AMOUNTS,
    train_top1=st.none() | SHARES,
    val_loss=AMOUNTS,
    val_top1=SHARES,
    val_top5=SHARES,
    val_mean_class_top1=SHARES,
    images_per_second=st.none() | AMOUNTS,
    wall_s=AMOUNTS,
    num_skipped=WHOLE,
    best=st.booleans(),
)
NO_VALIDATION: dict[str, Any] = {
    **dict.fromkeys(("val_loss", "val_top1", "val_top5", "val_mean_class_top1")),
    "best": False,
}


def log_of(path: Path, *epochs: int) -> list[EpochRecord]:
    records = [dataclasses.replace(RECORD, epoch=epoch) for epoch in epochs]
    for record in records:
        append_record(path, record)
    return records


@settings(max_examples=40)
@given(st.lists(RECORDS, max_size=4, unique_by=lambda record: record.epoch), st.booleans())
def test_what_is_written_is_read_back_the_same(
    records: list[EpochRecord], has_validation: bool
) -> None:
    records.sort(key=lambda record: record.epoch)
    if not has_validation:
        records = [dataclasses.replace(record, **NO_VALIDATION) for record in records]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.jsonl"
        path.touch()
        for record in records:
            append_record(path, record)
        assert list(read_log(path)) == records
        assert len(path.read_text("ascii").splitlines()) == len(records)


def test_a_line_is_one_json_object_with_the_fields_of_the_record(tmp_path: Path) -> None:
    append_record(tmp_path / "log.jsonl", RECORD)
    assert (tmp_path / "log.jsonl").read_text("ascii") == (
        '{"epoch": 3, "step": 162, "learning_rate": 0.01, "train_loss": 2.25, "train_top1": 0.5, '
        '"val_loss": 2.5, "val_top1": 0.375, "val_top5": 0.75, "val_mean_class_top1": 0.25, '
        '"images_per_second": 71.5, "wall_s": 98.25, "num_skipped": 1, "best": true}\n'
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("train_loss", math.nan),
        ("val_loss", math.inf),
        ("learning_rate", -0.1),
        ("val_top1", 1.01),
        ("train_top1", -0.01),
        ("epoch", 1.5),
        ("step", True),
        ("num_skipped", None),
        ("learning_rate", None),
        ("val_loss", "2.5"),
        ("wall_s", 2j),
        ("best", 1),
    ],
)
def test_what_json_cannot_hold_or_no_epoch_comes_to_is_refused(field: str, value: Any) -> None:
    with pytest.raises(IncompatibleFileError, match=rf"^{field} is .*, expected "):
        dataclasses.replace(RECORD, **{field: value})


def test_an_epoch_is_validated_in_all_figures_or_none() -> None:
    with pytest.raises(IncompatibleFileError, match="expected all figures or none"):
        dataclasses.replace(RECORD, val_top5=None)
    with pytest.raises(IncompatibleFileError, match=r"^best is True, expected false without"):
        dataclasses.replace(RECORD, **NO_VALIDATION | {"best": True})


def test_numbers_of_numpy_become_plain_ones(tmp_path: Path) -> None:
    numbers: dict[str, Any] = {"step": np.int64(162), "val_top1": np.float32(0.375)}
    record = dataclasses.replace(RECORD, **numbers)
    assert record == RECORD
    append_record(tmp_path / "log.jsonl", record)
    assert read_log(tmp_path / "log.jsonl") == (RECORD,)


def test_a_line_cut_off_anywhere_is_no_record_and_the_next_does_not_join_it(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    first, _ = log_of(path, 0, 1)
    whole = path.read_bytes()
    begin = whole.index(b"\n") + 1
    for end in range(begin, len(whole), 7):
        path.write_bytes(whole[:end])
        assert read_log(path) == (first,)
        assert cut_back(path, 5) == (first,)
        assert path.read_bytes() == whole[:begin]
        (again,) = log_of(path, 1)
        assert read_log(path) == (first, again)


def test_a_resumed_run_loses_the_epochs_that_its_checkpoint_does_not_know(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    records = log_of(path, 0, 1, 2, 4)
    lines = path.read_bytes().splitlines(keepends=True)
    assert cut_back(path, 3) == tuple(records[:3])
    assert path.read_bytes() == b"".join(lines[:3])
    assert cut_back(path, 0) == (records[0],)
    assert path.read_bytes() == lines[0]
    assert os.listdir(tmp_path) == ["log.jsonl"]


def test_a_log_with_nothing_to_cut_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    records = log_of(path, 0, 1)
    before = path.stat()
    assert cut_back(path, 1) == tuple(records)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_where_there_is_no_log_nothing_is_cut_and_nothing_made(tmp_path: Path) -> None:
    assert cut_back(tmp_path / "log.jsonl", 3) == ()
    assert os.listdir(tmp_path) == []
    with pytest.raises(UsageError, match=r"log\.jsonl: no such file; give the log\.jsonl"):
        read_log(tmp_path / "log.jsonl")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"not json",
        b"[1, 2]",
        b"5",
        b"\xff",
        b"[" * 100_000,
        json.dumps(dataclasses.asdict(RECORD) | {"val_loss": math.nan}).encode(),
        json.dumps(dataclasses.asdict(RECORD) | {"step": 10**400}).encode(),
        json.dumps(dataclasses.asdict(RECORD) | {"colour": 1}).encode(),
        b'{"epoch": 1}',
    ],
    ids=range(10),
)
def test_a_damaged_line_is_named_and_the_log_left_as_it_is(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "log.jsonl"
    log_of(path, 0, 1)
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + line + b"\n" + second)
    with pytest.raises(IncompatibleFileError, match=r"log\.jsonl: line 2: damaged"):
        cut_back(path, 0)
    assert path.read_bytes() == first + line + b"\n" + second


def test_two_runs_in_one_log_are_refused(tmp_path: Path) -> None:
    log_of(tmp_path / "log.jsonl", 0, 1, 1)
    with pytest.raises(
        IncompatibleFileError, match="line 3 is epoch 1, the line before is epoch 1"
    ):
        read_log(tmp_path / "log.jsonl")


def test_a_disk_that_fills_up_in_a_line_leaves_the_log_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    records = log_of(path, 0, 1)
    whole = path.read_bytes()
    with (
        files_limited_to(len(whole) + 40),  # a part of the next line, which has about 250 bytes
        pytest.raises(OutputError, match=r"log\.jsonl: cannot be written .*ulimit -f"),
    ):
        log_of(path, 2)
    assert path.read_bytes() == whole
    assert [*records, *log_of(path, 2)] == list(read_log(path))


def test_a_folder_that_is_not_there_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="create its folder first"):
        append_record(tmp_path / "run" / "log.jsonl", RECORD)
