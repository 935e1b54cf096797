"""Local response normalization as torch's exporters write it: ten nodes instead of one.

    x / (k + alpha * average_over_channels(pad(x * x)))^beta

Krizhevsky et al. 2012, section 3.3, with the sum written as `size` times the average.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alexnet_deploy.errors import IncompatibleFileError
from alexnet_deploy.importing.onnx_constants import Node, Shape, integers
from alexnet_deploy.importing.onnx_flow import Flow
from alexnet_deploy.importing.source import Array, shortest
from alexnet_deploy.model.spec import LrnPosition, LrnSpec


@dataclass(frozen=True, slots=True, eq=False)
class Divisor:
    """What a tensor of the network is about to be divided by, as far as it is computed.

    Attributes:
        base: the tensor.
        shape: of this one as it is laid out.
        channels: along its axis of channels, padding included.
        padding: channels of zeros before and after.
        size: of the window; 0 until it is averaged.
        alpha, k, beta: of the formula.
    """

    base: Flow
    shape: Shape
    channels: int
    padding: tuple[int, int] = (0, 0)
    size: int = 0
    alpha: float = 1.0
    k: float = 0.0
    beta: float = 1.0

    @classmethod
    def squares(cls, base: Flow) -> "Divisor":
        """Return x * x of a tensor (N, C, H, W)."""
        if len(base.size) != 4 or base.channels_last or base.towers > 1:
            raise ValueError("it squares something else than maps")
        return cls(base=base, shape=base.shape, channels=base.size[1])

    def reshaped(self, shape: Shape) -> "Divisor":
        """Return it with other axes around that of its channels."""
        changed = dataclasses.replace(self, shape=shape)
        changed.axis()
        return changed

    def axis(self) -> int:
        """Return the axis of the channels: before it stand the images, after it the positions."""
        for axis, length in enumerate(self.shape):
            if length == self.channels and math.prod(self.shape[:axis]) == self.base.size[0]:
                return axis
        raise ValueError(f"it makes {list(self.shape)} of squares of {list(self.base.shape)}")

    def padded(self, amounts: Shape) -> "Divisor":
        """Return it with zeros before and after its channels."""
        axis, rank = self.axis(), len(self.shape)
        if len(amounts) != 2 * rank or self.size or min(amounts) < 0:
            raise ValueError(f"it pads squares by {list(amounts)[:10]}")
        before, after = amounts[axis], amounts[axis + rank]
        if sum(amounts) != before + after:
            raise ValueError("it pads squares along other axes than their channels")
        return self._with_padding(before, after)

    def _with_padding(self, before: int, after: int) -> "Divisor":
        axis, channels = self.axis(), self.channels + before + after
        shape = (*self.shape[:axis], channels, *self.shape[axis + 1 :])
        padding = (self.padding[0] + before, self.padding[1] + after)
        return dataclasses.replace(self, shape=shape, channels=channels, padding=padding)

    def averaged(self, node: Node) -> "Divisor":
        """Return it after an AveragePool over neighbouring channels."""
        axis, kernel = self.axis(), node.ints("kernel_shape", ())
        rank = len(self.shape) - 2
        size = kernel[axis - 2] if kernel and len(kernel) == rank and axis >= 2 else 0
        pads = node.ints("pads", (0,) * 2 * rank) or ()
        is_plain = node.text("auto_pad", "NOTSET") in ("NOTSET", "VALID") and len(pads) == 2 * rank
        if not size or math.prod(kernel or ()) != size or self.size or not is_plain:
            raise ValueError("it averages squares over other axes than their channels")
        if {*(node.ints("strides", (1,)) or ()), *(node.ints("dilations", (1,)) or ())} != {1}:
            raise ValueError("it averages squares with a stride")
        before, after = pads[axis - 2], pads[axis - 2 + rank]
        counts_padding = node.integer("count_include_pad", 0) == 1 or not any(pads)
        if sum(pads) != before + after or not counts_padding:
            raise ValueError("it averages fewer squares at the edges than elsewhere")
        wide = self._with_padding(before, after)
        reach = size // 2
        if wide.padding != (reach, size - 1 - reach):
            raise ValueError(f"it averages {size} squares with padding of {list(wide.padding)}")
        channels = self.base.size[1]
        shape = (*wide.shape[:axis], channels, *wide.shape[axis + 1 :])
        return dataclasses.replace(wide, shape=shape, channels=channels, size=size)

    def computed(self, op: str, constant: Array) -> "Divisor":
        """Return it after it was multiplied by alpha, added to k, or raised to beta."""
        if constant.size != 1 or not self.size or constant.dtype.kind not in "fiu":
            raise ValueError("it computes with squares what no normalization does")
        number = shortest(constant.item())
        if op == "Mul" and not self.k:
            return dataclasses.replace(self, alpha=self.alpha * number)
        if op == "Div" and not self.k and number:
            return dataclasses.replace(self, alpha=shortest(self.alpha / number))
        if op == "Add" and self.beta == 1:
            return dataclasses.replace(self, k=self.k + number)
        if op == "Pow":
            return dataclasses.replace(self, beta=self.beta * number)
        raise ValueError("it computes with squares what no normalization does")

    def applied(self, op: str, position: LrnPosition) -> LrnSpec:
        """Return the normalization once a tensor is divided by it, or multiplied."""
        is_product = op == "Mul" and self.beta < 0
        if not self.size or self.shape != self.base.shape or not (op == "Div" or is_product):
            raise ValueError("it combines a tensor with its squares as no normalization does")
        beta = -self.beta if is_product else self.beta
        return _spec(self.size, self.alpha, beta, self.k, 1, position)


def lrn_of(node: Node, towers: int, position: LrnPosition) -> LrnSpec:
    """Return the normalization that an LRN node computes.

    Raises:
        ValueError: no spec allows it.
    """
    return _spec(
        node.integer("size", 0),
        node.number("alpha", 1e-4),
        node.number("beta", 0.75),
        node.number("bias", 1),
        towers,
        position,
    )


def _spec(
    size: int, alpha: float, beta: float, k: float, towers: int, position: LrnPosition
) -> LrnSpec:
    try:
        return LrnSpec(size=size, alpha=alpha, beta=beta, k=k, towers=towers, position=position)
    except IncompatibleFileError as error:
        raise ValueError(f"is a normalization whose {error}") from error


def pad_amounts(node: Node, rank: int, operands: Sequence[Array | None]) -> Shape:
    """Return what a Pad adds before and after each of `rank` axes.

    Args:
        node: of the operator Pad.
        rank: of its first input.
        operands: its other inputs: amounts, value, axes.

    Raises:
        ValueError: it adds anything but zeros.
    """
    given, value, axes = (*operands, None, None, None)[:3]
    amounts = node.ints("pads") if given is None else integers(given)
    filled = node.number("value", 0) if value is None else np.asarray(value).sum()
    if node.text("mode", "constant") != "constant" or filled != 0 or amounts is None:
        raise ValueError("it pads with something else than zeros")
    if axes is None:
        return amounts
    spread, chosen = [0] * 2 * rank, integers(axes)
    for place, axis in enumerate(chosen):
        spread[axis % rank] = amounts[place]
        spread[axis % rank + rank] = amounts[place + len(chosen)]
    return tuple(spread)
