"""An index of another model, layer, precision or format, and a manifest that cannot be read."""

import json
import os
from pathlib import Path

import pytest

from alexnet_deploy.errors import IncompatibleFileError, UsageError
from alexnet_deploy.index.model import ModelRequest
from alexnet_deploy.index.status import describe_index
from alexnet_deploy.model.default import bundled_checkpoint
from tests.support.index_runner import Runners, counts, indexed, save, save_colours, search, update

BLUE = (0, 0, 200)


pytestmark = pytest.mark.usefixtures("runners")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder of ten photographs."""
    save_colours(tmp_path / "photos", 10)
    return tmp_path / "photos"


@pytest.fixture
def index(photos: Path) -> Path:
    """Return an index of `photos`."""
    update(photos.with_name("index"), photos)
    return photos.with_name("index")


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (ModelRequest(layer="fc7"), "its layer is logits, requested was fc7"),
        (ModelRequest(precision="bf16"), "its precision is fp32, requested was bf16"),
    ],
)
def test_another_vector_space_is_refused_with_the_way_out(
    photos: Path, index: Path, request_: ModelRequest, message: str
) -> None:
    message += "; vectors of the two cannot be compared: use the index's own"
    with pytest.raises(IncompatibleFileError, match=message) as caught:
        update(index, photos, request=request_)
    assert caught.value.exit_code == 5
    with pytest.raises(IncompatibleFileError, match=message):
        list(search(index, [photos / "00.bmp"], request_))


def test_photographs_of_another_decoder_are_refused_with_the_only_way_out(
    photos: Path, index: Path
) -> None:
    manifest = index / "manifest.json"
    decoder = json.loads(manifest.read_text())["space"]["decode"]["decoder"]
    manifest.write_text(manifest.read_text().replace(decoder, "pillow-12"))
    message = r"decoded by pillow-12, this version .*; index again into another directory$"
    with pytest.raises(IncompatibleFileError, match=message):
        update(index, photos)
    with pytest.raises(IncompatibleFileError, match=message):
        list(search(index, [photos / "00.bmp"]))


@pytest.mark.parametrize("is_named", [True, False])
def test_another_model_is_refused_with_the_way_out(
    photos: Path, index: Path, runners: Runners, is_named: bool
) -> None:
    runners.identity = "fedcba9876543210" * 4
    request = ModelRequest(model=photos / "00.bmp" if is_named else None)
    new = save(photos / "new.bmp", BLUE)
    message = r"identity 0123456789abcdef\.\.\., but .* has fedcba9876543210\.\.\.; .*own model, or"
    with pytest.raises(IncompatibleFileError, match=message):
        update(index, photos, request=request)
    with pytest.raises(IncompatibleFileError, match=message):
        list(search(index, [new], request))
    assert len(indexed(index)) == 10


def test_an_index_remembers_its_model(
    photos: Path, tmp_path: Path, runners: Runners, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, model in enumerate([None, tmp_path / "my.onnx"]):
        if model is not None:
            model.touch()
        index = tmp_path / f"index {number}"
        update(index, photos, request=ModelRequest(layer="logits", model=model))
        monkeypatch.setenv("ALEXNET_MODEL", str(photos / "00.bmp"))
        list(search(index, [save(tmp_path / "query.bmp", BLUE)]))
        assert runners.models[-2:] == [model or bundled_checkpoint()] * 2
        monkeypatch.delenv("ALEXNET_MODEL")


def test_another_runtime_is_welcome(photos: Path, index: Path) -> None:
    save(photos / "new.bmp", BLUE)
    request = ModelRequest(runtime="onnxruntime", batch_size=7, threads=1)
    assert counts(update(index, photos, request=request)) == (1, 0, 10, 0, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"format": 3, "new": []}', "format is 3, this version of alexnet-deploy reads 2; upd"),
        ("", "damaged"),
        ("{}", "damaged"),
        ("[]", "damaged"),
        ('{"format": 2}', "damaged"),
        ("[" * 100_000, "damaged"),
        ('{"format": 2, "space": {}, "segment_rows": 1}', "damaged"),
        ("\0\udc80", r"damaged \(.*utf-8"),
    ],
)
def test_a_manifest_that_cannot_be_understood_is_refused(
    photos: Path, index: Path, text: str, message: str
) -> None:
    (index / "manifest.json").write_bytes(os.fsencode(text))
    for run in (lambda: update(index, photos), lambda: list(search(index, [photos / "00.bmp"]))):
        with pytest.raises(IncompatibleFileError, match=f"manifest.json: .*{message}"):
            run()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dimension", 0),
        ("dimension", 10**7 + 1),
        ("segment_rows", "5"),
        ("segment_rows", 2**31 + 1),
        ("metric", "dot"),
        ("decode", "x"),
        ("layer", []),
        ("layer", "fc7"),  # which has more numbers than the dimension says
    ],
)
def test_a_manifest_with_an_impossible_value_is_refused(
    photos: Path, index: Path, name: str, value: object
) -> None:
    path = index / "manifest.json"
    fields = json.loads(path.read_text("utf-8"))
    (fields if name in fields else fields["space"])[name] = value
    path.write_text(json.dumps(fields), "utf-8")
    for run in (lambda: update(index, photos), lambda: list(search(index, [photos / "00.bmp"]))):
        with pytest.raises(IncompatibleFileError):
            run()


@pytest.mark.parametrize("dimension", [4, 7, 16])
def test_vectors_of_another_dimension_are_neither_searched_nor_moved(
    photos: Path, index: Path, runners: Runners, dimension: int
) -> None:
    """No network is opened for either, with which the manifest would be compared."""
    path = index / "manifest.json"
    genuine = json.loads(path.read_text("utf-8"))
    space = genuine["space"] | {"dimension": dimension}
    path.write_text(json.dumps(genuine | {"space": space}), "utf-8")
    for number in range(1, 9):
        (photos / f"{number:02}.bmp").unlink()
    runners.num_opened = 0
    with pytest.raises(IncompatibleFileError, match=r"was changed since|has \d+ bytes, the ledger"):
        list(search(index, [photos / "09.bmp"]))
    with pytest.raises(IncompatibleFileError, match=r"was changed since|has \d+ bytes, the ledger"):
        update(index, photos, prune=True)
    assert runners.num_opened == 0
    path.write_text(json.dumps(genuine), "utf-8")
    assert list(describe_index(index, check=True)["problems"]) == []
    assert set(indexed(index)) == {photos / "00.bmp", photos / "09.bmp"}


def test_a_batch_of_no_photographs_is_refused(photos: Path, index: Path) -> None:
    save(photos / "new.bmp", BLUE)
    with pytest.raises(UsageError, match="batch_size is 0, expected 1 to 65536"):
        update(index, photos, request=ModelRequest(batch_size=0))


def test_a_lost_manifest_does_not_cost_the_ledger(photos: Path, index: Path) -> None:
    (index / "manifest.json").unlink()
    before = (index / "ledger.sqlite").read_bytes()
    with pytest.raises(
        IncompatibleFileError, match=r"its manifest.json is missing.*restore the file"
    ):
        update(index, photos)
    assert (index / "ledger.sqlite").read_bytes() == before
