"""Photographs that cannot be read for a while: a disk that is away is no million corrupt files."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from alexnet_deploy.errors import DatasetError
from alexnet_deploy.model.checkpoints import load_checkpoint
from tests.support.training_sets import (
    SMALL_MODERN,
    Recorder,
    options,
    spoil,
)
from training.train import train

pytestmark = pytest.mark.usefixtures("small")


@pytest.mark.parametrize(
    ("most_lost", "message"),
    [(4, "none of the last 6 photographs can be read"), (100, "in epoch 3; check")],
    ids=["in the middle", "a whole epoch"],
)
def test_what_was_unreadable_for_a_while_is_met_again(
    own: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    most_lost: int,
    message: str,
) -> None:
    """As a disk that is away leaves its mount point: steps without photographs are no steps."""
    monkeypatch.setattr("training.run.MOST_LOST", most_lost)
    recipe = SMALL_MODERN.with_options({"batch_size": 3})
    begun = options(own, tmp_path / "run", recipe, memory_bytes=0, hold_out=0, keep=1)
    whole = train(dataclasses.replace(begun, output=tmp_path / "whole"), Recorder())
    kept = shutil.copytree(own, tmp_path / "kept")

    def spoil_all(place: str) -> None:
        if "epoch 2" in place:
            for path in own.glob("*/*.jpg"):
                spoil(path)

    with pytest.raises(DatasetError, match=message):
        train(begun, Recorder(spoil_all))
    shutil.copytree(kept, own, dirs_exist_ok=True)
    report = train(dataclasses.replace(begun, resume=True), Recorder())
    assert (report.epoch, report.step) == (whole.epoch, whole.step)
    if most_lost == 4:  # else the rest of epoch 2 went by without photographs
        one, other = (load_checkpoint(each.checkpoint).arrays for each in (report, whole))
        assert all(np.array_equal(one[name], other[name]) for name in other)
        assert not any(record.num_skipped for record in report.records)
    assert report.records[-1].num_skipped == 0


def test_photographs_that_are_gone_in_the_middle_are_an_error(own: Path, tmp_path: Path) -> None:
    """A drive that drops out must not pass for a million corrupt photographs."""
    begun = options(own, tmp_path / "run", memory_bytes=0)
    moved = tmp_path / "moved"

    def move(place: str) -> None:
        if "epoch 1" in place and own.exists():
            own.rename(moved)

    with pytest.raises(
        DatasetError, match=r"after step 1, none of .*resume=True continues from there"
    ):
        train(begun, Recorder(move))
    assert (begun.output / "step-00000001.pt").exists()
    # Brought back under another name: what counts is what is there.
    resumed = dataclasses.replace(begun, data=moved, resume=True)
    assert train(resumed, Recorder()).step == 15
