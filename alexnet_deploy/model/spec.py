"""`ModelSpec`: everything a network needs besides its weights, as data.

The presets differ in padding, groups, normalization and preprocessing, not in code (sources:
Krizhevsky et al. 2012; the 2012 code; Caffe; torchvision; the ONNX Model Zoo).

Layer names, in forward order, are used for checkpoints, ONNX tensors and `layers`:

    conv1_pre conv1 norm1 pool1  conv2_pre conv2 norm2 pool2  conv3_pre conv3  conv4_pre conv4
    conv5_pre conv5 pool5  fc6_pre fc6  fc7_pre fc7  logits probabilities

`convN`, `fc6` and `fc7` are taken after their ReLU, `convN_pre`, `fc6_pre` and `fc7_pre` before it.
A network without normalization has no `normN`; with `lrn.position == "after_pool"` `poolN` comes
before it. A network without a head ends with `fc7`. `model.layers` knows the names that torchvision
and Caffe have for them.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, get_args

from alexnet_deploy.errors import UsageError
from alexnet_deploy.files.records import (
    LATER,
    Within,
    check_fields,
    plain_fields,
    read_record,
    require,
)

SPEC_KEY = "alexnet_deploy.spec"
"""The metadata key of that JSON in checkpoints and models."""

PresetName = Literal[
    "paper", "torchvision", "caffe", "caffenet", "caffe-224", "caffenet-224", "ungrouped"
]
PRESET_NAMES: tuple[PresetName, ...] = get_args(PresetName)
LrnPosition = Literal["before_pool", "after_pool"]
Resize = Literal["shorter_side", "squash"]
Filter = Literal["bilinear", "bicubic"]
# Krizhevsky et al. 2012, section 3.5; the same in all presets.
CONV_KERNELS = (11, 5, 3, 3, 3)
CONV_STRIDES = (4, 1, 1, 1, 1)
CONV_PADDINGS = (0, 2, 1, 1, 1)  # conv1's own is `ModelSpec.conv1_padding`
POOL_SIZE, POOL_STRIDE = 3, 2  # overlapping pooling, section 3.4
POOLED_CONVS = (1, 2, 5)
NORMALIZED_CONVS = (1, 2)
FC_WIDTH = 4096

_GreyLevel = Annotated[float, Within(-1e6, 1e6)]
_Deviation = Annotated[float, Within(above=0, most=1e6)]
_Padding = Annotated[int, Within(0, 4096)]
_Width = Annotated[int, Within(1, 4096)]
_PoolPadding = Annotated[int, Within(0, POOL_SIZE - 1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class LrnSpec:
    """Local response normalization: `a / (k + alpha/size * sum of a^2 over the window)^beta`.

    `alpha` is divided by `size`, as in the 2012 code, ONNX, torch and Caffe (the paper's text does
    not divide). The window is `size` channels wide and does not cross the edges of the `towers`
    equal slices of the channels.
    """

    size: Annotated[int, Within(1, 999)]
    # These bounds keep the base of the power positive, whatever the activations.
    alpha: Annotated[float, Within(0, 1e6)]
    beta: Annotated[float, Within(-100, 100)]
    k: Annotated[float, Within(above=0, most=1e6)]
    towers: Annotated[int, Within(1, 4096)]
    position: LrnPosition

    def __post_init__(self) -> None:
        """Reject an impossible window; see `ModelSpec.__post_init__`."""
        check_fields(self)
        require(self.size % 2 == 1, "size", self.size, "an odd number")


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """From a decoded RGB photograph to the network's input.

    `resize`: "shorter_side" scales the shorter side to `resize_to` px, keeping the aspect ratio;
    "squash" scales to `resize_to` x `resize_to`. Then the centre is cropped to the network's input
    size. `mean` and `std` are RGB, in grey levels 0..255: input = (pixel - mean) / std.
    """

    resize: Resize
    resize_to: Annotated[int, Within(1, 4096)]
    filter: Filter
    mean: tuple[_GreyLevel, _GreyLevel, _GreyLevel]
    std: tuple[_Deviation, _Deviation, _Deviation]

    def __post_init__(self) -> None:
        """Reject values that cannot be computed with; see `ModelSpec.__post_init__`."""
        check_fields(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """One AlexNet: architecture, preprocessing, labels and provenance.

    Attributes:
        preset: the preset it derives from; informative, not part of the identity.
        input_size: height and width of the input in px.
        conv1_padding: zeros around conv1's input, px: top, left, bottom, right.
        widths: number of kernels of conv1 .. conv5.
        groups: groups of conv1 .. conv5; 2 where the paper's kernels see one tower only.
        lrn: the local response normalization of conv1 and conv2, or None.
        num_classes: outputs of fc8; 0 for a network without one.
        labels: one name per class, or empty when unknown.
        provenance: free-form JSON about the weights (data, recipe, measured figures).
        pool_padding: px by which pool1, pool2 and pool5 reach beyond their input at the bottom and
            on the right, where it has no maximum.
    """

    FORMAT: ClassVar[int] = 2

    preset: PresetName
    input_size: Annotated[int, Within(1, 4096)]
    conv1_padding: tuple[_Padding, _Padding, _Padding, _Padding]
    widths: tuple[_Width, _Width, _Width, _Width, _Width]
    groups: tuple[_Width, _Width, _Width, _Width, _Width]
    lrn: LrnSpec | None
    preprocessing: Preprocessing
    num_classes: Annotated[int, Within(0, 1_000_000)]
    labels: tuple[Annotated[str, Within(most=1000)], ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    pool_padding: tuple[_PoolPadding, _PoolPadding, _PoolPadding] = field(
        default=(0, 0, 0), metadata=LATER
    )

    def __post_init__(self) -> None:
        """Reject impossible values; convert lists to tuples, 5.0 to int and 2 to float.

        Equal specs then have the same JSON and the same identity, whoever wrote them.

        Raises:
            IncompatibleFileError: naming the field, the value given and what was expected.
        """
        check_fields(self)
        require(
            len(self.labels) in (0, self.num_classes),
            "labels",
            self.labels,
            f"none, or one for each of the {self.num_classes} classes (got {len(self.labels)})",
        )
        self._check_maps()
        self._check_channels()

    def _check_maps(self) -> None:
        top, left, bottom, right = self.conv1_padding
        expected = "as much above and below as left and right, since maps are square"
        require(top + bottom == left + right, "conv1_padding", self.conv1_padding, expected)
        last = self.layer_shapes()["pool5"]
        expected = "67 px or more with conv1's padding, or the maps vanish"
        require(last[1] >= 1, "input_size", self.input_size, expected)
        expected = f"at least the input size, {self.input_size} px"
        resize_to = self.preprocessing.resize_to
        require(resize_to >= self.input_size, "preprocessing.resize_to", resize_to, expected)

    def _check_channels(self) -> None:
        inputs = (3, *self.widths[:4])
        divides = all(
            width % group == 0 and before % group == 0
            for before, width, group in zip(inputs, self.widths, self.groups, strict=True)
        )
        expected = "divisors of the widths before and after each layer"
        require(divides, "groups", self.groups, expected)
        if self.lrn is not None:
            normalized = [self.widths[number - 1] for number in NORMALIZED_CONVS]
            expected = f"a divisor of conv1's and conv2's widths, {normalized}"
            fits = all(width % self.lrn.towers == 0 for width in normalized)
            require(fits, "lrn.towers", self.lrn.towers, expected)

    @property
    def has_head(self) -> bool:
        """Whether it classifies: without fc8 it ends with fc7."""
        return self.num_classes > 0

    def label(self, index: int) -> str:
        """Return the name of class `index`, `class 17` if the labels are unknown."""
        return self.labels[index] if self.labels else f"class {index}"

    def layer_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return each layer's output shape without the batch, in forward order.

        (C, H, W) for maps, (D,) for vectors.
        """
        shapes: dict[str, tuple[int, ...]] = {}
        size = self.input_size
        for index, width in enumerate(self.widths):
            number = index + 1
            top, _, bottom, _ = self.conv_padding(number)
            size = (size + top + bottom - CONV_KERNELS[index]) // CONV_STRIDES[index] + 1
            shapes |= dict.fromkeys((f"conv{number}_pre", f"conv{number}"), (width, size, size))
            normalized = self.lrn is not None and number in NORMALIZED_CONVS
            if normalized and self.lrn and self.lrn.position == "before_pool":
                shapes[f"norm{number}"] = (width, size, size)
            if number in POOLED_CONVS:
                size = (size + self.padding_of_pool(number) - POOL_SIZE) // POOL_STRIDE + 1
                shapes[f"pool{number}"] = (width, size, size)
            if normalized and self.lrn and self.lrn.position == "after_pool":
                shapes[f"norm{number}"] = (width, size, size)
        shapes |= dict.fromkeys(("fc6_pre", "fc6", "fc7_pre", "fc7"), (FC_WIDTH,))
        if self.has_head:
            shapes |= {"logits": (self.num_classes,), "probabilities": (self.num_classes,)}
        return shapes

    def conv_padding(self, number: int) -> tuple[int, int, int, int]:
        """Return the zeros around the input of conv `number` (1..5): top, left, bottom, right."""
        if number == 1:
            return self.conv1_padding
        padding = CONV_PADDINGS[number - 1]
        return (padding, padding, padding, padding)

    def padding_of_pool(self, number: int) -> int:
        """Return `pool_padding` of pool `number` (1, 2 or 5), px."""
        return self.pool_padding[POOLED_CONVS.index(number)]

    def array_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each weight and bias, under the paper's names, in forward order.

        Convolutions are (out, in / groups, kernel, kernel), fully connected layers (out, in).
        """
        shapes: dict[str, tuple[int, ...]] = {}
        inputs = (3, *self.widths[:4])
        for index, width in enumerate(self.widths):
            kernel = CONV_KERNELS[index]
            weight = (width, inputs[index] // self.groups[index], kernel, kernel)
            shapes |= {f"conv{index + 1}.weight": weight, f"conv{index + 1}.bias": (width,)}
        fan_in = math.prod(self.layer_shapes()["pool5"])
        for name, width in (("fc6", FC_WIDTH), ("fc7", FC_WIDTH), ("fc8", self.num_classes)):
            shapes |= {f"{name}.weight": (width, fan_in), f"{name}.bias": (width,)}
            fan_in = width
        if not self.has_head:
            del shapes["fc8.weight"], shapes["fc8.bias"]
        return shapes

    def result_fields(self) -> dict[str, Any]:
        """Return the fields that change what is computed: all but names, labels, provenance."""
        fields = plain_fields(self)
        for name in ("preset", "labels", "provenance", "num_classes"):
            del fields[name]
        return fields

    def to_json(self) -> str:
        """Return the spec as one line of JSON with its format version; `from_json` reads it."""
        fields = plain_fields(self) | {"provenance": dict(self.provenance)}
        return json.dumps({"format": self.FORMAT, **fields}, allow_nan=False)

    @classmethod
    def from_json(cls, text: str, source: str = "model spec") -> "ModelSpec":
        """Read what `to_json` wrote; `source` names its origin in messages.

        Raises:
            IncompatibleFileError: not JSON, a field missing, unknown or invalid, or another format.
        """
        return read_record(cls, text, source, "write the file again with this version")


# The 2012 code subtracts the training set's mean image; without one, its channel means
# (grey levels, RGB) as stored with cuda-convnet2's ImageNet batches.
_IMAGENET_MEAN_2012 = (127.305, 119.715, 104.913)
# Caffe's ilsvrc_2012_mean.npy averaged per channel, there in the order BGR.
_IMAGENET_MEAN_CAFFE = (122.67891434, 116.66876762, 104.00698793)

_PAPER = ModelSpec(
    preset="paper",
    input_size=224,
    # The 2012 code rounds up: 224 px give 55 positions because the last kernel reads 3 px of
    # zeros on the right and at the bottom.
    conv1_padding=(0, 0, 3, 3),
    widths=(96, 256, 384, 384, 256),
    groups=(1, 2, 1, 2, 2),
    lrn=LrnSpec(size=5, alpha=1e-4, beta=0.75, k=2.0, towers=2, position="before_pool"),
    preprocessing=Preprocessing(
        resize="shorter_side",
        resize_to=256,
        filter="bicubic",
        mean=_IMAGENET_MEAN_2012,
        std=(1.0, 1.0, 1.0),
    ),
    num_classes=1000,
)
_CAFFE = dataclasses.replace(
    _PAPER,
    preset="caffe",
    input_size=227,
    conv1_padding=(0, 0, 0, 0),
    lrn=LrnSpec(size=5, alpha=1e-4, beta=0.75, k=1.0, towers=1, position="before_pool"),
    preprocessing=Preprocessing(
        resize="squash",
        resize_to=256,
        filter="bilinear",
        mean=_IMAGENET_MEAN_CAFFE,
        std=(1.0, 1.0, 1.0),
    ),
)
_CAFFENET = dataclasses.replace(
    _CAFFE,
    preset="caffenet",
    lrn=LrnSpec(size=5, alpha=1e-4, beta=0.75, k=1.0, towers=1, position="after_pool"),
)
_TORCHVISION = dataclasses.replace(
    _PAPER,
    preset="torchvision",
    conv1_padding=(2, 2, 2, 2),
    widths=(64, 192, 384, 256, 256),
    groups=(1, 1, 1, 1, 1),
    lrn=None,
    preprocessing=Preprocessing(
        resize="shorter_side",
        resize_to=256,
        filter="bilinear",
        # torchvision's own numbers are in 0..1 (transforms/_presets.py).
        mean=(0.485 * 255, 0.456 * 255, 0.406 * 255),
        std=(0.229 * 255, 0.224 * 255, 0.225 * 255),
    ),
)
# The ONNX Model Zoo's files: Caffe's weights at 224 px, where the last pool must reach 1 px beyond
# its input for fc6 to fit. The whole photograph is squashed to 224 px, as in the script behind the
# accuracy that the zoo gives.
_ZOO_224: Mapping[str, Any] = {
    "input_size": 224,
    "pool_padding": (0, 0, 1),
    "preprocessing": Preprocessing(
        resize="squash",
        resize_to=224,
        filter="bilinear",
        mean=(123.68, 116.779, 103.939),
        std=(1.0, 1.0, 1.0),
    ),
}
PRESETS: Mapping[str, ModelSpec] = MappingProxyType(
    {
        "paper": _PAPER,
        "torchvision": _TORCHVISION,
        "caffe": _CAFFE,
        "caffenet": _CAFFENET,
        "caffe-224": dataclasses.replace(_CAFFE, preset="caffe-224", **_ZOO_224),
        "caffenet-224": dataclasses.replace(_CAFFENET, preset="caffenet-224", **_ZOO_224),
        # The paper's widths without its two towers, 62,378,344 parameters, as many programs have
        # it that were written after the paper's text.
        "ungrouped": dataclasses.replace(
            _CAFFE,
            preset="ungrouped",
            groups=(1, 1, 1, 1, 1),
            lrn=LrnSpec(size=5, alpha=1e-4, beta=0.75, k=2.0, towers=1, position="before_pool"),
            preprocessing=_TORCHVISION.preprocessing,
        ),
    }
)
"""The networks known as AlexNet, with 1000 unnamed classes."""


def preset_spec(name: str, *, num_classes: int = 1000, labels: tuple[str, ...] = ()) -> ModelSpec:
    """Return the preset `name` for `num_classes` classes.

    Raises:
        UsageError: there is no preset of that name.
    """
    if name not in PRESETS:
        raise UsageError(f"there is no preset {name!r}; choose from {', '.join(PRESET_NAMES)}")
    return dataclasses.replace(PRESETS[name], num_classes=num_classes, labels=labels)
