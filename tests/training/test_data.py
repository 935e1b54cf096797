"""What a run is given to learn from, and what it refuses before it begins."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alexnet_deploy.errors import (
    AlexNetDeployError,
    DatasetError,
    IncompatibleFileError,
    UsageError,
)
from alexnet_deploy.photographs.class_folders import find_class_folders
from tests.support.training_sets import (
    COLOURS,
    FORM,
    PICTURE,
    SMALL_MODERN,
    Recorder,
    options,
    save_classes,
    spoil,
)
from training import data as data_module
from training.data import Data, find_data, open_data
from training.options import TrainOptions
from training.pictures import read_picture
from training.prepare import prepare
from training.prepared import UNFINISHED_NAME
from training.train import train

pytestmark = pytest.mark.usefixtures("small")


def opened(asked: TrainOptions) -> Data:
    return open_data(find_data(asked), asked, Recorder(), FORM)


def refused(asked: TrainOptions, kind: type[AlexNetDeployError], message: str) -> Recorder:
    """Expect an error that leaves nothing behind for the next run to stumble over."""
    reporter = Recorder()
    with pytest.raises(kind, match=message):
        train(asked, reporter)
    assert reporter.num_open == 0
    assert not asked.output.exists() or [path.name for path in asked.output.iterdir()] == ["lock"]
    return reporter


def test_one_class_is_nothing_to_tell_apart(tmp_path: Path) -> None:
    root = save_classes(tmp_path / "one", classes={"ash": COLOURS["ash"]})
    reporter = refused(options(root, tmp_path / "run"), DatasetError, r"one class only \(ash\)")
    assert reporter.titles == []


def test_an_empty_class_is_named(own: Path, tmp_path: Path) -> None:
    (own / "void").mkdir()
    asked = options(own, tmp_path / "run")
    refused(asked, DatasetError, r"1 class without photographs \('void'\)")


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    refused(options(tmp_path / "no", tmp_path / "run"), UsageError, "no: does not exist")


def test_fewer_photographs_than_a_batch_are_refused_before_they_are_read(
    photographs: Path, tmp_path: Path
) -> None:
    recipe = SMALL_MODERN.with_options({"batch_size": 22})
    message = (
        "21 photographs to train on, fewer than a batch of 22; give a smaller recipe.batch_size"
    )
    reporter = refused(options(photographs, tmp_path / "run", recipe), DatasetError, message)
    assert reporter.titles == []


def test_fewer_readable_photographs_than_a_batch_are_refused(own: Path, tmp_path: Path) -> None:
    asked = options(own, tmp_path / "run", SMALL_MODERN.with_options({"batch_size": 21}))
    spoil(find_data(asked).training.path(5))
    refused(asked, DatasetError, "20 photographs to train on, fewer than a batch of 21")


def test_a_class_without_a_readable_photograph_is_named(own: Path, tmp_path: Path) -> None:
    for path in (own / "rose").iterdir():
        spoil(path)
    asked = options(own, tmp_path / "run")
    message = "class 'rose': none of its photographs can be read"
    reporter = refused(asked, DatasetError, message)
    assert {path.parent.name for path in reporter.failures} == {"rose"}


@pytest.mark.parametrize("memory_bytes", [10**9, 0], ids=["memory", "files"])
def test_photographs_of_which_none_can_be_read_are_refused(
    own: Path, tmp_path: Path, memory_bytes: int
) -> None:
    for path in own.glob("*/*.jpg"):
        spoil(path)
    asked = options(own, tmp_path / "run", memory_bytes=memory_bytes)
    refused(asked, DatasetError, r"none of 21 photographs|not one of 21 photographs")


def test_unreadable_validation_photographs_are_refused(
    photographs: Path, own: Path, tmp_path: Path
) -> None:
    for path in own.glob("*/*.jpg"):
        spoil(path)
    asked = options(photographs, tmp_path / "run", validation=own)
    refused(asked, DatasetError, "none of 30 photographs can be read")


def test_validation_has_the_same_classes(photographs: Path, own: Path, tmp_path: Path) -> None:
    asked = options(photographs, tmp_path / "run", validation=own)
    (own / "sky").rename(own / "sea")
    refused(asked, DatasetError, f"{own}: class 'sky' of {photographs} is missing; expected")
    shutil.copytree(own / "sea", own / "sky")
    refused(asked, DatasetError, f"{photographs}: class 'sea' of {own} is missing; expected")
    shutil.rmtree(own / "sea")
    shutil.rmtree(own / "ash")
    (own / "rose").rename(own / "bush")
    refused(asked, DatasetError, f"{own}: class 'ash' of {photographs} is missing, and 1 more")


def test_what_is_held_out_is_not_trained_on(photographs: Path, tmp_path: Path) -> None:
    found = find_data(options(photographs, tmp_path / "run"))
    assert found.validation is not None
    parts = [
        {folders.path(index) for index in range(len(folders))}
        for folders in (found.training, found.validation)
    ]
    assert [len(part) for part in parts] == [21, 9]
    assert parts[0] | parts[1] == set(photographs.glob("*/*.jpg"))


def test_memory_is_shared_between_training_and_validation(
    photographs: Path, tmp_path: Path
) -> None:
    """21 pictures to train on, then 9 to validate on."""
    size = PICTURE * PICTURE * 3
    for room, in_memory in ((20, [False, True]), (29, [True, False]), (30, [True, True])):
        data = opened(options(photographs, tmp_path / "run", memory_bytes=room * size))
        assert data.validation is not None
        assert [data.training.images is not None, data.validation.images is not None] == in_memory


def test_guessing_names_the_most_frequent_class(tmp_path: Path) -> None:
    root = save_classes(tmp_path / "photographs", num_each=4)
    for number in (1, 2, 3):
        (root / "ash" / f"{number}.jpg").unlink()
    other = shutil.copytree(root, tmp_path / "validation")
    data = opened(options(root, tmp_path / "run", validation=other))
    assert data.guessing_error == pytest.approx(5 / 9)


def by_hand(root: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return mean image and covariance of all photographs below `root`."""
    pictures = np.stack([read_picture(path, FORM) for path in sorted(root.glob("*/*.jpg"))])
    return pictures.mean(axis=0), np.cov(pictures.reshape(-1, 3).T.astype(float), bias=True)


@pytest.mark.parametrize("memory_bytes", [10**9, 0], ids=["memory", "files"])
def test_colours_are_those_of_the_training_photographs(
    photographs: Path, tmp_path: Path, memory_bytes: int
) -> None:
    data = opened(options(photographs, tmp_path / "run", hold_out=0, memory_bytes=memory_bytes))
    statistics = data.colour_statistics(Recorder(), 0)
    mean, covariance = by_hand(photographs)
    np.testing.assert_allclose(statistics.mean_image, mean, rtol=1e-6)
    np.testing.assert_allclose(statistics.covariance, covariance, rtol=1e-9)


def test_colours_of_many_files_come_from_a_sample_and_that_is_said(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_module, "SAMPLE_SIZE", 7)
    data = opened(options(photographs, tmp_path / "run", memory_bytes=0))
    reporter = Recorder()
    assert data.colour_statistics(reporter, 0).num_photographs == 7
    assert reporter.lines == [
        f"colours: from 7 of 21 photographs, since {photographs} is not prepared"
    ]
    assert reporter.num_open == 0


def test_colours_of_a_prepared_folder_are_those_that_were_counted(
    photographs: Path, tmp_path: Path
) -> None:
    prepared = tmp_path / "prepared"
    prepare(photographs, prepared, form=FORM, threads=2)
    data = opened(options(prepared, tmp_path / "run", memory_bytes=0))
    statistics = data.colour_statistics(Recorder(), 0)
    assert statistics.num_photographs == len(find_class_folders(photographs))
    np.testing.assert_allclose(statistics.mean_image, by_hand(prepared)[0], rtol=1e-6)


def test_a_folder_that_prepare_has_not_finished_is_refused(
    photographs: Path, own: Path, tmp_path: Path
) -> None:
    """Also one that fits in memory, or that is only validated on."""
    (own / UNFINISHED_NAME).touch()
    message = f"{own}: prepare was interrupted or is running"
    refused(options(own, tmp_path / "run"), IncompatibleFileError, message)
    asked = options(photographs, tmp_path / "run", validation=own)
    refused(asked, IncompatibleFileError, message)


@pytest.mark.parametrize("change", [{"size": PICTURE + 1}, {"resize": "squash"}])
def test_a_folder_that_was_prepared_in_another_form_is_refused(
    photographs: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    prepared = tmp_path / "prepared"
    other = dataclasses.replace(FORM, **change)
    prepare(photographs, prepared, form=other, threads=2)
    message = f"were prepared as {other}, the network wants {FORM}"
    refused(options(prepared, tmp_path / "run"), IncompatibleFileError, message)
    asked = options(photographs, tmp_path / "run", validation=prepared)
    refused(asked, IncompatibleFileError, message)
