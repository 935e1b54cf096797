"""An index in the precision that `fast` chose: int8 is made again from checkpoint and ranges."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alexnet_deploy.errors import IncompatibleFileError, UsageError
from alexnet_deploy.graph.build import build_model
from alexnet_deploy.graph.model_file import write_model
from alexnet_deploy.index import model as index_model
from alexnet_deploy.index.model import ModelRequest
from alexnet_deploy.index.opening import open_index, update_index
from alexnet_deploy.index.status import describe_index
from alexnet_deploy.model.checkpoints import save_checkpoint
from alexnet_deploy.photographs.samples import sample_paths, varied_samples
from tests.support.networks import random_checkpoint
from tests.support.pretended_int8 import NUM_PHOTOGRAPHS, copied, copy, pretend

SEARCH = """
import sys, alexnet_deploy as ad
with ad.open_index(sys.argv[1]) as index:
    for result in index.search(sys.argv[2:], k=1, metric="l2"):
        print(result.neighbours[0].path, result.neighbours[0].l2_distance)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with photographs and their index, and with what was said."""
    place = tmp_path_factory.mktemp("fast")
    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        pretend(patch)
        photographs = copied(place / "photos")
        update_index(place / "index", photographs, fast=True, notify=lines.append)
    (place / "said").write_text("\n".join(lines))
    return place


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    """Return a copy of the index, of the same photographs, to be changed."""
    shutil.copytree(made / "index", tmp_path / "index")
    return tmp_path


def test_the_choice_is_said_and_kept(made: Path) -> None:
    assert "fast: int8, in which this processor takes less time" in (made / "said").read_text()
    space = describe_index(made / "index", check=True)
    assert (space["precision"], space["decode"]["scale"]) == ("int8", "scaled")
    assert space["ranges"]["calibration"] == {"photographs": 10, "are_samples": False}
    assert list(space["problems"]) == []


def test_another_process_without_its_cache_computes_the_same_vectors(
    made: Path, place: Path
) -> None:
    queries = [
        copy(made / "photos" / name, place / name, behind=b"\0") for name in ("00.jpg", "07.jpg")
    ]
    environment = os.environ | {"XDG_CACHE_HOME": str(place / "empty")}
    command = [sys.executable, "-c", SEARCH, str(made / "index"), *map(str, queries)]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    expected = [f"{made / 'photos' / query.name} 0.0" for query in queries]
    assert told.stdout.splitlines() == expected


def test_later_runs_add_in_the_same_space_and_say_when_it_was_chosen(
    made: Path, place: Path
) -> None:
    """As of a command line that is run every night, on whatever machine."""
    before = (place / "index" / "manifest.json").read_bytes()
    photographs = copied(place / "photos", NUM_PHOTOGRAPHS)
    copy(sample_paths()[1], photographs / "new.jpg")
    lines: list[str] = []
    report = update_index(place / "index", photographs, fast=True, notify=lines.append)
    assert (report.num_embedded, report.num_reused) == (1, NUM_PHOTOGRAPHS)
    assert lines[0] == "fast: int8 and scaled decoding, as chosen when the index was made"
    assert not [line for line in lines if "calibrated" in line]
    assert (place / "index" / "manifest.json").read_bytes() == before


def test_a_file_of_another_precision_is_none_of_the_index(place: Path) -> None:
    """What the index asks for is not said to be what the user did."""
    file = place / "wide.onnx"
    write_model(build_model(random_checkpoint("paper"), ("fc7",)), file)
    with pytest.raises(IncompatibleFileError) as caught:
        open_index(place / "index", model=file)
    assert str(caught.value) == (
        f"index {place / 'index'}: its precision is int8, in which {file} does not run; give the "
        "index's own model"
    )


def _ranges(space: dict[str, Any]) -> Any:
    return space["ranges"]["layers"]


@pytest.mark.parametrize(
    "change",
    [
        lambda space: _ranges(space)[1].update(largest=-1.0),
        lambda space: _ranges(space)[1].update(largest=0),
        lambda space: _ranges(space)[1].update(largest=float("nan")),
        lambda space: _ranges(space)[1].update(largest=1e300),
        lambda space: _ranges(space)[1].update(largest="1"),
        lambda space: _ranges(space)[1].update(layer="\n" * 90),
        lambda space: _ranges(space).append(_ranges(space)[0]),
        lambda space: _ranges(space).clear(),
        lambda space: _ranges(space).extend([{"layer": "x", "largest": 1}] * 10_000),
        lambda space: space["ranges"]["calibration"].update(photographs=0),
        lambda space: space.update(ranges=[]),
        lambda space: space.update(precision="fp32"),
        lambda space: _ranges(space).pop(),
    ],
)
def test_ranges_that_nobody_measured_are_damage(
    made: Path, place: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    path = place / "index" / "manifest.json"
    fields = json.loads(path.read_text())
    change(fields["space"])
    path.write_text(json.dumps(fields))
    query = copy(made / "photos" / "00.jpg", place / "query.jpg", behind=b"\0")
    with (
        pytest.raises(IncompatibleFileError, match="damaged") as caught,
        open_index(place / "index") as index,
    ):
        list(index.search(query))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_ranges_that_were_changed_make_another_network(made: Path, place: Path) -> None:
    path = place / "index" / "manifest.json"
    fields = json.loads(path.read_text())
    _ranges(fields["space"])[1]["largest"] *= 1.01
    path.write_text(json.dumps(fields))
    query = copy(made / "photos" / "00.jpg", place / "query.jpg", behind=b"\0")
    with (
        pytest.raises(IncompatibleFileError, match="cannot be compared"),
        open_index(place / "index") as index,
    ):
        list(index.search(query))


def test_another_checkpoint_is_told_from_the_ranges(place: Path) -> None:
    save_checkpoint(random_checkpoint("paper"), place / "other.safetensors")
    with pytest.raises(IncompatibleFileError, match="the int8 ranges were measured with"):
        open_index(place / "index", model=place / "other.safetensors")


def test_a_creation_that_was_stopped_leaves_nothing_wrong(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    pretend(monkeypatch)
    options: Any = {"fast": True}
    with monkeypatch.context() as patch:
        patch.setattr(index_model, "write_manifest", stop)
        with pytest.raises(KeyboardInterrupt):
            update_index(tmp_path / "index", made / "photos", **options)
    report = update_index(tmp_path / "index", made / "photos", **options)
    assert report.num_embedded == NUM_PHOTOGRAPHS
    assert describe_index(tmp_path / "index", check=True)["problems"] == []


def test_int8_that_was_asked_for_needs_no_cache_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its ranges, on the samples, may not be measured the same on another machine."""
    options: Any = {"precision": "int8"}
    photographs = copied(tmp_path / "photos", 1)
    update_index(tmp_path / "index", photographs, **options)
    ranges = describe_index(tmp_path / "index", check=False)["ranges"]
    assert ranges["calibration"] == {"photographs": 40, "are_samples": True}
    assert {len(ranges["layers"])} == {8}


def test_bf16_is_opened_where_no_processor_multiplies_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photographs = copied(tmp_path / "photos", 2)
    lines: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr("alexnet_deploy.runtimes.openvino_runner.native_bf16", lambda: True)
        update_index(tmp_path / "index", photographs, fast=True, notify=lines.append)
    assert any(line.startswith("fast: bf16") for line in lines)
    monkeypatch.setattr("alexnet_deploy.runtimes.openvino_runner.native_bf16", lambda: False)
    query = copy(varied_samples()[0], tmp_path / "query.jpg", behind=b"\0")
    with open_index(tmp_path / "index", notify=lines.append) as index:
        (found,) = index.search(query, k=1)
    assert "CPU has no bf16" in lines[-1]
    assert found.neighbours[0].cosine_similarity == pytest.approx(1, abs=1e-6)
    assert np.isfinite(found.neighbours[0].l2_distance)


def test_what_is_chosen_cannot_be_given_too() -> None:
    for given in ({"precision": "fp32"}, {"decode": "scaled"}):
        with pytest.raises(UsageError, match=r"^fast=True: chooses that; leave it out, or "):
            ModelRequest(fast=True, **given)  # type: ignore[arg-type]
