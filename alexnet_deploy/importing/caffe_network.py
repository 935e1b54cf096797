"""What network a Caffe message describes: the chain of its layers, held to AlexNet's.

In Caffe convolutions round their outputs down, and pooling rounds up.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from alexnet_deploy.errors import IncompatibleFileError
from alexnet_deploy.importing.messages import Message
from alexnet_deploy.importing.source import StatedNetwork
from alexnet_deploy.model.spec import (
    CONV_KERNELS,
    CONV_PADDINGS,
    CONV_STRIDES,
    POOL_SIZE,
    POOL_STRIDE,
    POOLED_CONVS,
    LrnPosition,
    LrnSpec,
)

# One letter a layer, in the order of the network.
_LETTERS = {"convolution": "C", "relu": "R", "lrn": "L", "pooling": "P", "innerproduct": "F"}
_ALEXNET = re.compile(r"CR(LP|PL|P)CR\1CRCRCRPFRFRF?")
_POSITIONS: dict[str, LrnPosition] = {"LP": "before_pool", "PL": "after_pool"}
_EXPECTED = (
    "AlexNet's are five Convolutions, each with ReLU, after the first and second LRN and Pooling "
    "in either order, or Pooling alone, after the fifth Pooling, then three InnerProducts with "
    "ReLU between them, or two with ReLU after each"
)
# Layers that pass on the numbers that they get, at least when a network is used.
_PASSING = {"dropout", "split", "flatten", "reshape"}
_ENDS = {"softmax", "accuracy", "silence", "argmax", "hdf5output"}
_TRANSFORMS = ("transform_param", "data_param", "image_data_param", "window_data_param")
_TRIED_SIZES = (227, 224, *range(67, 513))  # px, where a file states none
_MAX_NAMED = 40  # layers in a message


class NotAlexNetError(ValueError):
    """The network is another one; the message says what came and what was expected.

    Attributes:
        remedy: what to do.
    """

    def __init__(self, message: str, remedy: str = "give the model of an AlexNet") -> None:
        super().__init__(message)
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class CaffeLayer:
    """A layer as both formats have it.

    Attributes:
        name: by which Caffe finds its weights.
        type: as the file writes it.
        kind: the same without what the two formats write differently: "innerproduct".
        message: all of it.
    """

    name: str
    type: str
    kind: str
    message: Message

    def __str__(self) -> str:
        return f"layer {self.name[:80]} ({self.type[:40] or 'without a type'})"

    @property
    def parameters(self) -> Message:
        """Those of its type."""
        names = {"innerproduct": "inner_product_param"}
        return self.message.message(names.get(self.kind, f"{self.kind}_param"))

    @property
    def is_used(self) -> bool:
        """Whether it is there when the network is used (phase TEST), not only in training."""
        if "include" in self.message:
            return any(map(_is_met, self.message.messages("include")))
        return not any(map(_is_met, self.message.messages("exclude")))

    @property
    def is_end(self) -> bool:
        """Whether what it makes is not of the network: losses, accuracies, probabilities."""
        return self.kind in _ENDS or "loss" in self.kind


def _is_met(rule: Message) -> bool:
    stages = set(rule.texts("stage"))
    is_out = "deploy" in rule.texts("not_stage")
    return rule.text("phase", "TEST") == "TEST" and stages <= {"deploy"} and not is_out


def layers_in(net: Message) -> list[CaffeLayer]:
    """Return the layers of a network in their order.

    Raises:
        NotAlexNetError: they are in the format of 2013.
    """
    layers = []
    for message in net.messages("layer") or net.messages("layers"):
        if "layer" in message:
            raise NotAlexNetError(
                "its layers are in Caffe's format of 2013, expected that of 2014 or later",
                "convert it with Caffe's upgrade_net_proto_binary, or upgrade_net_proto_text",
            )
        type_ = message.text("type")
        kind = type_.replace("_", "").lower()
        layers.append(CaffeLayer(message.text("name"), type_, kind, message))
    return layers


def alexnet_path(layers: list[CaffeLayer]) -> list[CaffeLayer]:
    """Return AlexNet's layers in the order of the network, without those that only pass on.

    Where no layer says what it reads, as in a file of weights alone, they are only those with
    weights, in the order of the file.

    Raises:
        NotAlexNetError: it is another network; the message says what is different.
    """
    layers = [layer for layer in layers if layer.is_used]
    counts = tuple(
        sum(layer.kind == k for layer in layers) for k in ("convolution", "innerproduct")
    )
    if counts not in {(5, 3), (5, 2)}:
        raise NotAlexNetError(
            f"holds {counts[0]} convolutions and {counts[1]} fully connected layers (InnerProduct),"
            " AlexNet has five and three, or two without classes"
        )
    if not any("bottom" in layer.message for layer in layers):
        return [layer for layer in layers if layer.kind in ("convolution", "innerproduct")]
    path = [layer for layer in _chain(layers) if not _is_passing(layer)]
    for layer in path:
        if layer.kind not in _LETTERS:
            raise NotAlexNetError(
                f"{layer} is none of AlexNet's, which are Convolution, ReLU, LRN, Pooling, "
                "InnerProduct and Dropout"
            )
    if _ALEXNET.fullmatch(_letters(path)) is None:
        names = [f"{layer.name[:40]} ({layer.type[:40]})" for layer in path[:_MAX_NAMED]]
        raise NotAlexNetError(f"its layers are {', '.join(names)}; {_EXPECTED}")
    return path


def _chain(layers: list[CaffeLayer]) -> Iterator[CaffeLayer]:
    """Yield what leads from the input to the last InnerProduct, and on."""
    makers: dict[str, int] = {}
    before: list[int | None] = []
    for index, layer in enumerate(layers):
        bottoms = layer.message.texts("bottom")
        before.append(next((makers[blob] for blob in bottoms if blob in makers), None))
        if not layer.is_end:
            makers |= dict.fromkeys(layer.message.texts("top"), index)
    last = max(index for index, layer in enumerate(layers) if layer.kind == "innerproduct")
    chain: list[int] = []
    at: int | None = last
    while at is not None:
        chain.append(at)
        at = before[at]
    chain.reverse()
    for index in range(last + 1, len(layers)):
        if before[index] == chain[-1] and not layers[index].is_end:
            chain.append(index)
    return (layers[index] for index in chain if "bottom" in layers[index].message)


def _is_passing(layer: CaffeLayer) -> bool:
    if layer.kind == "dropout" and not layer.parameters.flag("scale_train", True):
        raise NotAlexNetError(
            f"{layer}: its scale_train is false, so it scales when the network is used, "
            "expected true",
            "multiply the weights of the layer after it instead",
        )
    return layer.kind in _PASSING


def _letters(path: list[CaffeLayer]) -> str:
    # The maximum of what ReLU gives is what ReLU gives of the maximum.
    return "".join(_LETTERS[layer.kind] for layer in path).replace("PR", "RP")


def weighted_layers(path: list[CaffeLayer]) -> dict[str, CaffeLayer]:
    """Return conv1 .. conv5, fc6, fc7 and, if there is one, fc8."""
    convolutions = [layer for layer in path if layer.kind == "convolution"]
    connected = [layer for layer in path if layer.kind == "innerproduct"]
    return {f"conv{number}": layer for number, layer in enumerate(convolutions, 1)} | {
        f"fc{number}": layer for number, layer in enumerate(connected, 6)
    }


def transform_in(layers: list[CaffeLayer]) -> Message | None:
    """Return what a layer of data does to a photograph, of one for tests if there is one."""
    found = [
        layer.message.message(name)
        for layer in _data_layers(layers)
        for name in _TRANSFORMS
        if name in layer.message
    ]
    fields = ("scale", "crop_size", "mean_file", "mean_value")
    stating = [message for message in found if any(field in message for field in fields)]
    return next(iter(stating + found), None)


def input_size_in(net: Message, layers: list[CaffeLayer]) -> int | None:
    """Return the height and width of the network's input, px, if it is stated.

    Raises:
        NotAlexNetError: height and width differ.
    """
    shapes = [shape.wholes("dim") for shape in net.messages("input_shape")]
    shapes.append(net.wholes("input_dim")[:4])
    for layer in _data_layers(layers):
        shapes += [s.wholes("dim") for s in layer.message.message("input_param").messages("shape")]
    for shape in shapes:
        if len(shape) == 4:
            if shape[2] != shape[3]:
                raise NotAlexNetError(f"its input is {shape}, expected as many rows as columns")
            return shape[2]
    transform = transform_in(layers)
    return (transform.whole("crop_size", 0) or None) if transform else None


def _data_layers(layers: list[CaffeLayer]) -> list[CaffeLayer]:
    sources = [layer for layer in layers if "bottom" not in layer.message]
    return sorted(sources, key=lambda layer: not layer.is_used)


def stated_network(
    path: list[CaffeLayer], transform: Message | None, size: int | None, fc6_inputs: tuple[int, int]
) -> StatedNetwork:
    """Return the network in the terms of `ModelSpec`.

    Args:
        path: of `alexnet_path`.
        transform: of `transform_in`.
        size: px; None for the size that gives fc6 its inputs, 227 if that does.
        fc6_inputs: the channels of conv5 and the number of inputs of fc6.

    Raises:
        NotAlexNetError: a layer has other parameters than AlexNet's.
    """
    conv1_padding, groups = _convolutions(path)
    is_ceiled = _poolings(path)
    channels, fan_in = fc6_inputs
    for tried in _TRIED_SIZES if size is None else (size,):
        pool_padding, side = _pooled(tried, conv1_padding, is_ceiled)
        if side > 0 and channels * side**2 == fan_in:
            break
    else:
        tried_ = "none of 67 .. 512 px" if size is None else f"not {size} px, which it states,"
        raise NotAlexNetError(
            f"fc6 has {fan_in} inputs, and {tried_} gives as many",
            "give the prototxt that belongs to the weights",
        )
    mean, std = _mean_and_std(transform) if transform else (None, None)
    return StatedNetwork(
        input_size=tried,
        conv1_padding=(conv1_padding,) * 4,
        pool_padding=pool_padding,
        groups=groups,
        lrn=_normalization(path),
        mean=mean,
        std=std,
    )


def _convolutions(path: list[CaffeLayer]) -> tuple[int, tuple[int, int, int, int, int]]:
    """Return conv1's padding, px, and the groups of all."""
    layers = [layer for layer in path if layer.kind == "convolution"]
    padding = _pair(layers[0], "pad", 0)[0]
    for index, layer in enumerate(layers):
        expected = padding if index == 0 else CONV_PADDINGS[index]
        _expect(layer, "kernel_size", _pair(layer, "kernel_size", 0), CONV_KERNELS[index])
        _expect(layer, "stride", _pair(layer, "stride", 1), CONV_STRIDES[index])
        _expect(layer, "pad", _pair(layer, "pad", 0), expected)
        _expect(layer, "dilation", _pair(layer, "dilation", 1), 1)
    one, two, three, four, five = (layer.parameters.whole("group", 1) for layer in layers)
    return padding, (one, two, three, four, five)


def _poolings(path: list[CaffeLayer]) -> list[bool]:
    """Return which round up."""
    layers = [layer for layer in path if layer.kind == "pooling"]
    for layer in layers:
        _expect(layer, "pool", layer.parameters.text("pool", "MAX"), "MAX")
        _expect(layer, "global_pooling", layer.parameters.flag("global_pooling", False), False)
        _expect(layer, "kernel_size", _pair(layer, "kernel_size", 0), POOL_SIZE)
        _expect(layer, "stride", _pair(layer, "stride", 1), POOL_STRIDE)
        _expect(layer, "pad", _pair(layer, "pad", 0), 0)
    return [layer.parameters.text("round_mode", "CEIL") == "CEIL" for layer in layers]


def _pooled(
    size: int, conv1_padding: int, is_ceiled: list[bool]
) -> tuple[tuple[int, int, int], int]:
    """Return `pool_padding` and the side of pool5, px."""
    added: list[int] = []
    for number, (kernel, stride) in enumerate(zip(CONV_KERNELS, CONV_STRIDES, strict=True), 1):
        padding = conv1_padding if number == 1 else CONV_PADDINGS[number - 1]
        size = (size + 2 * padding - kernel) // stride + 1
        if number in POOLED_CONVS:
            beyond = -(size - POOL_SIZE) % POOL_STRIDE if is_ceiled[len(added)] else 0
            size = (size + beyond - POOL_SIZE) // POOL_STRIDE + 1
            added.append(beyond)
    return (added[0], added[1], added[2]), size


def _normalization(path: list[CaffeLayer]) -> LrnSpec | None:
    for layer in path:
        if layer.kind == "relu":
            _expect(layer, "negative_slope", layer.parameters.number("negative_slope", 0), 0)
    match = _ALEXNET.fullmatch(_letters(path))
    layers = [layer for layer in path if layer.kind == "lrn"]
    if match is None or not layers:
        return None
    found = []
    for layer in layers:
        values, region = layer.parameters, "ACROSS_CHANNELS"
        _expect(layer, "norm_region", values.text("norm_region", region), region)
        try:
            lrn = LrnSpec(
                size=values.whole("local_size", 5),
                alpha=values.number("alpha", 1),
                beta=values.number("beta", 0.75),
                k=values.number("k", 1),
                towers=1,
                position=_POSITIONS[match[1]],
            )
        except IncompatibleFileError as error:
            raise NotAlexNetError(f"{layer}: its {error}") from error
        found.append(lrn)
    if found[0] != found[1]:
        raise NotAlexNetError(
            f"{layers[0]} and {layers[1]} differ ({found[0]}, {found[1]}), expected two that are "
            "equal"
        )
    return found[0]


_Three = tuple[float, float, float]


def _mean_and_std(transform: Message) -> tuple[_Three | None, _Three | None]:
    """Return what is subtracted, None for a mean image, and divided by."""
    scale = transform.number("scale", 1)
    if not 1e-6 <= scale <= 1e6:
        raise NotAlexNetError(f"its data are scaled by {scale}, expected 1e-6 .. 1e6")
    std = (1 / scale,) * 3
    if "mean_file" in transform:
        return None, std if scale != 1 else None
    means = transform.numbers("mean_value") or [0.0]
    if len(means) not in (1, 3):
        raise NotAlexNetError(f"its data have {len(means)} values of mean_value, expected 1 or 3")
    return (means[0], means[len(means) // 2], means[-1]), std


def _pair(layer: CaffeLayer, name: str, default: int) -> tuple[int, ...]:
    """Return the values of a parameter for rows and columns."""
    values, stem = layer.parameters, name.removesuffix("_size")
    if f"{stem}_h" in values or f"{stem}_w" in values:
        return values.whole(f"{stem}_h", default), values.whole(f"{stem}_w", default)
    given = values.wholes(name) or [default]
    return tuple(given * 2 if len(given) == 1 else given)


def _expect(layer: CaffeLayer, name: str, came: object, expected: object) -> None:
    if came != expected and came != (expected, expected):
        raise NotAlexNetError(f"{layer}: its {name} is {came}, AlexNet's is {expected}")
