"""How large the numbers of a network can become, on any photograph: does float32 hold them?

Runtimes differ in what they make of an overflow. Where ONNX Runtime computes NaN, OpenVINO 2026.4
normalizes to 0, and what it computes from that looks like a result. So a network that could
overflow is refused when its file is read. The bound takes every weight for the largest of its
layer and every sum for one without cancellation: the bundled checkpoint's logits, some 20 on
photographs, are bounded by 1.2e24. Four layers in a row have to be a thousand times too large
before a network that does not overflow is refused.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.errors import IncompatibleFileError
from alexnet_deploy.model.spec import NORMALIZED_CONVS, LrnSpec, ModelSpec

# int8 rounds a number to twice its size at most, once a layer; the second normalization squares.
_LIMIT = float(np.finfo(np.float32).max) / 2**12


def magnitude(array: NDArray[Any]) -> float:
    """Return the largest magnitude in a floating-point array, in float32; NaN if there is a NaN."""
    if array.dtype == np.float16:  # by its bits, for which NumPy takes a quarter of the time
        bits = (array.view(np.uint16) & 0x7FFF).max(initial=0)
        return float(bits.astype(np.uint16).view(np.float16))
    with np.errstate(over="ignore"):
        wide = array.astype(np.float32, copy=False)
    return max(float(wide.max(initial=0)), -float(wide.min(initial=0)))


def largest_sum(largest: float, shape: tuple[int, ...]) -> float:
    """Bound what weights of that magnitude and shape make of inputs that are 1 at most."""
    return largest * math.prod(shape[1:])


def check_range(spec: ModelSpec, sums: Mapping[str, float], mean: float, source: str) -> None:
    """Reject a network whose activations could overflow.

    Args:
        spec: of the network.
        sums: `largest_sum` of each weight, factor and bias, by the names of a checkpoint.
        mean: magnitude of the mean that is subtracted, in grey levels.
        source: of the network, for the message.

    Raises:
        IncompatibleFileError: naming the first layer that could.
    """
    # In float64, where a bound may become infinite.
    with np.errstate(all="ignore"):
        for layer, bound in _bounds(spec, sums, mean):
            if not bound <= _LIMIT:
                raise IncompatibleFileError(
                    f"{source}: the numbers of {layer} could reach {bound:.0e}, too much for "
                    "float32; the training run diverged or the file is damaged: use an earlier "
                    "checkpoint"
                )


def _bounds(
    spec: ModelSpec, sums: Mapping[str, float], mean: float
) -> Iterator[tuple[str, np.float64]]:
    """Yield layers with bounds of what is computed for them."""
    x = np.float64(255 + mean) / min(spec.preprocessing.std)
    yield "its input", x
    for name in spec.array_shapes():
        layer, kind = name.split(".")
        if kind == "bias":
            continue
        if name in sums:
            x = x * sums[name]
        else:
            x = x * sums[f"{name}.right"]
            yield layer, x
            x = x * sums[f"{name}.left"]
        x = x + sums[f"{layer}.bias"]
        yield layer, x
        if spec.lrn is not None and layer in (f"conv{number}" for number in NORMALIZED_CONVS):
            yield from ((layer, bound) for bound in _normalizing(x, spec.lrn))
            x = x * _most(x, spec.lrn)


def _normalizing(x: np.float64, lrn: LrnSpec) -> tuple[np.float64, ...]:
    """Bound what is computed on the way: squares, their sum, its power, and the quotient."""
    base, power = lrn.k + lrn.alpha * x * x, abs(lrn.beta)
    return lrn.size * x * x, base, base**power, np.float64(lrn.k) ** -power, x * _most(x, lrn)


def _most(x: np.float64, lrn: LrnSpec) -> np.float64:
    """Bound the factor by which the normalization multiplies activations up to `x`."""
    return max(np.float64(lrn.k) ** -lrn.beta, (lrn.k + lrn.alpha * x * x) ** -lrn.beta)
