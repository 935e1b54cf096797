"""The ten crops of the paper, against plain loops over pixels and the NumPy network."""

import dataclasses
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from alexnet_deploy.choices import Runtime
from alexnet_deploy.errors import UsageError
from alexnet_deploy.graph.build import build_model
from alexnet_deploy.inference.run import run
from alexnet_deploy.inference.ten_crop import TenCropRunner, ten_crops
from alexnet_deploy.model.checkpoints import Checkpoint
from alexnet_deploy.model.reference import Reference
from alexnet_deploy.model.spec import PRESETS, ModelSpec
from alexnet_deploy.photographs.preprocessing import preprocess
from alexnet_deploy.runtimes.base import Runner, RunnerOptions
from alexnet_deploy.runtimes.factory import open_runner
from tests.support.fake_runner import FakeRunner
from tests.support.networks import relative_error

SIDE, SIZE = 80, 67
OFFSETS = ((0, 0), (0, 13), (13, 0), (13, 13), (6, 6))  # 6.5 rounds to the even number


@cache
def small_checkpoint() -> Checkpoint:
    """Return the paper's network with 8 kernels a layer, 67 px, and a mean image of 80 px."""
    paper = PRESETS["paper"]
    spec = dataclasses.replace(
        paper,
        input_size=SIZE,
        widths=(8, 8, 8, 8, 8),
        num_classes=7,
        preprocessing=dataclasses.replace(paper.preprocessing, resize_to=SIDE),
    )
    rng = np.random.default_rng(5)
    arrays: dict[str, NDArray[np.float32]] = {}
    for name, shape in spec.array_shapes().items():
        fan_in = np.prod(shape[1:]) if name.endswith("weight") else 100
        arrays[name] = rng.standard_normal(shape, np.float32) * np.float32((2 / fan_in) ** 0.5)
    arrays["conv1.weight"] /= 20  # raw pixels: without this the softmax is 0 and 1
    arrays["mean_image"] = rng.uniform(60, 180, (3, SIDE, SIDE)).astype(np.float32)
    return Checkpoint(spec=spec, arrays=arrays)


def views_by_loops(picture: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Copy the ten views of one picture pixel by pixel."""
    views = []
    for top, left in OFFSETS:
        crop, mirrored = (np.empty((SIZE, SIZE, 3), np.uint8) for _ in range(2))
        for y in range(SIZE):
            for x in range(SIZE):
                crop[y, x] = picture[top + y, left + x]
                mirrored[y, SIZE - 1 - x] = picture[top + y, left + x]
        views += [crop, mirrored]
    return views


def probabilities_by_loops(picture: NDArray[np.uint8]) -> NDArray[Any]:
    """Average the NumPy network over the ten views, the mean's centre subtracted from each."""
    checkpoint = small_checkpoint()
    arrays = dict(checkpoint.arrays)
    centre = arrays.pop("mean_image")[:, 6 : 6 + SIZE, 6 : 6 + SIZE].transpose(1, 2, 0)
    preprocessing = dataclasses.replace(checkpoint.spec.preprocessing, mean=(0.0, 0.0, 0.0))
    spec = dataclasses.replace(checkpoint.spec, preprocessing=preprocessing)
    network = Reference(Checkpoint(spec=spec, arrays=arrays), np.float64)
    total = np.zeros(spec.num_classes)
    for view in views_by_loops(picture):
        centred: Any = view[np.newaxis] - centre.astype(np.float64)
        total += network.run(centred)["probabilities"][0]
    return total / 10


def pictures(count: int) -> NDArray[np.uint8]:
    """Return noise with a gradient of its own in each corner, so that the views differ."""
    rng = np.random.default_rng(7)
    noise = rng.integers(0, 60, (count, SIDE, SIDE, 3), np.uint8)
    y, x = np.mgrid[:SIDE, :SIDE]
    slope = np.stack([2 * x, 2 * y, x + y], axis=-1)
    levels: NDArray[np.uint8] = (noise + slope).astype(np.uint8)
    return levels


def test_the_views_are_the_corners_the_centre_and_their_mirror_images() -> None:
    batch = pictures(3)
    views = list(ten_crops(batch, SIZE))
    assert len(views) == 10
    for number, picture in enumerate(batch):
        for view, expected in zip(views, views_by_loops(picture), strict=True):
            np.testing.assert_array_equal(view[number], expected)
    assert all(view.flags.c_contiguous for view in views)


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_probabilities_are_the_mean_over_the_views_of_the_numpy_network(runtime: Runtime) -> None:
    file = build_model(small_checkpoint(), ("probabilities",))
    batch = pictures(2)
    options = RunnerOptions(runtime=runtime, batch_size=2, outputs=("probabilities",), threads=1)
    with TenCropRunner(open_runner(file, options)) as runner:
        actual = runner.run(batch)["probabilities"]
    expected = np.stack([probabilities_by_loops(picture) for picture in batch])
    assert actual.dtype == np.float32
    assert expected.max() < 0.9, "else an average of logits would look the same"
    # float32 against float64 through eight layers; fp32 parity is held to 1e-4.
    assert relative_error(actual, expected) < 1e-4
    centre_only = Reference(small_checkpoint()).run(batch[:, 6 : 6 + SIZE, 6 : 6 + SIZE])
    assert relative_error(centre_only["probabilities"], expected) > 1e-3


@pytest.mark.parametrize("size", [(300, 200), (201, 333), (259, 256), (90, 700), (64, 64)])
@pytest.mark.parametrize("preset", ["paper", "torchvision"])
def test_the_centre_view_is_the_centre_crop(preset: str, size: tuple[int, int]) -> None:
    spec = PRESETS[preset]
    levels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    photograph = Image.fromarray(levels)
    picture = preprocess(photograph, TenCropRunner(engine_of(spec)).spec)
    assert picture.shape == (256, 256, 3)
    centre = list(ten_crops(picture[np.newaxis], spec.input_size))[8]
    np.testing.assert_array_equal(centre[0], preprocess(photograph, spec))


def engine_of(spec: ModelSpec) -> FakeRunner:
    return FakeRunner(RunnerOptions(batch_size=2, outputs=("probabilities",)), spec)


class CornerEngine(FakeRunner):
    """Its `fc7` is the red of the view's top left pixel, and it counts its runs."""

    num_runs = 0
    num_closed = 0

    def run(self, images: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        self.num_runs += 1
        return super().run(images)

    def close(self) -> None:
        self.num_closed += 1

    def __enter__(self) -> Self:
        return self


def test_it_takes_an_engines_place_and_averages_what_it_returns(tmp_path: Path) -> None:
    levels = np.arange(256, dtype=np.uint8)
    photograph = np.repeat(np.tile(levels, (256, 1))[..., np.newaxis], 3, axis=2)
    Image.fromarray(photograph).save(tmp_path / "a.png")
    inner = CornerEngine(RunnerOptions(batch_size=3, outputs=("fc7",)))
    wrapped: Runner = TenCropRunner(inner)
    with wrapped as runner:
        (result,) = run(runner, [tmp_path / "a.png"], threads=1)
    assert (inner.num_runs, inner.num_closed) == (10, 1)
    assert result.outputs is not None
    # Lefts are 0, 32, 0, 32, 16; the mirror image of each begins 223 px further right.
    lefts = [0, 32, 0, 32, 16]
    expected = sum(left + left + 223 for left in lefts) / 10
    assert result.outputs["fc7"].tolist() == [expected] * 4096
    assert runner.description == "fake runner, 10 crops"


def test_a_batch_of_the_centre_crops_is_refused() -> None:
    with pytest.raises(UsageError, match=r"the runner takes \(1..2, 256, 256, 3\)"):
        TenCropRunner(engine_of(PRESETS["paper"])).run(np.zeros((2, 224, 224, 3), np.uint8))
