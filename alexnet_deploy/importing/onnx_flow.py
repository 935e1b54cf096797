"""What flows through a foreign graph from its image to its classes, and what it does to pixels.

N images, C channels, H/W px.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from alexnet_deploy.importing.onnx_constants import Shape
from alexnet_deploy.importing.source import Array, shortest

Padding = tuple[int, int, int, int]
PixelKind = Literal["normalized", "grey levels", "0..1"]
_NONE: Padding = (0, 0, 0, 0)


@dataclass(frozen=True, slots=True, eq=False)
class Flow:
    """One tensor of the network's chain of layers.

    Attributes:
        size: (N, C, H, W), however it is laid out; (N, D) once flattened.
        num_done: how many layers were computed before.
        channels_last: laid out as (N, H, W, C).
        towers: that stand among the images: (N * towers, C / towers, H, W).
        padding: zeros that are already around it, px: top, left, bottom, right.
        flattened: (H, W, C) if it was flattened in that order.
    """

    size: Shape
    num_done: int
    channels_last: bool = False
    towers: int = 1
    padding: Padding = _NONE
    flattened: Shape | None = None

    @property
    def shape(self) -> Shape:
        """The shape of the tensor as it is laid out."""
        if len(self.size) != 4:
            return self.size
        images, channels, height, width = self.size
        if self.channels_last:
            return (images, height, width, channels)
        return (images * self.towers, channels // self.towers, height, width)

    def reshaped(self, shape: Shape) -> "Flow":
        """Return it under another shape of as many elements.

        Raises:
            ValueError: that is neither flattened nor cut into towers, nor such undone.
        """
        if shape == self.shape:
            return self
        images, elements = self.size[0], math.prod(self.size[1:])
        if shape == (images, elements) and self.towers == 1 and self.padding == _NONE:
            order = self.shape[1:] if self.channels_last else None
            return dataclasses.replace(
                self, size=shape, channels_last=False, flattened=order or self.flattened
            )
        if shape == (images, elements, 1, 1) and self.flattened is None and not self.channels_last:
            return dataclasses.replace(self, size=shape)
        if len(self.size) == len(shape) == 4 and not self.channels_last and images:
            towers, channels = shape[0] // images, self.size[1]
            cut = dataclasses.replace(self, towers=max(1, towers))
            if channels % cut.towers == 0 and cut.shape == shape:
                return cut
        raise ValueError(f"it makes {list(shape)} of {list(self.shape)}")

    def transposed(self, order: Shape | None) -> "Flow":
        """Return it with its axes in another order.

        Raises:
            ValueError: an order other than those of (N, C, H, W) and (N, H, W, C).
        """
        if order == tuple(range(len(self.shape))):
            return self
        to_last = order == (0, 2, 3, 1)
        is_known = to_last or order == (0, 3, 1, 2)
        if len(self.size) != 4 or self.towers > 1 or not is_known or to_last == self.channels_last:
            raise ValueError(f"it puts the axes of {list(self.shape)} into another order")
        return dataclasses.replace(self, channels_last=to_last)

    def padded(self, amounts: Shape) -> "Flow":
        """Return it with zeros around its maps: `amounts` before and after each axis.

        Raises:
            ValueError: anything else is padded, or cut off.
        """
        rank = len(self.shape)
        if rank != 4 or len(amounts) != 8 or min(amounts) < 0 or self.towers > 1:
            raise ValueError(f"it pads {list(self.shape)} by {list(amounts)[:10]}")
        rows, columns = (1, 2) if self.channels_last else (2, 3)
        top, left, bottom, right = (
            amounts[axis] for axis in (rows, columns, rows + rank, columns + rank)
        )
        if sum(amounts) != top + left + bottom + right:
            raise ValueError(f"it pads other axes than height and width: {list(amounts)}")
        images, channels, height, width = self.size
        before = self.padding
        return dataclasses.replace(
            self,
            size=(images, channels, height + top + bottom, width + left + right),
            padding=(before[0] + top, before[1] + left, before[2] + bottom, before[3] + right),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StatedPixels:
    """What a graph reads, and what it does to it.

    Attributes:
        kind: what its input holds.
        mean, std: in grey levels of 0..255; None where the input is normalized.
        mean_image: (3, S, S) in grey levels, or None; `mean` is then that of each channel.
    """

    kind: PixelKind
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    mean_image: Array | None = None


class Normalization:
    """What a graph does to pixels before conv1, as `scale * pixel + shift`.

    Arrays are (1 or 3, 1 or H, 1 or W) float64.
    """

    def __init__(self) -> None:
        self._scale = np.ones((1, 1, 1))
        self._shift = np.zeros((1, 1, 1))

    def apply(self, op: str, constant: Array, flow: Flow, *, comes_first: bool) -> None:
        """Add one operation.

        Args:
            op: "Add", "Sub", "Mul" or "Div".
            constant: as the operator reads it.
            flow: what it is computed with.
            comes_first: the constant is the first operand.

        Raises:
            ValueError: it is not of this kind.
        """
        number = self._fitted(constant, flow)
        match op:
            case "Add":
                self._shift = self._shift + number
            case "Sub" if comes_first:
                self._scale, self._shift = -self._scale, number - self._shift
            case "Sub":
                self._shift = self._shift - number
            case "Mul":
                self._scale, self._shift = self._scale * number, self._shift * number
            case "Div" if not comes_first and number.all():
                self._scale, self._shift = self._scale / number, self._shift / number
            case _:
                raise ValueError("it does something else to pixels than to subtract and divide")

    @staticmethod
    def _fitted(constant: Array, flow: Flow) -> Array:
        """Return a constant as (1 or C, 1 or H, 1 or W)."""
        shape = (1,) * (4 - constant.ndim) + constant.shape
        fits = all(own in (1, other) for own, other in zip(shape, flow.shape, strict=False))
        if constant.ndim > 4 or shape[0] != 1 or not fits or constant.dtype.kind not in "fiu":
            raise ValueError(
                f"it computes with {constant.dtype} {list(constant.shape)} and {list(flow.shape)}"
            )
        fitted: Array = constant.astype(np.float64).reshape(shape)[0]
        return fitted.transpose(2, 0, 1) if flow.channels_last else fitted

    def stated(self, side: int, *, is_integer: bool) -> StatedPixels:
        """Return it as a mean and a deviation.

        Args:
            side: of the images, px.
            is_integer: whether the graph reads bytes.

        Raises:
            ValueError: it divides by something that is not one number above 0 a channel.
        """
        is_trivial = not self._shift.any() and bool((self._scale == 1).all())
        if is_trivial and not is_integer:
            return StatedPixels(kind="normalized")
        if self._scale.shape[1:] != (1, 1) or not (self._scale > 0).all():
            raise ValueError("its pixels are not divided by one number above 0 a channel")
        mean, std = -self._shift / self._scale, 1 / self._scale
        is_unit = not is_integer and bool((std < 1.5).all() and (np.abs(mean) <= 1).all())
        if is_unit:  # for pixels of 0..1, as torchvision makes them
            mean, std = mean * 255, std * 255
        has_image = bool((mean != mean[:, :1, :1]).any())
        image = np.broadcast_to(mean, (3, side, side)).astype(np.float32)
        return StatedPixels(
            kind="0..1" if is_unit else "grey levels",
            mean=_channels(mean.mean((1, 2))),
            std=_channels(std.ravel()),
            mean_image=image if has_image else None,
        )


def _channels(numbers: Array) -> tuple[float, float, float]:
    first, second, third = np.broadcast_to(numbers, 3)
    return shortest(first), shortest(second), shortest(third)
