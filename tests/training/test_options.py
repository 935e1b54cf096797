"""What a run may be asked for, and what a resumed one must be asked for again."""

import dataclasses
import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alexnet_deploy.console.reporting import option
from alexnet_deploy.errors import IncompatibleFileError, UsageError
from alexnet_deploy.photographs.class_folders import ClassFolders, find_class_folders
from tests.support.training_sets import (
    SMALL_MODERN,
    SMALL_PAPER,
    Recorder,
    log_without_times,
    numbers,
    options,
    signalling,
)
from training.options import TrainOptions, check_options, check_photographs, write_run
from training.recipes import PAPER
from training.train import train


@pytest.fixture
def begun(photographs: Path, tmp_path: Path) -> TrainOptions:
    """Options of a run that has its `run.json`."""
    begun = options(photographs, tmp_path / "run", SMALL_PAPER)
    begun.output.mkdir()
    write_run(begun, find_class_folders(photographs), None)
    return begun


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hold_out": 1.0}, "hold_out is 1.0, expected a share from 0"),
        ({"hold_out": float("nan")}, "hold_out is nan"),
        ({"hold_out": 0, "recipe": PAPER}, "there is no validation: give a folder"),
        ({"old_rate_factor": 0.0}, "old_rate_factor is 0.0, expected more than 0"),
        ({"seed": 2**63}, "seed is 9223372036854775808, expected a number from 0 to"),
    ],
)
def test_what_no_run_can_do_is_refused(
    photographs: Path, tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        options(photographs, tmp_path / "run", **fields)


def test_the_photographs_to_train_on_are_none_to_validate_on(
    photographs: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="is the folder to train on, which says"):
        options(photographs, tmp_path / "run", validation=photographs / ".." / photographs.name)


def test_a_run_among_its_own_photographs_is_refused(photographs: Path, tmp_path: Path) -> None:
    for inside in (photographs, photographs / "ash/run", photographs / "../photographs/run"):
        with pytest.raises(UsageError, match="among the photographs"):
            options(photographs, inside)
        with pytest.raises(UsageError, match="among the photographs"):
            options(tmp_path / "other", inside, validation=photographs)
    options(photographs, photographs.with_name("photographs-run"))


def test_run_json_says_what_was_asked_for(begun: TrainOptions, photographs: Path) -> None:
    content = json.loads((begun.output / "run.json").read_text("utf-8"))
    assert content["recipe"] == dataclasses.asdict(SMALL_PAPER)
    assert content["classes"] == ["ash", "rose", "sky"]
    assert content["photographs"].startswith("30 photographs, ")
    expected = {
        "version": 1,
        "data": str(photographs),
        "validation": None,
        "validation_photographs": None,
        "hold_out": 0.3,
        "precision": "fp32",
        "seed": 5,
        "init": None,
    }
    assert {name: content[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"seed": 6}, "the run began with --seed 5, now it is 6; give the same again"),
        ({"precision": "bf16"}, 'the run began with --precision fp32, now it is "bf16"'),
        ({"hold_out": 0.2}, "the run began with --hold-out 0.3, now it is 0.2"),
        ({"validation": Path("v")}, "the run began without --validation, now it is "),
        ({"init": Path("x.pt")}, "the run began without --init, now it is "),
        ({"recipe": SMALL_MODERN}, 'the run began with --recipe paper, now it is "modern"'),
        (
            {"recipe": SMALL_PAPER.with_options({"momentum": 0.8})},
            "the run began with --set momentum=0.9, now it is 0.8",
        ),
        (
            {"recipe": SMALL_PAPER.with_options({"num_epochs": 2})},
            "the run began with --epochs 3, now it is 2; give",
        ),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_other_options_on_a_resumption_are_refused_by_name(
    begun: TrainOptions, fields: dict[str, Any], message: str
) -> None:
    check_options(begun)
    with pytest.raises(UsageError) as caught:
        check_options(dataclasses.replace(begun, **fields))
    assert message in caught.value.rendered(option)


def test_what_decides_no_number_is_free_on_a_resumption(begun: TrainOptions) -> None:
    free: dict[str, Any] = {"devices": "cuda", "num_workers": 5, "memory_bytes": 0, "keep": 7}
    free |= {"old_rate_factor": 0.5, "save_minutes": 1.0, "data": Path("moved")}
    check_options(dataclasses.replace(begun, resume=True, **free))


def test_hold_out_is_free_where_a_folder_is_given_to_validate_on(
    begun: TrainOptions, photographs: Path
) -> None:
    separate = dataclasses.replace(begun, validation=photographs.with_name("validation"))
    write_run(separate, find_class_folders(photographs), None)
    check_options(dataclasses.replace(separate, hold_out=0.1))


def changed(folders: ClassFolders, **fields: Any) -> ClassFolders:
    return dataclasses.replace(folders, **fields)


def test_other_photographs_on_a_resumption_are_refused(
    begun: TrainOptions, photographs: Path
) -> None:
    folders = find_class_folders(photographs)
    check_photographs(begun, folders, None)
    fewer = folders.select(np.arange(29))
    renamed = changed(folders, names=folders.names.replace(b"7.jpg", b"x.jpg"))
    other_class = changed(folders, labels=folders.labels[::-1].copy())
    for others in (fewer, renamed, other_class):
        with pytest.raises(UsageError, match='began with photographs "30 photographs, '):
            check_photographs(begun, others, None)
    with pytest.raises(UsageError, match=r'began with classes .*, now it is \["a", '):
        check_photographs(begun, changed(folders, classes=("a", "b", "c")), None)
    with pytest.raises(UsageError, match="began with validation photographs null, now it is"):
        check_photographs(begun, folders, folders)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"version": 2}', b'{"version": 1}', b'{"version": 1, "recipe": {}}'],
)
def test_a_damaged_run_json_is_refused(begun: TrainOptions, content: bytes) -> None:
    (begun.output / "run.json").write_bytes(content)
    with pytest.raises(IncompatibleFileError, match=r"run\.json: .*, with init$"):
        check_options(begun)


@pytest.mark.usefixtures("small")
def test_a_complete_run_that_is_resumed_does_nothing(photographs: Path, tmp_path: Path) -> None:
    begun = options(photographs, tmp_path / "run", SMALL_PAPER.with_options({"num_epochs": 1}))
    first = train(begun, Recorder())
    before = {path: path.stat().st_mtime_ns for path in begun.output.glob("*.pt")}
    again = train(dataclasses.replace(begun, resume=True), Recorder())
    assert again == first
    assert {path: path.stat().st_mtime_ns for path in begun.output.glob("*.pt")} == before


@pytest.mark.usefixtures("small")
def test_more_epochs_go_on_as_if_they_had_been_asked_for_at_first(
    photographs: Path, tmp_path: Path
) -> None:
    whole = options(photographs, tmp_path / "whole", SMALL_PAPER)
    train(whole, Recorder())
    short = options(photographs, tmp_path / "short", SMALL_PAPER.with_options({"num_epochs": 1}))
    train(short, Recorder())
    longer = dataclasses.replace(short, recipe=SMALL_PAPER, resume=True)
    train(longer, signalling(signal.SIGINT))
    train(longer, Recorder())
    assert log_without_times(short.output) == log_without_times(whole.output)
    last = [
        {name: value for name, value in numbers(output).items() if name.startswith("step-")}
        for output in (short.output, whole.output)
    ]
    assert last[0] == last[1]
    with pytest.raises(UsageError, match=r"began with recipe\.num_epochs=3, now it is 1"):
        train(dataclasses.replace(short, resume=True), Recorder())


@pytest.mark.usefixtures("small")
def test_more_epochs_are_refused_where_the_rate_has_been_falling_to_its_end(
    photographs: Path, tmp_path: Path
) -> None:
    begun = options(photographs, tmp_path / "run", SMALL_MODERN.with_options({"num_epochs": 1}))
    train(begun, Recorder())
    longer = dataclasses.replace(begun, recipe=SMALL_MODERN, resume=True)
    with pytest.raises(
        UsageError, match="and the learning rate of one_cycle falls to 0 in the last"
    ):
        train(longer, Recorder())
