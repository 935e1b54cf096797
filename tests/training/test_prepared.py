"""The statistics of a prepared folder are read back, unless the folder is not what it says."""

import json
from pathlib import Path

import pytest

from alexnet_deploy.errors import IncompatibleFileError
from alexnet_deploy.photographs.class_folders import find_class_folders
from tests.support.class_pictures import SIZE, save_bad, save_good, save_noise
from tests.support.prepare_runs import run
from training.prepared import PreparedFolder, read_prepared


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    run(save_bad(save_good(tmp_path / "source")), tmp_path / "prepared")
    return tmp_path / "prepared"


def read(folder: Path) -> PreparedFolder | None:
    return read_prepared(find_class_folders(folder))


def test_an_ordinary_folder_of_classes_has_none(tmp_path: Path) -> None:
    assert read(save_good(tmp_path / "source")) is None


def test_a_prepared_folder_may_be_moved(tmp_path: Path, prepared: Path) -> None:
    prepared.rename(tmp_path / "elsewhere")
    assert read(tmp_path / "elsewhere") is not None


def test_a_folder_with_more_or_fewer_photographs_than_were_counted_is_refused(
    prepared: Path,
) -> None:
    save_noise(prepared / "bee/more/new.jpg", (SIZE, SIZE), 0)
    with pytest.raises(IncompatibleFileError, match=r"4 photographs in 'bee', 3 in prepared.json"):
        read(prepared)
    (prepared / "bee/more/new.jpg").unlink()
    save_noise(prepared / "ant/1.jpg", (SIZE, SIZE), 0)
    with pytest.raises(IncompatibleFileError, match="4 classes that are not the ones in"):
        read(prepared)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "null", "{\xff", '{"format": 2, "size": 72}', "[" * 100_000]
)
def test_a_damaged_record_is_refused(prepared: Path, text: str) -> None:
    (prepared / "prepared.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(
        IncompatibleFileError, match=r"prepared.json: damaged \(.*run prepare again"
    ):
        read(prepared)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("format", 3, "format is 3, this version of alexnet-deploy reads 2; .*run prepare again"),
        ("size", 62, "size is 62, expected at least 63"),
        ("resize", "crop", "resize is 'crop', expected"),
        ("size", 256, r"a mean image of shape \(72, 72, 3\) .* expected \(256, 256, 3\)"),
        ("num_photographs", 9, "over 9 photographs, expected .* over 8"),
        ("num_photographs", None, "num_photographs is None, expected a whole number"),
        ("covariance", [[1, 2], [3, 4]], "covariance is .*, expected a list of 3"),
        ("covariance", [[float("nan")] * 3] * 3, "'NaN' is not a finite number"),
        ("classes", None, "classes is None, expected a JSON object"),
        ("classes", {}, "3 classes that are not the ones in"),
        ("mean_image_sha256", "0", "mean_image_sha256 is '0', expected a string like"),
        ("mean_image_sha256", "0" * 64, "its sha256 is not the one"),
    ],
)
def test_a_record_of_something_else_is_refused(
    prepared: Path, field: str, value: object, message: str
) -> None:
    path = prepared / "prepared.json"
    fields = json.loads(path.read_text())
    path.write_text(json.dumps({**fields, field: value}))
    with pytest.raises(IncompatibleFileError, match=message):
        read(prepared)
