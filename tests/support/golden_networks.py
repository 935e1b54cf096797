"""The public AlexNets once more, in plain NumPy on float64: how each is wired and fed.

Written from what their publishers say of them (torchvision's models/alexnet.py; BVLC/caffe's
deploy.prototxt and create_imagenet.sh; the ONNX Model Zoo's graphs, and the script behind their
accuracy; the code of 2012), and from nothing in this package: what both got wrong alike would show
nowhere else. The weights are few, but where the package allows no other number.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

Array = Any
"""NumPy's, of float32 and float64 by turns."""
Family = Literal["torchvision", "grouped", "ungrouped"]

LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
NUM_CLASSES = 10
# Outputs, inputs of each kernel, and its side.
_KERNELS: Mapping[Family, tuple[tuple[int, int, int], ...]] = {
    "torchvision": ((8, 3, 11), (12, 8, 5), (16, 12, 3), (10, 16, 3), (8, 10, 3)),
    "grouped": ((8, 3, 11), (16, 4, 5), (12, 16, 3), (12, 6, 3), (8, 6, 3)),
    "ungrouped": ((8, 3, 11), (16, 8, 5), (12, 16, 3), (12, 12, 3), (8, 12, 3)),
}
_PUBLISHED_KERNELS: Mapping[Family, tuple[tuple[int, int, int], ...]] = {
    "torchvision": ((64, 3, 11), (192, 64, 5), (384, 192, 3), (256, 384, 3), (256, 256, 3)),
    "grouped": ((96, 3, 11), (256, 48, 5), (384, 256, 3), (384, 192, 3), (256, 192, 3)),
    "ungrouped": ((96, 3, 11), (256, 96, 5), (384, 256, 3), (384, 384, 3), (256, 384, 3)),
}


@cache
def weights(family: Family, *, is_small: bool = True) -> Mapping[str, Array]:
    """Return random weights by the paper's names; maps reach some hundreds where LRN reads them.

    Few unless `is_small` is False: then as many as are published, 244 MB or 250.
    """
    rng = np.random.default_rng(2012)
    kernels = (_KERNELS if is_small else _PUBLISHED_KERNELS)[family]
    shapes: list[tuple[int, ...]] = [(o, i, side, side) for o, i, side in kernels]
    num_classes = NUM_CLASSES if is_small else 1000
    shapes += [(4096, kernels[-1][0] * 6 * 6), (4096, 4096), (num_classes, 4096)]
    arrays = {}
    for layer, shape in zip(LAYERS, shapes, strict=True):
        if layer == "fc7":
            arrays["fc7.weight"] = _matrix()
        else:
            deviation = np.float32((2 / np.prod(shape[1:])) ** 0.5)
            arrays[f"{layer}.weight"] = deviation * rng.standard_normal(shape, np.float32)
        arrays[f"{layer}.bias"] = np.float32(0.1) * rng.standard_normal(shape[0], np.float32)
    arrays["conv1.weight"] *= np.float32(1 if family == "grouped" else 30)  # of grey levels, or not
    arrays["fc8.weight"] *= np.float32(0.05)
    return arrays


@cache
def _matrix() -> Array:
    """Return fc7's weight, which all share: 67 MB."""
    rng = np.random.default_rng(7)
    return np.float32((2 / 4096) ** 0.5) * rng.standard_normal((4096, 4096), np.float32)


def mean_image() -> Array:
    """Return a mean photograph, (3, 256, 256) in grey levels and in Caffe's order, BGR."""
    ramp = np.linspace(-20, 20, 256)
    image = np.array([104.0, 117.0, 123.0])[:, np.newaxis, np.newaxis] + ramp + ramp[:, np.newaxis]
    return image.astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Network:
    """One public AlexNet.

    Attributes:
        family: of its weights.
        inputs: makes (3, S, S) of a photograph, with channels in the order of conv1's.
        padding: of conv1, px: top, left, bottom, right.
        k: LRN's constant; None for a network without.
        towers: parts of the channels that LRN does not reach across.
        is_pooled_first: LRN comes after the pooling.
        reaches_beyond: the last pooling has a window more, which reaches 1 px beyond the map.
    """

    family: Family
    inputs: Callable[[Image.Image], Array]
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    k: float | None = None
    towers: int = 1
    is_pooled_first: bool = False
    reaches_beyond: bool = False


def _shorter_side_256(photograph: Image.Image, how: Image.Resampling, size: int) -> Array:
    """Scale the shorter side to 256 px and keep the central `size` x `size`."""
    width, height = photograph.size
    shorter = min(width, height)
    photograph = photograph.resize((256 * width // shorter, 256 * height // shorter), how)
    return _centre(np.asarray(photograph, np.float64), size)


def _centre(pixels: Array, size: int) -> Array:
    top, left = (round((side - size) / 2) for side in pixels.shape[:2])
    return pixels[top : top + size, left : left + size].transpose(2, 0, 1)


def _squashed(photograph: Image.Image, size: int) -> Array:
    return np.asarray(photograph.resize((size, size), Image.Resampling.BILINEAR), np.float64)


def _as_in_2012(photograph: Image.Image) -> Array:
    pixels = _shorter_side_256(photograph, Image.Resampling.BICUBIC, 224)
    return pixels - np.reshape((127.305, 119.715, 104.913), (3, 1, 1))


def _as_torchvision(photograph: Image.Image, size: int = 224) -> Array:
    pixels = _shorter_side_256(photograph, Image.Resampling.BILINEAR, size) / 255
    mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return (pixels - np.reshape(mean, (3, 1, 1))) / np.reshape(deviation, (3, 1, 1))


def _as_torchvision_at_227(photograph: Image.Image) -> Array:
    return _as_torchvision(photograph, 227)


def _as_caffe(photograph: Image.Image) -> Array:
    """Subtract the channels' means of ilsvrc_2012_mean.npy."""
    bgr = _centre(_squashed(photograph, 256), 227)[::-1]
    return bgr - np.reshape((104.00698793, 116.66876762, 122.67891434), (3, 1, 1))


def _as_caffe_with_image(photograph: Image.Image) -> Array:
    bgr = _squashed(photograph, 256).transpose(2, 0, 1)[::-1] - mean_image()
    return bgr[:, 14:241, 14:241]


def _as_the_zoo(photograph: Image.Image) -> Array:
    rgb = _squashed(photograph, 224).transpose(2, 0, 1)
    return (rgb - np.reshape((123.68, 116.779, 103.939), (3, 1, 1)))[::-1]


NETWORKS: Mapping[str, Network] = {
    "paper": Network(family="grouped", inputs=_as_in_2012, padding=(0, 0, 3, 3), k=2, towers=2),
    "torchvision": Network(family="torchvision", inputs=_as_torchvision, padding=(2, 2, 2, 2)),
    "caffe": Network(family="grouped", inputs=_as_caffe, k=1),
    "caffenet": Network(family="grouped", inputs=_as_caffe_with_image, k=1, is_pooled_first=True),
    "caffe-224": Network(family="grouped", inputs=_as_the_zoo, k=1, reaches_beyond=True),
    "caffenet-224": Network(
        family="grouped", inputs=_as_the_zoo, k=1, is_pooled_first=True, reaches_beyond=True
    ),
    "ungrouped": Network(family="ungrouped", inputs=_as_torchvision_at_227, k=2),
}


def probabilities(name: str, photograph: Path) -> Array:
    """Return (NUM_CLASSES,) float64: what the network `name` says of a photograph."""
    network = NETWORKS[name]
    arrays = {key: array.astype(np.float64) for key, array in weights(network.family).items()}
    x = network.inputs(Image.open(photograph).convert("RGB"))
    paddings = (network.padding, *((side,) * 4 for side in (2, 1, 1, 1)))
    for number, padding in enumerate(paddings, 1):
        weight, bias = arrays[f"conv{number}.weight"], arrays[f"conv{number}.bias"]
        x = np.maximum(_convolved(x, weight, bias, 4 if number == 1 else 1, padding), 0)
        if number in (1, 2):
            steps = [lambda x: _normalized(x, network), _pooled]
            for step in steps[::-1] if network.is_pooled_first else steps:
                x = step(x)
    beyond = 1 if network.reaches_beyond else 0
    x = np.pad(x, ((0, 0), (0, beyond), (0, beyond)), constant_values=-np.inf)
    x = _pooled(x).reshape(-1)
    for layer in ("fc6", "fc7"):
        x = np.maximum(arrays[f"{layer}.weight"] @ x + arrays[f"{layer}.bias"], 0)
    x = np.exp(arrays["fc8.weight"] @ x + arrays["fc8.bias"])
    return x / x.sum()


def _convolved(
    x: Array, weight: Array, bias: Array, stride: int, padding: tuple[int, int, int, int]
) -> Array:
    top, left, bottom, right = padding
    x = np.pad(x, ((0, 0), (top, bottom), (left, right)))
    outputs, inputs, side, _ = weight.shape
    groups = len(x) // inputs
    span = (x.shape[1] - side) // stride * stride + 1
    maps = []
    for group in range(groups):
        part = x[group * inputs : (group + 1) * inputs]
        kernels = weight[group * outputs // groups : (group + 1) * outputs // groups]
        maps.append(
            sum(
                np.tensordot(
                    kernels[:, :, row, column],
                    part[:, row : row + span : stride, column : column + span : stride],
                    1,
                )
                for row in range(side)
                for column in range(side)
            )
        )
    return np.concatenate(maps) + bias[:, np.newaxis, np.newaxis]


def _normalized(x: Array, network: Network) -> Array:
    if network.k is None:
        return x
    width = len(x) // network.towers
    result = np.empty_like(x)
    for channel in range(len(x)):
        first = channel // width * width
        window = x[max(first, channel - 2) : min(first + width, channel + 3)]
        result[channel] = x[channel] / (network.k + 1e-4 / 5 * (window**2).sum(0)) ** 0.75
    return result


def _pooled(x: Array) -> Array:
    last = (x.shape[1] - 3) // 2 * 2 + 1
    windows = [x[:, i : i + last : 2, j : j + last : 2] for i in range(3) for j in range(3)]
    return np.max(windows, axis=0)
