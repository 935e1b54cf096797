"""An int8 graph computes what its scales say; which scales, calibration decides."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from alexnet_deploy.choices import Runtime
from alexnet_deploy.errors import IncompatibleFileError, NoPhotographsError
from alexnet_deploy.export.calibration import calibrated_ranges, quantized
from alexnet_deploy.graph.build import build_model
from alexnet_deploy.graph.casting import cast_model
from alexnet_deploy.graph.lowering import Norm, find_norms
from alexnet_deploy.graph.model_file import ModelFile, write_model
from alexnet_deploy.graph.quantization import (
    Histogram,
    dequantize_model,
    input_threshold,
    quantize_model,
    quantized_tensors,
)
from alexnet_deploy.graph.reading import read_model
from alexnet_deploy.model.calibrated import Calibration
from alexnet_deploy.model.checkpoints import Checkpoint, load_checkpoint
from alexnet_deploy.model.default import bundled_checkpoint
from alexnet_deploy.model.reference import Reference
from alexnet_deploy.model.spec import PRESET_NAMES
from alexnet_deploy.photographs.samples import varied_samples
from alexnet_deploy.runtimes.base import RunnerOptions
from alexnet_deploy.runtimes.factory import open_runner
from alexnet_deploy.verification.onnx import verify
from tests.support.networks import noise, random_checkpoint, relative_error
from tests.support.torch_network import torch_layers


def thresholds(checkpoint: Checkpoint, images: np.ndarray) -> dict[str, float]:
    """Return for each tensor the largest magnitude that it has on `images`."""
    file = build_model(checkpoint, ("fc7",))
    layers = Reference(checkpoint).run(images)
    return {
        x: float(np.abs(layers[layer]).max()) if layer in layers else input_threshold(file)
        for x, layer in quantized_tensors(file).items()
    }


def in_torch(
    checkpoint: Checkpoint, images: np.ndarray, ranges: dict[str, float], first: int
) -> dict[str, np.ndarray]:
    """Compute the network whose weight layers from number `first` on are rounded, by torch."""
    names = (*(f"conv{number}" for number in range(1, 6)), "fc6", "fc7", "fc8")
    by_layer = dict(zip(names[first - 1 :], ranges.values(), strict=False))
    changed = dict(checkpoint.arrays)
    for name, array in checkpoint.arrays.items():
        if name.split(".")[0] in by_layer and name.endswith(("weight", "weight.right")):
            weight = torch.from_numpy(array.astype(np.float32))
            scale = weight.flatten(1).abs().amax(1) / 127
            changed[name] = torch.fake_quantize_per_channel_affine(
                weight, scale, torch.zeros(len(scale), dtype=torch.int32), 0, -127, 127
            ).numpy()

    def round_input(layer: str, x: torch.Tensor) -> torch.Tensor:
        if layer not in by_layer:
            return x
        scale = float(np.float32(by_layer[layer] / 127))
        return torch.fake_quantize_per_tensor_affine(x.float(), scale, 0, -128, 127).to(x.dtype)

    rounded = Checkpoint(spec=checkpoint.spec, arrays=changed)
    return torch_layers(rounded, images, torch.float64, round_input)


@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_what_is_rounded_and_what_is_not(preset: str) -> None:
    checkpoint = random_checkpoint(preset)
    file = build_model(checkpoint, ("probabilities", "fc7"))
    tensors = quantized_tensors(file)
    assert len(tensors) == 8, "conv1 to conv5, and the first factor of fc6 and fc7, and fc8"
    narrow = quantize_model(file, dict.fromkeys(tensors, 1.0))
    onnx.checker.check_model(narrow.to_bytes(), full_check=True)
    producer = {output: node for node in narrow.graph.graph.node for output in node.output}
    for node in narrow.graph.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            kinds = {producer[x].op_type if x in producer else "" for x in node.input[:2]}
            second_factor = node.input[1].endswith(".left")
            assert ("DequantizeLinear" in kinds) != second_factor, node.name
            assert kinds == {"DequantizeLinear"} or second_factor, node.name
    for name, array in narrow.arrays.items():
        if name.endswith("_int8"):
            assert array.dtype == np.int8
            # -128 has no opposite, and TensorRT wants symmetric weights.
            assert np.abs(array.astype(int)).reshape(len(array), -1).max(1).tolist() == [127] * len(
                array
            )
    assert {np.dtype(np.int8)} == {narrow.arrays["int8_zero"].dtype}
    assert not narrow.arrays["int8_zero"].any()


def run(file: ModelFile, runtime: str, images: np.ndarray) -> dict[str, np.ndarray]:
    if runtime == "as written":
        from alexnet_deploy.runtimes.onnxruntime_runner import run_as_written

        return dict(run_as_written(file, images))
    options = RunnerOptions(
        runtime=cast(Runtime, runtime), batch_size=len(images), outputs=file.outputs()
    )
    with open_runner(file, options) as runner:
        assert runner.options.precision == "int8"
        return dict(runner.run(images))


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime", "as written"])
@pytest.mark.parametrize("preset", ["paper", "caffenet"])
@pytest.mark.parametrize(
    ("first", "last", "layers"),
    [(1, 5, ("conv1", "pool1", "conv3", "pool5")), (6, 8, ("fc6", "fc7", "logits"))],
    ids=["conv1 to conv5", "fc6 to fc8"],
)
def test_an_int8_graph_computes_what_torch_computes_with_the_same_scales(
    preset: str, runtime: str, first: int, last: int, layers: tuple[str, ...]
) -> None:
    checkpoint = random_checkpoint(preset)
    images = noise(checkpoint.spec, 2)
    ranges = dict(list(thresholds(checkpoint, images).items())[first - 1 : last])
    actual = run(quantize_model(build_model(checkpoint, layers), ranges), runtime, images)
    expected = in_torch(checkpoint, images, ranges, first)
    plain = Reference(checkpoint).run(images)
    for layer in layers:
        # A value half-way between two steps goes to either by float32's rounding before it: one
        # step of 127 for a few values of a layer, which the next layers mix into all of theirs.
        cost = relative_error(plain[layer], expected[layer])
        assert relative_error(actual[layer], expected[layer]) < cost / 4, layer
        assert cost > 1e-4, "there is something to see"


@pytest.mark.parametrize("tensor", ["input", "pool1", "conv3", "flat", "fc7"])
def test_one_scale_that_is_off_by_a_tenth_shows(tensor: str) -> None:
    """The bound of the test above is no rubber."""
    checkpoint = random_checkpoint("paper")
    images = noise(checkpoint.spec, 1)
    ranges = thresholds(checkpoint, images)
    first = list(ranges).index(tensor) + 1
    right = {tensor: ranges[tensor]}
    wrong = quantize_model(build_model(checkpoint, ("logits",)), {tensor: ranges[tensor] * 0.9})
    expected = in_torch(checkpoint, images, right, first)["logits"]
    cost = relative_error(Reference(checkpoint).run(images)["logits"], expected)
    assert relative_error(run(wrong, "as written", images)["logits"], expected) > cost / 4


def test_a_dense_network_is_rounded_in_every_layer() -> None:
    checkpoint = random_checkpoint("paper", factored=False)
    file = build_model(checkpoint, ("fc7",))
    narrow = quantize_model(file, dict.fromkeys(quantized_tensors(file), 1.0))
    for layer in ("fc6", "fc7", "fc8"):
        assert narrow.arrays[f"{layer}.weight_int8"].dtype == np.int8
    stored = sum(array.nbytes for array in narrow.arrays.values())
    assert stored < 0.26 * sum(array.nbytes for array in file.arrays.values())


def test_a_channel_of_zeros_stays_zero() -> None:
    checkpoint = random_checkpoint("paper")
    dead = checkpoint.arrays["conv4.weight"].copy()
    dead[7] = 0
    checkpoint = Checkpoint(
        spec=checkpoint.spec, arrays=dict(checkpoint.arrays) | {"conv4.weight": dead}
    )
    file = build_model(checkpoint, ("fc7",))
    narrow = quantize_model(file, dict.fromkeys(quantized_tensors(file), 1.0))
    weights = narrow.weights().arrays["conv4.weight"]
    assert np.isfinite(weights).all()
    assert not weights[7].any()


def test_the_scale_of_values_next_to_nothing_is_not_zero() -> None:
    checkpoint = random_checkpoint("paper")
    faint = checkpoint.arrays["conv4.weight"].copy()
    faint[7] = 1e-44
    checkpoint = Checkpoint(
        spec=checkpoint.spec, arrays=dict(checkpoint.arrays) | {"conv4.weight": faint}
    )
    file = build_model(checkpoint, ("fc7",))
    narrow = quantize_model(file, dict.fromkeys(quantized_tensors(file), 1e-44))
    scales = [array for name, array in narrow.arrays.items() if name.endswith("_scale")]
    assert all((scale > 0).all() for scale in scales)
    assert not narrow.weights().arrays["conv4.weight"][7].any()


def test_only_float32_graphs_are_quantized() -> None:
    file = cast_model(build_model(random_checkpoint("paper"), ("fc7",)), "fp16")
    with pytest.raises(IncompatibleFileError, match=r'is fp16, .*precision="int8"'):
        quantize_model(file, {})


@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_without_its_rounding_the_graph_is_the_old_one(preset: str) -> None:
    file = build_model(random_checkpoint(preset), ("probabilities", "pool1"))
    narrow = quantize_model(file, dict.fromkeys(quantized_tensors(file), 1.0))
    wide = dequantize_model(narrow)
    assert wide.graph == file.graph
    assert wide.arrays.keys() == file.arrays.keys()
    assert wide.precision == "int8"
    for name, array in file.arrays.items():
        step = np.abs(array).max() / 127 if array.dtype == np.float32 else 0
        assert np.abs(wide.arrays[name] - array).max() <= step / 2 * 1.001, name


@pytest.fixture(scope="module")
def bundled() -> Checkpoint:
    return load_checkpoint(bundled_checkpoint())


@pytest.fixture(scope="module")
def int8_file(bundled: Checkpoint) -> ModelFile:
    file = build_model(bundled, ("probabilities", "fc7"))
    return quantized(file, calibrated_ranges(file, varied_samples()[::2], RunnerOptions()))


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_the_bundled_network_in_int8_is_verified(
    bundled: Checkpoint, int8_file: ModelFile, runtime: Runtime, tmp_path: Path
) -> None:
    write_model(int8_file, tmp_path / "m.onnx")
    file = read_model(tmp_path / "m.onnx")
    assert file.precision == "int8"
    assert file.calibration == Calibration(photographs=20, are_samples=True)
    assert file.is_unchanged()
    report = verify(file, bundled, varied_samples()[1:4], RunnerOptions(runtime=runtime))
    assert report.passed, report.table()
    assert "norm2 amplified, relative error" in [check.name for check in report.checks]


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_an_int8_network_that_normalizes_across_towers_fails(
    bundled: Checkpoint,
    int8_file: ModelFile,
    runtime: Runtime,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is amplified goes through the same lowering as the file itself."""

    def without_towers(file: ModelFile) -> list[Norm]:
        return [dataclasses.replace(norm, towers=1) for norm in find_norms(file)]

    monkeypatch.setattr("alexnet_deploy.graph.lowering.find_norms", without_towers)
    report = verify(int8_file, bundled, varied_samples()[:2], RunnerOptions(runtime=runtime))
    failed = [check.name for check in report.checks if not check.passed]
    assert failed, report.table()
    assert all("amplified" in name for name in failed)


@pytest.mark.parametrize(
    ("fault", "failed"),
    [
        (lambda a: {"conv3.weight_int8": np.roll(a["conv3.weight_int8"], 1, 0)}, "weights"),
        (lambda a: {"conv3.weight_scale": a["conv3.weight_scale"] * np.float32(1.01)}, "weights"),
        (lambda a: {"conv3_scale": a["conv3_scale"] / np.float32(8)}, "FC7 cosine"),
        (lambda a: {"pool1_scale": a["pool1_scale"] * np.float32(30)}, "FC7 cosine"),
    ],
)
def test_wrong_numbers_in_an_int8_file_fail(
    bundled: Checkpoint,
    int8_file: ModelFile,
    fault: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]],
    failed: str,
) -> None:
    changed = dict(int8_file.arrays) | fault(dict(int8_file.arrays))
    file = dataclasses.replace(int8_file, arrays=changed)
    report = verify(file, bundled, varied_samples()[:3], RunnerOptions(runtime="onnxruntime"))
    names = [check.name for check in report.checks if not check.passed]
    assert any(name.startswith(failed) for name in names), report.table()


def test_what_cannot_be_read_is_left_out_of_the_ranges_and_named(
    bundled: Checkpoint, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no photograph")
    file = build_model(bundled, ("fc7",))
    lines: list[str] = []
    ranges = calibrated_ranges(file, [*varied_samples()[:2], bad], RunnerOptions(), lines.append)
    assert lines[0].startswith(f"not calibrated on {bad}: ")
    assert lines[1:] == ["int8: calibrated on few photographs (2); a few hundred are better"]
    assert ranges.calibration == Calibration(photographs=2, are_samples=False)
    with pytest.raises(NoPhotographsError, match="2 of 3 photographs could not be read"):
        calibrated_ranges(file, [varied_samples()[0], bad, bad], RunnerOptions())


def test_a_network_that_is_not_finite_has_no_ranges(bundled: Checkpoint) -> None:
    bias = bundled.arrays["fc6.bias"].astype(np.float32)
    bias[0] = np.inf
    broken = Checkpoint(spec=bundled.spec, arrays=dict(bundled.arrays) | {"fc6.bias": bias})
    with pytest.raises(IncompatibleFileError, match=r"layer fc6: not finite on one of"):
        calibrated_ranges(build_model(broken, ("fc7",)), varied_samples()[:1], RunnerOptions())


def cost(values: np.ndarray, threshold: float) -> float:
    step = threshold / 127
    rounded = np.minimum(np.rint(np.abs(values) / step), 127) * step
    return float(((np.abs(values) - rounded) ** 2).sum())


@given(
    batches=st.lists(
        arrays(np.float32, st.integers(1, 300), elements=st.floats(-1e6, 1e6, width=32)),
        min_size=1,
        max_size=4,
    )
)
# In float32 a bin of the first is 0 wide, and 4,096 of the second do not reach its largest.
@example(batches=[np.array([2.818e-42], np.float32)])
@example(batches=[np.array([7e-42, 1e-45], np.float32), np.array([3], np.float32)])
def test_a_threshold_lies_within_the_values_and_costs_no_more_than_the_largest(
    batches: list[np.ndarray],
) -> None:
    histogram = Histogram()
    for batch in batches:
        histogram.add(batch)
    values = np.abs(np.concatenate(batches)).astype(np.float64)
    threshold, largest = histogram.threshold(), float(values.max())
    if largest == 0:
        assert threshold == 1
        return
    # The end of the largest value's bin. A width doubles when 4,096 bins do not reach, and is
    # then at most 1/2,048 of what made it double; 1e-9 is for float64's rounding.
    bin_width = largest / 2048
    assert 0 < threshold <= (largest + bin_width) * (1 + 1e-9)
    # The search sees a value at its bin's centre, half a bin away at most, with either threshold,
    # and as the largest value that bin's end, which moves the steps by one bin at most.
    apart = 2 * bin_width * values.size**0.5
    assert cost(values, threshold) ** 0.5 <= cost(values, largest) ** 0.5 + apart * (1 + 1e-9)


def test_a_threshold_is_as_good_as_any_other() -> None:
    """Against a plain search through 400 thresholds, on values with a long tail."""
    values = np.random.default_rng(0).laplace(size=200_000).astype(np.float32)
    histogram = Histogram()
    for part in np.split(values, 10):
        histogram.add(part)
    largest = float(np.abs(values).max())
    best = min(cost(values, largest * share) for share in np.linspace(0.05, 1, 400))
    assert histogram.threshold() < 0.8 * largest
    # Bins of 1/4096 and steps of 1/200 of the search.
    assert cost(values, histogram.threshold()) < 1.01 * best
