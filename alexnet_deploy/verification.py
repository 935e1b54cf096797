"""Does an artefact compute what its checkpoint computes? Measured on photographs, in user's terms.

The artefact runs as it will be served: its own spec's preprocessing, the runtime that was asked
for, the lowered graph. The other side is `reference`, which shares with it the decoded
photograph and the weights as read, and none of the code in between. The checks:

- the file: its spec, fingerprint and weights against the checkpoint's, its content, labels
  included, against the hash written at export, ONNX's own check, and its graph as written, not
  lowered, run by ONNX Runtime;
- photographs: the crops, each exported layer and the logits (largest relative error of any
  photograph), the direction of FC7, and the top-1 class wherever the reference is sure of it;
- amplified: conv1 and conv2 scaled so that their largest activation is 1000, and the normalised
  maps compared. With inputs of unit scale the squares that LRN sums are so small that a window
  across the tower edge moves the logits by a few millionths; the amplified map it moves by more
  than a percent.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.checkpoints import Checkpoint
from alexnet_deploy.engines.base import Engine, EngineOptions
from alexnet_deploy.engines.factory import is_installed, open_engine
from alexnet_deploy.errors import NoPhotographsError, PhotographError
from alexnet_deploy.images import load_photograph
from alexnet_deploy.model_file import ModelFile, check_onnx
from alexnet_deploy.path_text import printable
from alexnet_deploy.preprocessing import preprocess
from alexnet_deploy.reference import Reference, crop
from alexnet_deploy.verification_report import Check, Report

Array = NDArray[Any]

AMPLIFIED_PEAK = 1000.0
_NUM_KEPT = 2  # crops for the checks of the graph, which are not about the data
# Below this a layer is as good as dead, and its rounding that of the terms that cancelled.
_SMALLEST_NORM = 1e-2


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
    # bfloat16 keeps 8 bits, 2^-9 a rounding: 1.1e-2 at most over 1,695 photographs.
    "bf16": Tolerance(relative=3e-2, cosine=0.999),
}


def verify(
    file: ModelFile,
    checkpoint: Checkpoint | None,
    photographs: Iterable[Path],
    options: EngineOptions,
    on_photograph: Callable[[Path, str | None], None] = lambda path, error: None,
) -> Report:
    """Run `file` and the reference on `photographs` and compare; memory does not grow with them.

    Args:
        file: the artefact.
        checkpoint: what it should compute; None compares the file with its own weights, which
            its content hash vouches for.
        photographs: paths; unreadable ones are left out and named in the report.
        options: how to run the artefact; `outputs` is replaced by what is compared.
        on_photograph: called after each photograph, with the reason if it was left out.

    Returns:
        The report. Where the layers differ in shape it says so and nothing is run.

    Raises:
        NoPhotographsError: no photograph could be read.
        DeviceError: the runtime or precision cannot be had here.
    """
    checks = _file_checks(file, checkpoint)
    model = file.weights() if checkpoint is None else checkpoint
    fingerprint = file.fingerprint if checkpoint is None else checkpoint.fingerprint
    if not _same_architecture(file, model):
        return Report(checks=checks, runs="not run", against=fingerprint, num_photographs=0)
    layers = tuple(dict.fromkeys((*file.outputs(), "logits", "fc7", "probabilities")))
    with open_engine(file, dataclasses.replace(options, outputs=layers)) as engine:
        comparison = _Comparison(Reference(model), layers, options.precision)
        skipped = _compare(engine, photographs, comparison, on_photograph)
        runs = engine.description
    checks += comparison.checks()
    checks += _as_written_checks(file, model, np.stack(comparison.kept))
    checks += _amplified_checks(file, model, np.stack(comparison.kept), options)
    return Report(
        checks=checks,
        runs=runs,
        against=fingerprint,
        num_photographs=comparison.num_photographs,
        skipped=skipped,
    )


def _compare(
    engine: Engine,
    photographs: Iterable[Path],
    comparison: "_Comparison",
    on_photograph: Callable[[Path, str | None], None],
) -> tuple[str, ...]:
    """Decode, crop both ways, run and compare batch by batch; return what could not be read."""
    skipped: list[str] = []
    paths = iter(photographs)
    size, side = engine.options.batch_size, engine.spec.input_size
    while some := list(islice(paths, size)):
        batch = np.zeros((size, side, side, 3), np.uint8)
        plain_crops: list[NDArray[np.uint8]] = []
        for path in some:
            try:
                photograph = load_photograph(path)
            except PhotographError as error:
                skipped.append(f"{printable(path)}: {error}")
                on_photograph(path, str(error))
                continue
            batch[len(plain_crops)] = preprocess(photograph, engine.spec)
            plain_crops.append(crop(photograph, comparison.reference.spec))
            on_photograph(path, None)
        if plain_crops:
            outputs = engine.run(batch)
            for row, plain in enumerate(plain_crops):
                actual = {name: values[row] for name, values in outputs.items()}
                comparison.add(batch[row], plain, actual)
    if not comparison.num_photographs:
        raise NoPhotographsError(
            "verification needs photographs, and none could be read"
            f"{': ' + skipped[0] if skipped else ''}; name a folder of photographs"
        )
    return tuple(skipped)


class _Comparison:
    """Gathers the worst of each measure, photograph by photograph."""

    def __init__(self, reference: Reference, layers: tuple[str, ...], precision: str) -> None:
        self.reference = reference
        self.num_photographs = 0
        self.kept: list[NDArray[np.uint8]] = []  # the first crops
        self._tolerance = TOLERANCES[precision]
        self._errors = dict.fromkeys(layers, 0.0)
        self._cosines: list[float] = []
        self._num_flips = self._num_sure = self._num_equal_crops = 0

    def add(
        self, served: NDArray[np.uint8], plain: NDArray[np.uint8], actual: Mapping[str, Array]
    ) -> None:
        """Take one photograph: both crops, and the artefact's activations of its own crop."""
        self.num_photographs += 1
        self._num_equal_crops += bool((served == plain).all())
        if len(self.kept) < _NUM_KEPT:
            self.kept.append(plain)
        layers = self.reference.run(plain[np.newaxis])
        expected = {name: layers[name][0] for name in self._errors}
        for name in self._errors:
            measure = largest_difference if name == "probabilities" else relative_error
            error = measure(actual[name], expected[name])
            self._errors[name] = float(np.maximum(self._errors[name], error))  # keeps a NaN
        self._cosines.append(cosine_similarity(actual["fc7"], expected["fc7"]))
        flipped = top1_flipped(actual["logits"], expected["logits"], self._tolerance.relative)
        self._num_sure += flipped is not None
        self._num_flips += flipped is True

    def checks(self) -> list[Check]:
        checks = [
            Check(
                name="crops equal, pixel for pixel",
                measured=f"{self._num_equal_crops} of {self.num_photographs}",
                allowed=f"{self.num_photographs}",
                passed=self._num_equal_crops == self.num_photographs,
            )
        ]
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
        checks.append(
            Check(
                name="top-1 flips beyond the margin",
                measured=f"{self._num_flips} of {self._num_sure}",
                allowed="0",
                passed=self._num_flips == 0,
            )
        )
        return checks


def relative_error(actual: Array, expected: Array) -> float:
    """Return ||actual - expected|| / ||expected||; the divisor is 0.01 at least."""
    difference = float(np.linalg.norm((actual.astype(np.float64) - expected).ravel()))
    norm = float(np.linalg.norm(expected.astype(np.float64).ravel()))
    return difference / max(norm, _SMALLEST_NORM)


def largest_difference(actual: Array, expected: Array) -> float:
    """Return max |actual - expected|, the measure for probabilities."""
    return float(np.abs(actual.astype(np.float64) - expected).max())


def top1_flipped(actual: Array, expected: Array, tolerance: float) -> bool | None:
    """Tell whether the top-1 class changed; None where an error within `tolerance` can do that.

    Args:
        actual: (K,) logits of the artefact.
        expected: (K,) logits of the reference.
        tolerance: allowed ||actual - expected|| / ||expected||.
    """
    ordered = np.sort(expected)
    margin = float(ordered[-1] - ordered[-2]) if len(ordered) > 1 else np.inf
    # An error vector of length t moves the difference of two elements by sqrt(2) t at most.
    if margin <= 2**0.5 * tolerance * float(np.linalg.norm(expected)):
        return None
    return int(np.argmax(actual)) != int(np.argmax(expected))


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


def _equality_check(name: str, different: Sequence[str]) -> Check:
    """Report that nothing differs, or the names of what does."""
    listed = ", ".join(different[:3]) + (", ..." if len(different) > 3 else "")
    return Check(
        name=name,
        measured=f"other {listed}" if different else "equal",
        allowed="equal",
        passed=not different,
    )


def _file_checks(file: ModelFile, checkpoint: Checkpoint | None) -> list[Check]:
    """Check what can be said without running anything."""
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
    ours, theirs = file.spec.identity(), checkpoint.spec.identity()
    different = [name for name in theirs if ours[name] != theirs[name]]
    if file.spec.num_classes != checkpoint.spec.num_classes:
        different.append("num_classes")
    weights = file.weights().arrays
    changed = [
        name
        for name, array in checkpoint.arrays.items()
        if name != "mean_image"  # only its central window is in the file
        and not np.array_equal(weights.get(name, np.empty(0)), array.astype(np.float32))
    ]
    fingerprint = [] if file.fingerprint == checkpoint.fingerprint else ["checkpoint"]
    return [
        *checks,
        _equality_check("spec", different),
        _equality_check("fingerprint", fingerprint),
        _equality_check("weights, bit for bit", changed),
    ]


def _same_architecture(file: ModelFile, model: Checkpoint) -> bool:
    """Tell whether layer by layer there is something to compare."""
    same_shapes = file.spec.layer_shapes() == model.spec.layer_shapes()
    return same_shapes and file.spec.input_size == model.spec.input_size


def _as_written_checks(file: ModelFile, model: Checkpoint, crops: NDArray[np.uint8]) -> list[Check]:
    """Run the file's own bytes, whose graph no engine lowered, with two sizes of batch."""
    name = "file as written, ONNX Runtime"
    if not is_installed("onnxruntime"):
        return [Check(name=name, measured="onnxruntime is missing", allowed="-", passed=True)]
    from alexnet_deploy.engines.onnxruntime_engine import run_as_written

    expected = Reference(model).run(crops)
    error = 0.0
    for count in {1, len(crops)}:
        for layer, actual in run_as_written(file, crops[:count]).items():
            error = float(np.maximum(error, relative_error(actual, expected[layer][:count])))
    return [_error_check(name, error, TOLERANCES["fp32"].relative)]


def _amplified_checks(
    file: ModelFile, model: Checkpoint, crops: NDArray[np.uint8], options: EngineOptions
) -> list[Check]:
    """Compare the normalised maps of copies whose activations reach `AMPLIFIED_PEAK`.

    In fp32, whatever precision is served: this is about the function, not about rounding.
    """
    norms = tuple(name for name in model.spec.layer_shapes() if name.startswith("norm"))
    if not norms:
        return []
    for layer in ("conv1", "conv2"):
        peak = float(Reference(model).run(crops, layer)[layer].max())
        factor = np.float32(AMPLIFIED_PEAK / peak if peak > 0 else 1.0)
        model = dataclasses.replace(model, arrays=_scaled(model.arrays, layer, factor))
        file = dataclasses.replace(file, arrays=_scaled(file.arrays, layer, factor))
    expected = Reference(model).run(crops, norms[-1])
    fp32 = dataclasses.replace(options, precision="fp32", batch_size=len(crops), outputs=norms)
    with open_engine(file, fp32) as engine:
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
