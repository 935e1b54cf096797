"""Does an artefact compute what its checkpoint computes? Measured on photographs, in user's terms.

The artefact runs as it will be served: its own spec's preprocessing, a real runtime. The other
side is `reference`, which shares none of that code. Three groups of checks:

- photographs: the crops, each exported layer and the logits (largest relative error of any
  photograph), the direction of FC7, and the top-1 class wherever the reference is sure of it;
- amplified: conv1 and conv2 scaled so that their largest activation is 1000, and the normalised
  maps compared. With inputs of unit scale the squares that LRN sums are so small that a wrong
  alpha or window moves the logits by a few millionths; at 1000 it moves them by percents;
- the file itself: its spec against the checkpoint's and, without a checkpoint to compare with,
  its weights against the hash written at export.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.checkpoints import Checkpoint
from alexnet_deploy.engines.base import EngineOptions
from alexnet_deploy.engines.factory import open_engine
from alexnet_deploy.errors import NoPhotographsError, PhotographError, VerificationError
from alexnet_deploy.images import load_photograph
from alexnet_deploy.onnx_graph import ModelFile
from alexnet_deploy.preprocessing import preprocess
from alexnet_deploy.reference import Reference, crop

Array = NDArray[Any]

AMPLIFIED_PEAK = 1000.0
_NUM_AMPLIFIED = 2  # photographs; the check is of the graph, not of the data


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """What a precision may cost.

    Attributes:
        relative: ||artefact - reference|| / ||reference|| of one layer of one photograph; for
            probabilities the largest difference.
        cosine: lowest cosine between the FC7 vectors of one photograph.
    """

    relative: float
    cosine: float


TOLERANCES: Mapping[str, Tolerance] = {
    # float32 rounding through eight layers measures 1e-6; 1e-4 leaves room for other summation
    # orders and none for a wrong constant.
    "fp32": Tolerance(relative=1e-4, cosine=0.99999),
    # bfloat16 keeps 8 bits: 2^-9 a rounding, some 1e-2 after eight layers.
    "bf16": Tolerance(relative=5e-2, cosine=0.999),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of the report: what was measured and what is allowed."""

    name: str
    measured: str
    allowed: str
    passed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The outcome of one verification; `to_dict` goes into the file's metadata.

    Attributes:
        checks: every comparison that was made, in the order of the table.
        runs: what ran the artefact: runtime, version, device, precision.
        against: fingerprint of the checkpoint that the reference computed.
        num_photographs: photographs compared.
        skipped: photographs that could not be read, with the reason.
    """

    checks: tuple[Check, ...]
    runs: str
    against: str
    num_photographs: int
    skipped: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Tell whether every check passed."""
        return all(check.passed for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values, `passed` included."""
        return dataclasses.asdict(self) | {"passed": self.passed}

    def table(self) -> str:
        """Return the report as aligned text, one line a check."""
        rows = [("check", "measured", "allowed", "")]
        for check in self.checks:
            verdict = "ok" if check.passed else "FAILED"
            rows.append((check.name, check.measured, check.allowed, verdict))
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = [
            f"{name:<{widths[0]}}  {measured:>{widths[1]}}  {allowed:>{widths[2]}}  {verdict}"
            for name, measured, allowed, verdict in rows
        ]
        title = f"{self.num_photographs} photographs, {self.runs}, against {self.against[:12]}"
        lines = [title, *(line.rstrip() for line in lines)]
        lines += [f"not compared: {reason}" for reason in self.skipped]
        return "\n".join(lines)

    def raise_if_failed(self, source: str) -> None:
        """Raise `VerificationError`, naming the failed checks, unless all passed."""
        failed = [
            f"{check.name} {check.measured} (allowed {check.allowed})"
            for check in self.checks
            if not check.passed
        ]
        if failed:
            raise VerificationError(
                f"{source}: verification failed: {'; '.join(failed)}; "
                "do not use this file; export the checkpoint again, and if it fails again "
                "try another --runtime"
            )


def verify(
    file: ModelFile,
    checkpoint: Checkpoint | None,
    photographs: Sequence[Path],
    options: EngineOptions,
) -> Report:
    """Run `file` and the reference on `photographs` and compare.

    Args:
        file: the artefact.
        checkpoint: what it should compute; None compares the file with its own weights, after
            checking that they are the ones that were exported.
        photographs: paths; unreadable ones are left out and named in the report.
        options: how to run the artefact; `outputs` is replaced by what is compared.

    Raises:
        NoPhotographsError: no photograph could be read.
        DeviceError: the runtime or precision cannot be had here.
    """
    truth = file.weights() if checkpoint is None else checkpoint
    against = file.fingerprint if checkpoint is None else checkpoint.fingerprint
    checks = [_weights_check(file)] if checkpoint is None else [_spec_check(file, checkpoint)]
    exported = tuple(output.name for output in file.graph.graph.output)
    layers = tuple(dict.fromkeys((*exported, "logits", "fc7", "probabilities")))
    shown, served_crops, true_crops, skipped = _crops(photographs, file, truth)
    reference = Reference(truth)
    comparison = _Comparison(layers, options.precision)
    size = options.batch_size
    with open_engine(file, dataclasses.replace(options, outputs=layers)) as engine:
        runs = engine.description
        for start in range(0, shown, size):
            batch = np.zeros((size, *served_crops.shape[1:]), np.uint8)
            crops = served_crops[start : start + size]
            batch[: len(crops)] = crops
            outputs = engine.run(batch)
            for row, true_crop in enumerate(true_crops[start : start + size]):
                expected = reference.run(true_crop[np.newaxis])
                comparison.add(
                    {name: outputs[name][row] for name in layers},
                    {name: expected[name][0] for name in layers},
                )
    checks.append(_crop_check(served_crops, true_crops))
    checks += comparison.checks()
    if truth.spec.lrn is not None:
        checks += _amplified_checks(file, truth, true_crops[:_NUM_AMPLIFIED], options)
    return Report(
        checks=tuple(checks),
        runs=runs,
        against=against,
        num_photographs=shown,
        skipped=tuple(skipped),
    )


class _Comparison:
    """Gathers the worst of each measure, photograph by photograph."""

    def __init__(self, layers: tuple[str, ...], precision: str) -> None:
        self._tolerance = TOLERANCES[precision]
        self._errors = dict.fromkeys(layers, 0.0)
        self._cosines: list[float] = []
        self._flips = self._unsure = self._photographs = 0

    def add(self, actual: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
        for name in self._errors:
            measure = largest_difference if name == "probabilities" else relative_error
            error = measure(actual[name], expected[name])
            self._errors[name] = float(np.maximum(self._errors[name], error))  # keeps a NaN
        self._cosines.append(cosine_similarity(actual["fc7"], expected["fc7"]))
        logits = expected["logits"]
        largest = float(np.abs(logits).max())
        # An error of t on each of two logits closes a margin of 2t.
        margin = float(np.diff(np.sort(logits)[-2:])[0]) if len(logits) > 1 else np.inf
        sure = margin > 2 * self._tolerance.relative * largest
        flipped = int(np.argmax(actual["logits"])) != int(np.argmax(logits))
        self._photographs += 1
        self._unsure += not sure
        self._flips += flipped and sure

    def checks(self) -> list[Check]:
        checks = []
        for name, error in self._errors.items():
            kind = "largest" if name == "probabilities" else "relative"
            checks.append(_error_check(f"{name}, {kind} error", error, self._tolerance.relative))
        lowest = float(np.min(self._cosines))
        checks.append(
            Check(
                name="FC7 cosine, lowest (mean)",
                measured=f"{lowest:.7f} ({np.mean(self._cosines):.7f})",
                allowed=f">= {self._tolerance.cosine}",
                passed=bool(lowest >= self._tolerance.cosine),
            )
        )
        compared = self._photographs - self._unsure
        checks.append(
            Check(
                name="top-1 flips beyond the margin",
                measured=f"{self._flips} of {compared}",
                allowed="0",
                passed=self._flips == 0,
            )
        )
        return checks


def relative_error(actual: Array, expected: Array) -> float:
    """Return ||actual - expected|| / ||expected||; 0 for two zeros, infinite for one."""
    difference = float(np.linalg.norm((actual.astype(np.float64) - expected).ravel()))
    norm = float(np.linalg.norm(expected.astype(np.float64).ravel()))
    if norm == 0:
        return 0.0 if difference == 0 else np.inf
    return difference / norm


def largest_difference(actual: Array, expected: Array) -> float:
    """Return max |actual - expected|, the measure for probabilities."""
    return float(np.abs(actual.astype(np.float64) - expected).max())


def cosine_similarity(a: Array, b: Array) -> float:
    """Return the cosine of the angle between two vectors; 1 for two zeros, 0 for one."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    if norms == 0:
        return 1.0 if not a.any() and not b.any() else 0.0
    return float(a @ b) / norms


def _error_check(name: str, error: float, allowed: float) -> Check:
    return Check(
        name=name,
        measured=f"{error:.1e}",
        allowed=f"<= {allowed:.0e}",
        passed=bool(error <= allowed),  # False for NaN
    )


def _crops(
    photographs: Sequence[Path], file: ModelFile, truth: Checkpoint
) -> tuple[int, NDArray[np.uint8], NDArray[np.uint8], list[str]]:
    """Decode once; crop by the serving path for the file and by the plain one for the truth."""
    served, true, skipped = [], [], []
    for path in photographs:
        try:
            photograph = load_photograph(path)
        except PhotographError as error:
            skipped.append(f"{path}: {error}")
            continue
        served.append(preprocess(photograph, file.spec))
        true.append(crop(photograph, truth.spec))
    if not served:
        raise NoPhotographsError(
            "verification needs photographs, and none could be read"
            f"{': ' + skipped[0] if skipped else ''}; name a folder of photographs"
        )
    return len(served), np.stack(served), np.stack(true), skipped


def _crop_check(served: NDArray[np.uint8], true: NDArray[np.uint8]) -> Check:
    same_shape = served.shape == true.shape
    num_equal = int((served == true).all(axis=(1, 2, 3)).sum()) if same_shape else 0
    return Check(
        name="crops equal, pixel for pixel",
        measured=f"{num_equal} of {len(true)}",
        allowed=f"{len(true)}",
        passed=num_equal == len(true),
    )


def _spec_check(file: ModelFile, checkpoint: Checkpoint) -> Check:
    ours, theirs = file.spec.identity(), checkpoint.spec.identity()
    different = [name for name in theirs if ours[name] != theirs[name]]
    if file.spec.num_classes != checkpoint.spec.num_classes:
        different.append("num_classes")
    return Check(
        name="spec",
        measured=f"other {', '.join(different)}" if different else "equal",
        allowed="equal",
        passed=not different,
    )


def _weights_check(file: ModelFile) -> Check:
    intact = file.weights_are_intact()
    return Check(
        name="weights since the export",
        measured="unchanged" if intact else "changed",
        allowed="unchanged",
        passed=intact,
    )


def _amplified_checks(
    file: ModelFile, truth: Checkpoint, crops: NDArray[np.uint8], options: EngineOptions
) -> list[Check]:
    """Compare the normalised maps of a twin whose activations reach `AMPLIFIED_PEAK`.

    In fp32, whatever precision is served: this is about the function, not about rounding.
    """
    norms = tuple(name for name in truth.spec.layer_shapes() if name.startswith("norm"))
    twin_truth, twin_file = truth, file
    for layer in ("conv1", "conv2"):
        peak = float(Reference(twin_truth).run(crops, layer)[layer].max())
        factor = np.float32(AMPLIFIED_PEAK / peak if peak > 0 else 1.0)
        arrays = _scaled(twin_truth.arrays, layer, factor)
        twin_truth = dataclasses.replace(twin_truth, arrays=arrays)
        twin_file = dataclasses.replace(twin_file, arrays=_scaled(twin_file.arrays, layer, factor))
    expected = Reference(twin_truth).run(crops, norms[-1])
    fp32 = dataclasses.replace(options, precision="fp32", batch_size=len(crops), outputs=norms)
    if file.spec.layer_shapes().keys() != truth.spec.layer_shapes().keys():
        return []  # another architecture: the spec check has failed already
    with open_engine(twin_file, fp32) as engine:
        actual = engine.run(crops)
    allowed = TOLERANCES["fp32"].relative
    return [
        _error_check(
            f"{name} amplified, relative error",
            relative_error(actual[name], expected[name]),
            allowed,
        )
        for name in norms
    ]


def _scaled(arrays: Mapping[str, Array], layer: str, factor: np.float32) -> dict[str, Array]:
    names = (f"{layer}.weight", f"{layer}.bias")
    return dict(arrays) | {name: arrays[name].astype(np.float32) * factor for name in names}
