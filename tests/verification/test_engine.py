"""Engines against their checkpoints, run by CPU runners in their place; and the amplified copy."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from alexnet_deploy.choices import FilePrecision
from alexnet_deploy.errors import NoPhotographsError
from alexnet_deploy.export.onnx import build_file
from alexnet_deploy.graph.model_file import ModelFile
from alexnet_deploy.graph.plugin_nodes import with_plugins
from alexnet_deploy.graph.report import Check
from alexnet_deploy.model.checkpoints import Checkpoint, load_checkpoint
from alexnet_deploy.model.default import bundled_checkpoint
from alexnet_deploy.model.spec import PRESET_NAMES
from alexnet_deploy.photographs.samples import varied_samples
from alexnet_deploy.runtimes.base import Runner, RunnerOptions
from alexnet_deploy.runtimes.batch_profile import BatchProfile
from alexnet_deploy.runtimes.engine_file import EngineFile
from alexnet_deploy.runtimes.factory import open_runner
from alexnet_deploy.verification import engine as engine_verification
from alexnet_deploy.verification.engine import amplified_checks, verify_engine
from tests.support.cpu_plans import CpuPlan, built
from tests.support.networks import random_checkpoint

OUTPUTS = ("probabilities", "fc7")
FOUR = BatchProfile(min=1, opt=4, max=4)
OPTIONS = RunnerOptions(batch_size=4)
PHOTOGRAPHS = varied_samples()[:3]

Change = Callable[[ModelFile], ModelFile]


@pytest.fixture(scope="module")
def bundled() -> Checkpoint:
    return load_checkpoint(bundled_checkpoint())


@pytest.fixture(autouse=True)
def _on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_verification, "open_engine_file", CpuPlan)


def failed(checks: list[Check]) -> list[str]:
    return [check.name for check in checks if not check.passed]


def unchanged(file: ModelFile) -> ModelFile:
    return file


def across_towers(file: ModelFile) -> ModelFile:
    """Let every window reach into the other tower; the graph is as valid as before."""
    arrays = dict(file.arrays)
    for name in ("norm1_towers_shape", "norm2_towers_shape"):
        arrays[name] = arrays[name] * np.array([1, 2, 1, 1])
    return dataclasses.replace(file, arrays=arrays)


def with_lrn(file: ModelFile, name: str, value: float) -> ModelFile:
    graph = type(file.graph)()
    graph.CopyFrom(file.graph)
    for node in graph.graph.node:
        for attribute in node.attribute:
            if node.op_type == "LRN" and attribute.name == name:
                if attribute.HasField("i"):
                    attribute.i = int(value)
                else:
                    attribute.f = value
    return dataclasses.replace(file, graph=graph)


def narrower_window(file: ModelFile) -> ModelFile:
    return with_lrn(file, "size", 3)


def alpha_of_the_sum(file: ModelFile) -> ModelFile:
    """Not divided by the size of the window."""
    return with_lrn(file, "alpha", 5e-4)


def test_an_engine_that_computes_what_its_checkpoint_does_passes(bundled: Checkpoint) -> None:
    seen: list[tuple[Path, str | None]] = []
    engine = built(with_plugins(build_file(bundled, OUTPUTS, "fp32")), FOUR)
    report = verify_engine(engine, bundled, PHOTOGRAPHS, OPTIONS, lambda *told: seen.append(told))
    assert report.passed
    assert report.num_photographs == 3
    assert report.runs == "tensorrt on NVIDIA Fake 100, fp32"
    assert report.against == bundled.identity
    assert seen == [(path, None) for path in PHOTOGRAPHS]
    names = [check.name for check in report.checks]
    assert names[:2] == ["spec", "identity"]
    for part in ("probabilities, largest error", "fc7, relative error", "FC7 cosine", "top-1"):
        assert any(part in name for name in names)


def test_every_layer_that_an_engine_computes_is_compared(bundled: Checkpoint) -> None:
    outputs = ("pool1", "conv3", "logits")
    engine = built(build_file(bundled, outputs, "fp32"), FOUR)
    report = verify_engine(engine, bundled, PHOTOGRAPHS, OPTIONS)
    assert report.passed
    names = {check.name for check in report.checks}
    assert {f"{name}, relative error" for name in outputs} <= names


def test_an_engine_of_another_checkpoint_fails_by_its_name_and_by_its_numbers(
    bundled: Checkpoint,
) -> None:
    arrays = dict(bundled.arrays)
    arrays["fc8.weight"] = arrays["fc8.weight"][::-1].copy()
    other = dataclasses.replace(bundled, arrays=arrays)
    engine = built(build_file(other, OUTPUTS, "fp32"), FOUR)
    report = verify_engine(engine, bundled, PHOTOGRAPHS, OPTIONS)
    assert {"identity", "probabilities, largest error"} <= set(failed(list(report.checks)))


def test_an_engine_of_another_architecture_is_not_run(bundled: Checkpoint) -> None:
    engine = built(build_file(random_checkpoint("caffe"), OUTPUTS, "fp32"), FOUR)
    report = verify_engine(engine, bundled, PHOTOGRAPHS, OPTIONS)
    assert not report.passed
    assert (report.runs, report.num_photographs) == ("not run", 0)


def test_photographs_that_cannot_be_read_are_named(bundled: Checkpoint, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"<html>")
    engine = built(build_file(bundled, OUTPUTS, "fp32"), FOUR)
    report = verify_engine(engine, bundled, [bad, *PHOTOGRAPHS], OPTIONS)
    assert report.passed
    assert len(report.skipped) == 1
    with pytest.raises(NoPhotographsError, match=r"bad\.jpg"):
        verify_engine(engine, bundled, [bad], OPTIONS)


class WrongInOneBatch(CpuPlan):
    """Spoils the last image of batches of one size; which sizes were opened is in `opened`."""

    opened: ClassVar[list[int]] = []
    wrong_size = 0
    spoiled = np.float32(0)

    def run(self, images: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        size = self.options.batch_size
        self.opened.append(size)
        outputs = {name: values.copy() for name, values in super().run(images).items()}
        if size == self.wrong_size:
            outputs["fc7"][-1, 0] = self.spoiled
        return outputs


@pytest.mark.parametrize(("wrong_size", "spoiled"), [(1, 1e3), (3, np.nan), (8, 1e3)])
def test_every_batch_of_the_profile_is_compared_image_by_image(
    bundled: Checkpoint, monkeypatch: pytest.MonkeyPatch, wrong_size: int, spoiled: float
) -> None:
    """Asked for is one of 2; the photographs are read once, in these."""
    monkeypatch.setattr(engine_verification, "open_engine_file", WrongInOneBatch)
    monkeypatch.setattr(WrongInOneBatch, "opened", [])
    monkeypatch.setattr(WrongInOneBatch, "wrong_size", wrong_size)
    monkeypatch.setattr(WrongInOneBatch, "spoiled", np.float32(spoiled))
    seen: list[Path] = []
    engine = built(build_file(bundled, OUTPUTS, "fp32"), BatchProfile(min=1, opt=3, max=8))
    options = RunnerOptions(batch_size=2)
    report = verify_engine(
        engine, bundled, PHOTOGRAPHS, options, lambda path, error: seen.append(path)
    )
    assert WrongInOneBatch.opened == [2, 2, 1, 3, 8]
    assert failed(list(report.checks)) == [f"batches of {wrong_size}, largest error of a layer"]
    assert seen == [*PHOTOGRAPHS]


def test_a_batch_that_was_run_on_photographs_is_not_run_again(
    bundled: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that ran, where another was asked for in vain."""
    monkeypatch.setattr(engine_verification, "open_engine_file", WrongInOneBatch)
    monkeypatch.setattr(WrongInOneBatch, "opened", [])
    engine = built(build_file(bundled, OUTPUTS, "fp32"), BatchProfile(min=2, opt=2, max=2))
    options = RunnerOptions(batch_size=32, exact_batch=False)
    report = verify_engine(engine, bundled, PHOTOGRAPHS[:1], options)
    assert report.passed
    assert WrongInOneBatch.opened == [2]


def test_on_photographs_a_window_across_towers_does_not_show(bundled: Checkpoint) -> None:
    """So small are the squares of this network; without the amplified copy it would pass."""
    engine = built(across_towers(build_file(bundled, OUTPUTS, "fp32")), FOUR)
    assert verify_engine(engine, bundled, PHOTOGRAPHS, OPTIONS).passed


def amplified_on_the_cpu(
    file: ModelFile, change: Change, monkeypatch: pytest.MonkeyPatch
) -> list[Check]:
    """Check a copy that was changed; OpenVINO runs bf16, which ONNX Runtime does not."""
    copies: list[ModelFile] = []

    def build(copy: ModelFile, profile: BatchProfile) -> EngineFile:
        copies.append(change(copy))
        return built(copies[0], profile)

    def open_copy(file: EngineFile, options: RunnerOptions) -> Runner:
        return open_runner(copies[0], dataclasses.replace(options, runtime="openvino"))

    if file.precision == "bf16":
        monkeypatch.setattr(engine_verification, "open_engine_file", open_copy)
    return amplified_checks(file, build)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_an_amplified_copy_of_a_right_engine_passes(
    bundled: Checkpoint, precision: FilePrecision, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = amplified_on_the_cpu(build_file(bundled, OUTPUTS, precision), unchanged, monkeypatch)
    assert [check.name for check in checks] == [
        "pool1 amplified, relative error",
        "pool1 amplified, the same at tower edges",
        "pool2 amplified, relative error",
        "pool2 amplified, the same at tower edges",
    ]
    assert failed(checks) == []


@pytest.mark.parametrize(
    ("precision", "change"),
    [
        *(("fp32", change) for change in (across_towers, narrower_window, alpha_of_the_sum)),
        # The faintest of the three, in the precisions that round most.
        *((precision, across_towers) for precision in ("fp16", "bf16")),
    ],
)
def test_an_amplified_copy_of_a_wrong_engine_fails(
    bundled: Checkpoint,
    precision: FilePrecision,
    change: Change,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checks = amplified_on_the_cpu(build_file(bundled, OUTPUTS, precision), change, monkeypatch)
    assert {name.split()[0] for name in failed(checks)} == {"pool1", "pool2"}


def operators(file: EngineFile) -> list[str]:
    graph = onnx.load_model_from_string(file.plan).graph
    return [node.op_type for node in graph.node if node.domain == "alexnet"]


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        (OUTPUTS, ["ReluTowerLRNPool"] * 2),
        (("norm1", "fc7"), ["TowerLRN", "ReluTowerLRNPool"]),
        (("conv2", "conv1"), ["TowerLRN"] * 2),
    ],
)
def test_the_copy_has_the_plugins_that_the_engine_has(
    bundled: Checkpoint, outputs: tuple[str, ...], expected: list[str]
) -> None:
    engines: list[EngineFile] = []

    def build(copy: ModelFile, profile: BatchProfile) -> EngineFile:
        assert profile == BatchProfile(min=2, opt=2, max=2)
        engines.append(built(with_plugins(copy), profile))
        return engines[-1]

    file = build_file(bundled, outputs, "fp32")
    assert failed(amplified_checks(file, build)) == []
    assert operators(engines[0]) == operators(built(with_plugins(file), FOUR)) == expected


@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_every_preset_has_its_own_maps_and_none_without_normalization(preset: str) -> None:
    checks = amplified_checks(build_file(random_checkpoint(preset), OUTPUTS, "fp32"), built)
    maps = [check.name.split()[0] for check in checks[::2]]
    after_pool = ["norm1", "norm2"]
    expected = {"caffenet": after_pool, "caffenet-224": after_pool, "torchvision": []}
    assert maps == expected.get(preset, ["pool1", "pool2"])
    assert failed(checks) == []
