"""Measure an artefact's deviation from the reference on photographs, against tolerances."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.errors import NoPhotographsError, PhotographError
from alexnet_deploy.files.path_text import printable
from alexnet_deploy.graph.report import Check, error_check
from alexnet_deploy.model.checkpoints import Checkpoint
from alexnet_deploy.model.reference import Reference, crop
from alexnet_deploy.photographs.decoding import load_photograph
from alexnet_deploy.photographs.pixels import Decode
from alexnet_deploy.photographs.preprocessing import preprocess
from alexnet_deploy.runtimes.base import Runner

Array = NDArray[Any]

_DECODE = Decode.of(colour="ignored")
"""The reference resizes and crops; what colours mean is no part of what is verified."""

_NUM_KEPT = 2  # crops for checks of the graph, which do not depend on the data
# Below this a layer is practically dead, and its error that of the terms that cancelled.
_SMALLEST_NORM = 1e-2


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """The deviation allowed for a precision.

    Attributes:
        relative: ||artefact - reference|| / ||reference|| of one layer of one photograph; for
            probabilities, the largest difference.
        cosine: lowest cosine between the FC7 vectors of one photograph.
        mean_cosine: lowest mean of these cosines.
        margin: the reference is sure of its top-1 class if only a relative error of its logits
            above this could make another win.
        flips: share of the photographs with a sure class that may change it.
    """

    relative: float
    cosine: float
    mean_cosine: float
    margin: float
    flips: float = 0.0


# Measured: over the 1,695 test photographs of Caltech-101, tools/results/parity-cpu.json.
TOLERANCES: Mapping[str, Tolerance] = {
    # float32 rounding through eight layers measures 1e-6; 1e-4 allows for other summation orders
    # but not for a wrong constant.
    "fp32": Tolerance(relative=1e-4, cosine=0.99999, mean_cosine=0.99999, margin=1e-4),
    # float16 has 11 bits, 2^-11 per rounding: three more than bfloat16, so an eighth of its error.
    # CPUs run such a file in float32, so only the weights are rounded.
    "fp16": Tolerance(relative=5e-3, cosine=0.9999, mean_cosine=0.9999, margin=5e-3),
    # bfloat16 has 8 bits, 2^-9 per rounding: errors of 1.1e-2 and cosines of 0.99995 at worst.
    "bf16": Tolerance(relative=3e-2, cosine=0.999, mean_cosine=0.999, margin=3e-2),
    # 8 bits with per-tensor scales, so activations beyond the calibrated ranges are clipped: the
    # largest error is 0.25 with 40 calibration photographs, 0.11 with 200; lowest cosines 0.988 and
    # 0.997, mean 0.9998. The error towards another class is far smaller: on the same photographs no
    # class changed whose margin was above 1.2e-3.
    "int8": Tolerance(relative=0.4, cosine=0.95, mean_cosine=0.999, margin=5e-3, flips=0.02),
}
# Half of float16's 65504, because other photographs may reach more than these.
_LARGEST_FP16 = 32752.0


class Comparison:
    """Accumulates the worst of each measure, photograph by photograph.

    FC7 cosine and top-1 class are compared if the layers include them; logits and probabilities
    give the same class.
    """

    def __init__(self, reference: Reference, layers: tuple[str, ...], precision: str) -> None:
        self.reference = reference
        self.num_photographs = 0
        self.kept: list[NDArray[np.uint8]] = []  # the first crops
        self._precision, self._tolerance = precision, TOLERANCES[precision]
        self._largest = 0.0  # activation of the reference
        self._errors = dict.fromkeys(layers, 0.0)
        self._cosines: list[float] = []
        self._num_flips = self._num_sure = self._num_equal_crops = 0
        self._scores = next((name for name in ("logits", "probabilities") if name in layers), None)

    def add(
        self, served: NDArray[np.uint8], plain: NDArray[np.uint8], actual: Mapping[str, Array]
    ) -> None:
        """Add one photograph: both crops, and the artefact's activations for its own crop."""
        self.num_photographs += 1
        self._num_equal_crops += bool((served == plain).all())
        if len(self.kept) < _NUM_KEPT:
            self.kept.append(plain)
        layers = self.reference.run(plain[np.newaxis])
        if self._precision == "fp16":
            self._largest = float(
                np.maximum(self._largest, largest_activation(self.reference.checkpoint, layers))
            )
        expected = {name: layers[name][0] for name in self._errors}
        for name in self._errors:
            measure = largest_difference if name == "probabilities" else relative_error
            error = measure(actual[name], expected[name])
            self._errors[name] = float(np.maximum(self._errors[name], error))  # keeps a NaN
        if "fc7" in expected:
            self._cosines.append(cosine_similarity(actual["fc7"], expected["fc7"]))
        if self._scores is not None:
            scores, logits = actual[self._scores], layers["logits"][0]
            flipped = top1_flipped(scores, logits, self._tolerance.margin)
            self._num_sure += flipped is not None
            self._num_flips += flipped is True

    def checks(self) -> list[Check]:
        """Return the measurements, each with its tolerance."""
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
            checks.append(error_check(f"{name}, {kind} error", error, self._tolerance.relative))
        checks += self._cosine_checks() + self._flip_checks()
        if self._precision == "fp16":
            checks.append(
                Check(
                    name="largest activation, of float16's 65504",
                    measured=f"{self._largest:.0f}",
                    allowed=f"<= {_LARGEST_FP16:.0f}",
                    passed=bool(self._largest <= _LARGEST_FP16),
                )
            )
        return checks

    def _cosine_checks(self) -> list[Check]:
        """Check the FC7 cosines, if compared."""
        if not self._cosines:
            return []
        lowest, mean = float(np.min(self._cosines)), float(np.mean(self._cosines))
        allowed = self._tolerance
        return [
            Check(
                name="FC7 cosine, lowest (mean)",
                measured=f"{lowest:.7f} ({mean:.7f})",
                allowed=f">= {allowed.cosine} ({allowed.mean_cosine})",
                passed=bool(lowest >= allowed.cosine and mean >= allowed.mean_cosine),
            )
        ]

    def _flip_checks(self) -> list[Check]:
        """Check the top-1 classes of which the reference is sure, if there are classes."""
        if self._scores is None:
            return []
        allowed = int(self._tolerance.flips * self._num_sure)
        return [
            Check(
                name="top-1 flips beyond the margin",
                measured=f"{self._num_flips} of {self._num_sure}",
                allowed=f"{allowed}" if self._num_sure else "-",
                passed=self._num_flips <= allowed,
            )
        ]


def compare(
    engine: Runner,
    photographs: Iterable[Path],
    comparison: Comparison,
    on_photograph: Callable[[Path, str | None], None],
) -> tuple[str, ...]:
    """Decode, crop both ways, run and compare batch by batch; return the unreadable photographs."""
    skipped: list[str] = []
    paths = iter(photographs)
    size, side = engine.options.batch_size, engine.spec.input_size
    while some := list(islice(paths, size)):
        batch = np.zeros((size, side, side, 3), np.uint8)
        plain_crops: list[NDArray[np.uint8]] = []
        for path in some:
            try:
                photograph = load_photograph(path, _DECODE)
            except PhotographError as error:
                skipped.append(f"{printable(path)}: {error}")
                on_photograph(path, str(error))
                continue
            batch[len(plain_crops)] = preprocess(photograph, engine.spec)
            plain_crops.append(crop(photograph, comparison.reference.spec))
            on_photograph(path, None)
        if plain_crops:
            outputs = engine.run(batch[: len(plain_crops)])
            for row, plain in enumerate(plain_crops):
                actual = {name: values[row] for name, values in outputs.items()}
                comparison.add(batch[row], plain, actual)
    if not comparison.num_photographs:
        raise NoPhotographsError(
            "verification needs photographs, and none could be read"
            f"{': ' + skipped[0] if skipped else ''}; name a folder of photographs"
        )
    return tuple(skipped)


def largest_activation(checkpoint: Checkpoint, layers: Mapping[str, Array]) -> float:
    """Return the largest magnitude in a graph of the checkpoint; NaN if there is a NaN.

    Args:
        checkpoint: its factored layers have activations between their factors.
        layers: all activations of one photograph, (1, ...) each, in forward order.
    """
    names = list(layers)
    largest = [np.abs(values).max() for values in layers.values()]
    for name, output in (("fc6", "fc6_pre"), ("fc7", "fc7_pre"), ("fc8", "logits")):
        right = checkpoint.arrays.get(f"{name}.weight.right")
        if right is not None:
            x = layers[names[names.index(output) - 1]].ravel()
            largest.append(np.abs(right.astype(x.dtype) @ x).max())
    return float(np.max(largest))


def relative_error(actual: Array, expected: Array) -> float:
    """Return ||actual - expected|| / ||expected||; the divisor is at least 0.01."""
    difference = float(np.linalg.norm((actual.astype(np.float64) - expected).ravel()))
    norm = float(np.linalg.norm(expected.astype(np.float64).ravel()))
    return difference / max(norm, _SMALLEST_NORM)


def largest_difference(actual: Array, expected: Array) -> float:
    """Return max |actual - expected|, the measure for probabilities."""
    return float(np.abs(actual.astype(np.float64) - expected).max())


def top1_flipped(actual: Array, expected: Array, tolerance: float) -> bool | None:
    """Return whether the top-1 class changed; None if an error within `tolerance` can do that.

    Args:
        actual: (K,) logits of the artefact, or its probabilities.
        expected: (K,) logits of the reference.
        tolerance: the error ||actual - expected|| / ||expected|| in question.
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
