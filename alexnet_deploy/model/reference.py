"""The network in plain NumPy: the oracle for every artefact.

Written to be read beside Krizhevsky et al. 2012, section 3, not for speed (about 0.05 s per image).
It shares no code with the graph, the runtimes or the serving preprocessing, so that a bug in any of
them shows.

C channels, H/W px, P output positions.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image

from alexnet_deploy.model.checkpoints import Checkpoint
from alexnet_deploy.model.spec import (
    CONV_STRIDES,
    NORMALIZED_CONVS,
    POOL_SIZE,
    POOL_STRIDE,
    POOLED_CONVS,
    LrnSpec,
    ModelSpec,
)

Array = NDArray[Any]


class Reference:
    """A checkpoint as a function from crops to the activations of every layer."""

    def __init__(self, checkpoint: Checkpoint, dtype: type = np.float32) -> None:
        """Compute in `dtype`, float32 or float64."""
        self.spec = checkpoint.spec
        self.dtype = np.dtype(dtype)
        self.checkpoint = checkpoint
        self._weights: dict[str, tuple[Array, Array]] = {}
        self._mean: Array = checkpoint.mean().astype(dtype)
        self._std: Array = np.array(self.spec.preprocessing.std, dtype).reshape(3, 1, 1)

    def run(self, images: NDArray[np.uint8], last: str = "probabilities") -> dict[str, Array]:
        """Compute the layers of `ModelSpec.layer_shapes`, in forward order, up to `last`.

        Args:
            images: (N, H, W, 3) uint8, RGB, resized and cropped.
            last: where to stop.
        """
        each: list[dict[str, Array]] = []
        # Weights may overflow; infinities are compared like any other value.
        with np.errstate(over="ignore", invalid="ignore"):
            for image in images:
                each.append({})
                for name, activations in self._layers(image):
                    each[-1][name] = activations
                    if name == last:
                        break
        return {name: np.stack([layers[name] for layers in each]) for name in each[0]}

    def _layers(self, image: NDArray[np.generic]) -> Iterator[tuple[str, Array]]:
        """Yield name and activations of one image, (H, W, 3), layer by layer."""
        x = (image.transpose(2, 0, 1).astype(self.dtype) - self._mean) / self._std
        for number in range(1, 6):
            x = self._convolve(x, number)
            yield f"conv{number}_pre", x
            x = relu(x)
            yield f"conv{number}", x
            lrn = self.spec.lrn if number in NORMALIZED_CONVS else None
            if lrn is not None and lrn.position == "before_pool":
                x = local_response_norm(x, lrn)
                yield f"norm{number}", x
            if number in POOLED_CONVS:
                x = max_pool(x, self.spec.padding_of_pool(number))
                yield f"pool{number}", x
            if lrn is not None and lrn.position == "after_pool":
                x = local_response_norm(x, lrn)
                yield f"norm{number}", x
        x = x.reshape(-1)
        for layer in ("fc6", "fc7"):
            x = self._connect(x, layer)
            yield f"{layer}_pre", x
            x = relu(x)
            yield layer, x
        if self.spec.has_head:
            x = self._connect(x, "fc8")
            yield "logits", x
            yield "probabilities", softmax(x)

    def _parameters(self, layer: str) -> tuple[Array, Array]:
        """Return weight and bias in `dtype`, converted on first use."""
        if layer not in self._weights:
            bias = self.checkpoint.arrays[f"{layer}.bias"].astype(self.dtype)
            self._weights[layer] = self.checkpoint.dense(layer, self.dtype), bias
        return self._weights[layer]

    def _connect(self, x: Array, layer: str) -> Array:
        weight, bias = self._parameters(layer)
        return weight @ x + bias

    def _convolve(self, x: Array, number: int) -> Array:
        weight, bias = self._parameters(f"conv{number}")
        return convolve(
            x,
            weight,
            bias,
            stride=CONV_STRIDES[number - 1],
            padding=self.spec.conv_padding(number),
            groups=self.spec.groups[number - 1],
        )


def convolve(
    x: Array,
    weight: Array,
    bias: Array,
    *,
    stride: int,
    padding: tuple[int, int, int, int],
    groups: int,
) -> Array:
    """Cross-correlate (C, H, W) with (out, C / groups, k, k); zero-padded; section 3.5.

    `padding` is top, left, bottom, right in px. Each of the `groups` towers of kernels sees its
    own slice of the channels.
    """
    top, left, bottom, right = padding
    x = np.pad(x, ((0, 0), (top, bottom), (left, right)))
    kernel = weight.shape[-1]
    windows = sliding_window_view(x, (kernel, kernel), axis=(1, 2))[:, ::stride, ::stride]
    _, height, width, _, _ = windows.shape
    towers = []
    for tower_windows, tower_weight in zip(
        np.split(windows, groups), np.split(weight, groups), strict=True
    ):
        columns = tower_windows.transpose(0, 3, 4, 1, 2).reshape(-1, height * width)  # (Ckk, P)
        towers.append(tower_weight.reshape(len(tower_weight), -1) @ columns)
    return np.concatenate(towers).reshape(-1, height, width) + bias[:, None, None]


def relu(x: Array) -> Array:
    """Section 3.1: max(0, x)."""
    return np.maximum(x, 0)


def local_response_norm(x: Array, lrn: LrnSpec) -> Array:
    """Section 3.3 on (C, H, W), the window cut off at the edges of each tower."""
    towers = []
    for tower in np.split(x, lrn.towers):
        reach = lrn.size // 2
        squares = np.pad(tower * tower, ((reach, reach), (0, 0), (0, 0)))
        sums = sum(squares[i : i + len(tower)] for i in range(lrn.size))
        towers.append(tower / (lrn.k + lrn.alpha / lrn.size * sums) ** lrn.beta)
    return np.concatenate(towers)


def max_pool(x: Array, padding: int = 0) -> Array:
    """Section 3.4: the maximum of overlapping 3x3 windows, 2 px apart.

    The windows may reach `padding` px beyond the map, at the bottom and on the right.
    """
    x = np.pad(x, ((0, 0), (0, padding), (0, padding)), constant_values=-np.inf)
    _, height, width = x.shape
    steps = range(POOL_SIZE)
    # One window offset at a time: ten times as fast as a maximum over small axes.
    shifted = [
        x[
            :,
            i : height - POOL_SIZE + i + 1 : POOL_STRIDE,
            j : width - POOL_SIZE + j + 1 : POOL_STRIDE,
        ]
        for i in steps
        for j in steps
    ]
    pooled: Array = np.maximum.reduce(shifted)
    return pooled


def softmax(x: Array) -> Array:
    """Section 3.5: exponentials that sum to one."""
    exponentials = np.exp(x - x.max())
    result: Array = exponentials / exponentials.sum()
    return result


def crop(photograph: Image.Image, spec: ModelSpec) -> NDArray[np.uint8]:
    """Resize a whole RGB picture and crop its centre, in the simplest way: (H, W, 3).

    Sizes and offsets round as torchvision's Resize and CenterCrop do. The serving path computes
    only the part that is kept; this computes it all, as a check.
    """
    wanted = spec.preprocessing
    width, height = photograph.size
    if wanted.resize == "squash":
        size = (wanted.resize_to, wanted.resize_to)
    elif width <= height:
        size = (wanted.resize_to, int(wanted.resize_to * height / width))
    else:
        size = (int(wanted.resize_to * width / height), wanted.resize_to)
    resampling = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    pixels = np.asarray(photograph.resize(size, resampling[wanted.filter]))
    top = round((size[1] - spec.input_size) / 2)
    left = round((size[0] - spec.input_size) / 2)
    return pixels[top : top + spec.input_size, left : left + spec.input_size]
