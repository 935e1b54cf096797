"""Verify that a model file computes what its checkpoint does, measured on photographs.

The file runs as it will be served: with its own spec's preprocessing, the chosen runtime and the
lowered graph. It is compared with `reference`, which shares the decoded photograph and the weights
as read, and none of the code in between. The checks:

- the file: its spec, identity and weights against the checkpoint's, its content, labels
  included, against the hash written at export; ONNX's own check; and its graph as written, not
  lowered, run by ONNX Runtime;
- photographs: the crops, each exported layer and the logits (largest relative error of any
  photograph), the FC7 cosine, and the top-1 class where the reference is sure of it;
- amplified: conv1 and conv2 scaled so that their largest activation is 1000, and the normalized
  maps compared. With inputs of unit scale the squares that LRN sums are so small that a window
  across the tower edge changes the logits by a few millionths; it changes the amplified map by more
  than a percent.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy import installed
from alexnet_deploy.choices import FilePrecision
from alexnet_deploy.errors import Argument, Message
from alexnet_deploy.graph.model_file import ModelFile, check_onnx, narrow_name, scale_name
from alexnet_deploy.graph.quantization import dequantize_model
from alexnet_deploy.graph.report import ADVICE, Check, Report, error_check
from alexnet_deploy.model.checkpoints import Checkpoint
from alexnet_deploy.model.reference import Reference
from alexnet_deploy.model.spec import ModelSpec
from alexnet_deploy.runtimes.base import RunnerOptions
from alexnet_deploy.runtimes.factory import open_runner
from alexnet_deploy.verification.comparison import TOLERANCES, Comparison, compare, relative_error

Array = NDArray[Any]

AMPLIFIED_PEAK = 1000.0
# ONNX Runtime moves the window of its LRN along by subtracting what leaves it from the sum of
# squares: on random maps, 1.28 is off by 6e-7 where they reach 1e3, by 4e-5 at 1e4, 1e-2 at 1e5 and
# 0.1 at 1e6.
_INEXACT_FROM = 1e4
_INEXACT = ", whose LRN is inexact at activations of"
_INEXACT_ADVICE = Message(
    "the file is right, and the runners of this package compute it so, but ONNX Runtime's own "
    "normalization loses digits at activations as large as these, and gives other programs other "
    "results; to write it all the same, leave out its verification: ",
    Argument("photographs"),
)
_INT8_ADVICE = Message(
    "do not use this file: calibrate on a few hundred photographs like those to come, with ",
    Argument("calibrate_on"),
    ", or take another precision",
)
# Tolerances for the amplified maps, after two layers of rounding: float32 measures 1e-6, bfloat16
# 3.2e-3 and float16, with three more bits, an eighth of that. A window across the edge of a tower
# measures 8e-3 (pool2) and 2.3e-2 (pool1) beside the edges. int8 is compared without rounding.
_MAP_TOLERANCES = {"fp32": 1e-4, "fp16": 1e-3, "bf16": 6e-3, "int8": 1e-4}


def verify(
    file: ModelFile,
    checkpoint: Checkpoint | None,
    photographs: Iterable[Path],
    options: RunnerOptions,
    on_photograph: Callable[[Path, str | None], None] = lambda path, error: None,
) -> Report:
    """Run `file` and the reference on `photographs` and compare, in constant memory.

    Args:
        file: the artefact.
        checkpoint: what it should compute; None compares the file with its own weights, vouched for
            by its content hash.
        photographs: paths; unreadable ones are skipped and named in the report.
        options: how to run the artefact; `outputs` is replaced by the layers compared.
        on_photograph: called after each photograph, with the reason if it was skipped.

    Returns:
        The report. If the layers differ in shape, it says so and nothing is run.

    Raises:
        NoPhotographsError: no photograph could be read.
        DeviceError: the runtime or precision is not available.
    """
    checks = _file_checks(file, checkpoint)
    model = file.weights() if checkpoint is None else checkpoint
    identity = file.identity if checkpoint is None else checkpoint.identity
    if not same_architecture(file.spec, model.spec):
        return Report(checks=tuple(checks), runs="not run", against=identity, num_photographs=0)
    compared = ("logits", "fc7", "probabilities") if file.spec.has_head else ("fc7",)
    layers = tuple(dict.fromkeys((*file.outputs(), *compared)))
    with open_runner(file, dataclasses.replace(options, outputs=layers)) as runner:
        comparison = Comparison(Reference(model), layers, runner.options.precision)
        skipped = compare(runner, photographs, comparison, on_photograph)
        runs = runner.description
        # The amplified copy must run where the file ran, not where "auto" would choose.
        options = dataclasses.replace(
            options, runtime=runner.options.runtime, device=runner.options.device
        )
    checks += comparison.checks()
    checks += _as_written_checks(file, model, np.stack(comparison.kept))
    checks += _amplified_checks(file, np.stack(comparison.kept), options)
    return Report(
        checks=tuple(checks),
        runs=runs,
        against=identity,
        num_photographs=comparison.num_photographs,
        skipped=skipped,
    )


def _equality_check(name: str, different: Sequence[str]) -> Check:
    """Return a check that nothing differs, or that names what does."""
    listed = ", ".join(different[:3]) + (", ..." if len(different) > 3 else "")
    return Check(
        name=name,
        measured=f"other {listed}" if different else "equal",
        allowed="equal",
        passed=not different,
    )


def _file_checks(file: ModelFile, checkpoint: Checkpoint | None) -> list[Check]:
    """Check everything that needs no inference."""
    unchanged, onnx = file.is_unchanged(), check_onnx(file)
    checks = [
        Check(
            name="content since the export",
            measured="unchanged" if unchanged else "changed",
            allowed="unchanged",
            passed=unchanged,
        ),
        Check(name="ONNX full check", measured=onnx, allowed="valid", passed=onnx == "valid"),
    ]
    if checkpoint is None:
        return checks
    changed = [
        name
        for name, array in checkpoint.arrays.items()
        if name != "mean_image"  # only its centre crop is in the file, as the mean
        and not _is_rounded(file, name, array.astype(np.float32))
    ]
    if not np.array_equal(file.arrays["mean"][0], checkpoint.mean().astype(np.float32)):
        changed.append("mean")
    return [
        *checks,
        *identity_checks(
            file.spec,
            file.identity if file.precision == "fp32" else file.checkpoint_identity,
            checkpoint,
        ),
        _equality_check("weights, bit for bit", changed),
    ]


def identity_checks(spec: ModelSpec, identity: str, checkpoint: Checkpoint) -> list[Check]:
    """Check that an artefact's spec and identity are the checkpoint's."""
    ours, theirs = spec.result_fields(), checkpoint.spec.result_fields()
    different = [name for name in theirs if ours[name] != theirs[name]]
    if spec.num_classes != checkpoint.spec.num_classes:
        different.append("num_classes")
    others = [] if identity == checkpoint.identity else ["checkpoint"]
    return [_equality_check("spec", different), _equality_check("identity", others)]


def _is_rounded(file: ModelFile, name: str, array: Array) -> bool:
    """Return whether the file holds `array` in its own precision, bit for bit.

    The formula of `quantization` is repeated here, so that a bug in it shows.
    """
    narrow = file.arrays.get(narrow_name(name, "int8"))
    if narrow is None:
        stored = file.arrays.get(name, np.empty(0))
        return np.array_equal(stored, array.astype(stored.dtype))
    if narrow.shape != array.shape:
        return False
    largest = np.abs(array.reshape(len(array), -1)).max(1)
    scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    by_channel = scale.reshape(-1, *[1] * (array.ndim - 1))
    return np.array_equal(file.arrays[scale_name(name)], scale) and np.array_equal(
        narrow, np.rint(array / by_channel)
    )


def same_architecture(ours: ModelSpec, theirs: ModelSpec) -> bool:
    """Return whether all layers have the same shape, so that they can be compared."""
    same_shapes = ours.layer_shapes() == theirs.layer_shapes()
    return same_shapes and ours.input_size == theirs.input_size


def _as_written_checks(file: ModelFile, model: Checkpoint, crops: NDArray[np.uint8]) -> list[Check]:
    """Run the file's own bytes, not lowered by any runner, with two batch sizes."""
    name = "file as written, ONNX Runtime"
    reason = "" if installed.has_module("onnxruntime") else "onnxruntime is missing"
    if file.precision == "bf16":
        reason = "its CPU kernels have no bf16"
    if reason:
        return [Check(name=name, measured=reason, allowed="-", passed=True)]
    from alexnet_deploy.runtimes.onnxruntime_runner import run_as_written

    expected = Reference(model).run(crops)
    error = 0.0
    for count in {1, len(crops)}:
        for layer, actual in run_as_written(file, crops[:count]).items():
            error = float(np.maximum(error, relative_error(actual, expected[layer][:count])))
    check = error_check(name, error, TOLERANCES[file.precision].relative)
    peak = _peak_of_normalized(file.spec, expected)
    if not check.passed and peak > _INEXACT_FROM:
        check = dataclasses.replace(check, name=f"{name}{_INEXACT} {peak:.0e}")
    return [check]


def _peak_of_normalized(spec: ModelSpec, layers: Mapping[str, Array]) -> float:
    """Return the largest activation that a normalization reads, 0 without one."""
    if spec.lrn is None:
        return 0.0
    read = ("pool1", "pool2") if spec.lrn.position == "after_pool" else ("conv1", "conv2")
    return max(float(layers[name].max()) for name in read)


def advice(report: Report, precision: FilePrecision) -> str:
    """Return what to do about a report that failed, of a file that was just built."""
    failed = [check.name for check in report.checks if not check.passed]
    if failed and all(_INEXACT in name for name in failed):
        return _INEXACT_ADVICE
    return _INT8_ADVICE if precision == "int8" else ADVICE


def _amplified_checks(
    file: ModelFile, crops: NDArray[np.uint8], options: RunnerOptions
) -> list[Check]:
    """Compare the normalized maps of a copy whose activations reach `AMPLIFIED_PEAK`.

    In the file's own precision, fp32 even if run in another, and with the file's own weights on
    both sides: this tests the function, not rounding.
    """
    norms = tuple(name for name in file.spec.layer_shapes() if name.startswith("norm"))
    if not norms:
        return []
    if file.precision == "int8":  # its ranges are calibrated for unscaled activations
        file = dequantize_model(file)
    file = amplified(file, crops)
    expected = Reference(file.weights()).run(crops, norms[-1])
    own = dataclasses.replace(
        options, precision=file.precision, batch_size=len(crops), outputs=norms
    )
    with open_runner(file, own) as runner:
        return map_checks(file, runner.run(crops), expected)


def amplified(file: ModelFile, crops: NDArray[np.uint8]) -> ModelFile:
    """Scale conv1 and conv2 so that the largest activation of each on `crops` is 1000."""
    for layer in ("conv1", "conv2"):
        peak = float(Reference(file.weights()).run(crops, layer)[layer].max())
        factor = np.float32(AMPLIFIED_PEAK / peak if peak > 0 else 1.0)
        file = dataclasses.replace(file, arrays=_scaled(file.arrays, layer, factor))
    return file


def map_checks(
    file: ModelFile, actual: Mapping[str, Array], expected: Mapping[str, Array]
) -> list[Check]:
    """Compare amplified maps as a whole, and separately the channels beside a tower's edge."""
    return [
        error_check(
            f"{name} amplified, {where}",
            relative_error(actual[name][:, channels], expected[name][:, channels]),
            _MAP_TOLERANCES[file.precision],
        )
        for name in actual
        for where, channels in (
            ("relative error", slice(None)),
            ("the same at tower edges", _edge_channels(file.spec, actual[name].shape[1])),
        )
    ]


def _scaled(arrays: Mapping[str, Array], layer: str, factor: np.float32) -> dict[str, Array]:
    scaled = {name: arrays[name] for name in (f"{layer}.weight", f"{layer}.bias")}
    return dict(arrays) | {
        name: (array.astype(np.float32) * factor).astype(array.dtype)
        for name, array in scaled.items()
    }


def _edge_channels(spec: ModelSpec, channels: int) -> list[int]:
    """Return the channels of a normalized map whose window is truncated by a tower's edge."""
    assert spec.lrn is not None
    width, reach = channels // spec.lrn.towers, spec.lrn.size // 2
    return [c for c in range(channels) if min(c % width, width - 1 - c % width) < reach]
