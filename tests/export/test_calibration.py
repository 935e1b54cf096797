"""Which photographs the ranges of an int8 file come from, and how they are read."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from alexnet_deploy.errors import IncompatibleFileError, NoPhotographsError
from alexnet_deploy.export import calibration
from alexnet_deploy.export.calibration import MAX_PHOTOGRAPHS, calibrated_ranges, quantized
from alexnet_deploy.export.onnx import build_file
from alexnet_deploy.graph.build import build_model
from alexnet_deploy.graph.model_file import ModelFile, write_model
from alexnet_deploy.graph.reading import read_model
from alexnet_deploy.model.calibrated import Calibration
from alexnet_deploy.photographs import pipeline
from alexnet_deploy.photographs.samples import varied_samples
from alexnet_deploy.runtimes.base import RunnerOptions
from tests.support.networks import random_checkpoint


class _Runner:
    """Computes nothing; every activation is 1."""

    def __init__(self, file: ModelFile, options: RunnerOptions) -> None:
        self.spec, self.options = file.spec, options

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        shapes = self.spec.layer_shapes()
        return {name: np.ones((len(images), *shapes[name])) for name in self.options.outputs}


@contextmanager
def _opened(file: ModelFile, options: RunnerOptions) -> Iterator[_Runner]:
    yield _Runner(file, options)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Open runners that compute nothing; return what each call of `batches` was asked for."""
    calls: list[dict[str, Any]] = []

    def batches(paths: list[Path], *arguments: Any, **options: Any) -> Any:
        calls.append({"paths": list(paths), **options})
        return pipeline.batches(paths[:3], *arguments, **options)

    monkeypatch.setattr(calibration, "open_runner", _opened)
    monkeypatch.setattr(calibration, "batches", batches)
    return calls


@pytest.fixture(scope="module")
def file() -> ModelFile:
    return build_model(random_checkpoint("paper"), ("fc7",))


def test_of_many_photographs_those_at_equal_distances_are_taken(
    file: ModelFile, read: list[dict[str, Any]], tmp_path: Path
) -> None:
    photograph = tmp_path / "a.png"
    Image.new("RGB", (300, 300)).save(photograph)
    paths = [Path(tmp_path, ".", f"../{tmp_path.name}/a.png") for _ in range(2 * MAX_PHOTOGRAPHS)]
    paths[1::2] = [varied_samples()[0]] * MAX_PHOTOGRAPHS
    calibrated_ranges(file, paths, RunnerOptions(batch_size=2))
    assert read[0]["paths"] == paths[::2]


def test_decoding_takes_the_threads_that_were_asked_for(
    file: ModelFile, read: list[dict[str, Any]]
) -> None:
    calibrated_ranges(file, varied_samples()[:1], RunnerOptions(batch_size=2, threads=3))
    assert read[0]["threads"] == 3


def test_without_a_photograph_there_is_nothing_to_calibrate_on(file: ModelFile) -> None:
    with pytest.raises(
        NoPhotographsError, match=r"no photographs; name a few hundred with calibrate_on"
    ):
        calibrated_ranges(file, [], RunnerOptions())


@pytest.mark.usefixtures("read")
def test_a_few_photographs_of_ones_own_are_called_few(tmp_path: Path) -> None:
    checkpoint = random_checkpoint("paper")
    Image.new("RGB", (300, 300)).save(tmp_path / "a.png")
    lines: list[str] = []
    file = build_file(checkpoint, ("fc7",), "int8", [tmp_path / "a.png"], notify=lines.append)
    assert file.calibration == Calibration(photographs=1, are_samples=False)
    assert lines == ["int8: calibrated on few photographs (1); a few hundred are better"]


@pytest.mark.usefixtures("read")
def test_the_file_says_what_it_was_calibrated_on_and_nobody_can_change_that(
    file: ModelFile, tmp_path: Path
) -> None:
    ranges = calibrated_ranges(file, varied_samples()[:2], RunnerOptions(batch_size=2))
    narrow = quantized(file, ranges)
    write_model(narrow, tmp_path / "m.onnx")
    again = read_model(tmp_path / "m.onnx")
    assert again.calibration == Calibration(photographs=2, are_samples=True)
    assert again.is_unchanged()
    more = Calibration(photographs=2000, are_samples=False)
    assert not dataclasses.replace(again, calibration=more).is_unchanged()
    assert not dataclasses.replace(again, precision="fp32").is_unchanged()


@pytest.mark.usefixtures("read")
@pytest.mark.parametrize(
    ("old", "new"),
    [(b'"photographs": 2', b'"photographs":[]'), (b'"are_samples"', b'"are_simples"')],
)
def test_a_damaged_calibration_is_refused(
    file: ModelFile, tmp_path: Path, old: bytes, new: bytes
) -> None:
    ranges = calibrated_ranges(file, varied_samples()[:2], RunnerOptions(batch_size=2))
    narrow = quantized(file, ranges)
    content = b"".join(bytes(chunk) for chunk in narrow.chunks())
    assert content.count(old) == 1
    assert len(old) == len(new)
    (tmp_path / "m.onnx").write_bytes(content.replace(old, new))
    with pytest.raises(IncompatibleFileError, match="damaged"):
        read_model(tmp_path / "m.onnx")
