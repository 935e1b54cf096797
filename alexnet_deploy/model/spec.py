"""`ModelSpec`: everything a network needs beside its weights, as data.

The four presets differ in padding, groups, normalisation and preprocessing, not in code
(docs of the differences: Krizhevsky et al. 2012; the 2012 code; Caffe; torchvision).

Layer names, in forward order, are used for checkpoints, ONNX tensors and `layers`:

    conv1 norm1 pool1  conv2 norm2 pool2  conv3 conv4 conv5 pool5  fc6 fc7_pre fc7  logits
    probabilities

`convN`, `fc6` and `fc7` are taken after their ReLU; `fc7_pre` is `fc7` before it. A network
without normalisation has no `normN`; with `lrn.position == "after_pool"` `poolN` comes before it.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, get_args

from alexnet_deploy.errors import IncompatibleFileError, UsageError
from alexnet_deploy.model.spec_fields import (
    as_float,
    as_floats,
    as_integer,
    as_integers,
    as_strings,
    require,
    require_one_of,
    store,
)

FORMAT_VERSION = 1
"""Version of the JSON that `ModelSpec.to_json` writes; a reader refuses any other."""
SPEC_KEY = "alexnet_deploy.spec"
"""Where checkpoints, models and Parquet files keep that JSON in their metadata."""

PresetName = Literal["paper", "torchvision", "caffe", "caffenet"]
PRESET_NAMES: tuple[PresetName, ...] = get_args(PresetName)
LrnPosition = Literal["before_pool", "after_pool"]
Resize = Literal["shorter_side", "squash"]
Filter = Literal["bilinear", "bicubic"]

# Krizhevsky et al. 2012, section 3.5; the same in all four presets.
CONV_KERNELS = (11, 5, 3, 3, 3)
CONV_STRIDES = (4, 1, 1, 1, 1)
CONV_PADDINGS = (0, 2, 1, 1, 1)  # conv1's own is `ModelSpec.conv1_padding`
POOL_SIZE, POOL_STRIDE = 3, 2  # overlapping pooling, section 3.4
POOLED_CONVS = (1, 2, 5)
NORMALISED_CONVS = (1, 2)
FC_WIDTH = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class LrnSpec:
    """Local response normalisation: `a / (k + alpha/size * sum of a^2 over the window)^beta`.

    `alpha` is divided by `size`, as in the 2012 code, ONNX, torch and Caffe (the paper's text
    does not divide). The window is `size` channels wide and stops at the edges of each of the
    `towers` equal slices of the channels.
    """

    size: int
    alpha: float
    beta: float
    k: float
    towers: int
    position: LrnPosition

    def __post_init__(self) -> None:
        """Refuse what no window can be; see `ModelSpec.__post_init__`."""
        store(
            self,
            size=as_integer("lrn.size", self.size, minimum=1),
            alpha=as_float("lrn.alpha", self.alpha),
            beta=as_float("lrn.beta", self.beta),
            k=as_float("lrn.k", self.k),
            towers=as_integer("lrn.towers", self.towers, minimum=1),
        )
        require(self.size % 2 == 1, "lrn.size", self.size, "an odd number")
        # With these the base of the power is above 0, whatever the activations are.
        require(self.alpha >= 0, "lrn.alpha", self.alpha, "0 or more")
        require(self.k > 0, "lrn.k", self.k, "more than 0")
        require_one_of("lrn.position", self.position, get_args(LrnPosition))


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """From a decoded RGB photograph to the network's input.

    `resize`: "shorter_side" scales the shorter side to `resize_to` px, keeping the aspect ratio;
    "squash" scales to `resize_to` x `resize_to`. Then the central crop of the network's input
    size. `mean` and `std` are RGB, in grey levels 0..255: input = (pixel - mean) / std.
    """

    resize: Resize
    resize_to: int
    filter: Filter
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        """Refuse what cannot be computed; see `ModelSpec.__post_init__`."""
        require_one_of("preprocessing.resize", self.resize, get_args(Resize))
        require_one_of("preprocessing.filter", self.filter, get_args(Filter))
        store(
            self,
            resize_to=as_integer("preprocessing.resize_to", self.resize_to, minimum=1),
            mean=as_floats("preprocessing.mean", self.mean, count=3),
            std=as_floats("preprocessing.std", self.std, count=3),
        )
        require(min(self.std) > 0, "preprocessing.std", self.std, "3 numbers above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """One AlexNet: architecture, preprocessing, labels and where it comes from.

    Attributes:
        preset: the preset it started from; a name for people, not part of the identity.
        input_size: height and width of the input in px.
        conv1_padding: zeros around conv1's input, px: top, left, bottom, right.
        widths: number of kernels of conv1 .. conv5.
        groups: groups of conv1 .. conv5; 2 where the paper's kernels see one tower only.
        lrn: the normalisation after conv1 and conv2, or None.
        num_classes: outputs of fc8.
        labels: one name per class, or empty when unknown.
        provenance: free JSON about the weights (data, recipe, measured figures).
    """

    preset: PresetName
    input_size: int
    conv1_padding: tuple[int, int, int, int]
    widths: tuple[int, int, int, int, int]
    groups: tuple[int, int, int, int, int]
    lrn: LrnSpec | None
    preprocessing: Preprocessing
    num_classes: int
    labels: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse values that no network can have; make lists tuples, 5.0 an int and 2 a float.

        What is equal then has one JSON and one fingerprint, whoever wrote it.

        Raises:
            IncompatibleFileError: naming the field, what came and what was expected.
        """
        require_one_of("preset", self.preset, PRESET_NAMES)
        store(
            self,
            input_size=as_integer("input_size", self.input_size, minimum=1),
            conv1_padding=as_integers("conv1_padding", self.conv1_padding, count=4, minimum=0),
            widths=as_integers("widths", self.widths, count=5, minimum=1),
            groups=as_integers("groups", self.groups, count=5, minimum=1),
            num_classes=as_integer("num_classes", self.num_classes, minimum=1),
            labels=as_strings("labels", self.labels),
        )
        require(
            len(self.labels) in (0, self.num_classes),
            "labels",
            self.labels,
            f"none, or one for each of the {self.num_classes} classes (got {len(self.labels)})",
        )
        provenance: object = self.provenance
        require(isinstance(provenance, Mapping), "provenance", provenance, "a JSON object")
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
            normalised = [self.widths[number - 1] for number in NORMALISED_CONVS]
            expected = f"a divisor of conv1's and conv2's widths, {normalised}"
            fits = all(width % self.lrn.towers == 0 for width in normalised)
            require(fits, "lrn.towers", self.lrn.towers, expected)

    def label(self, index: int) -> str:
        """Name class `index`, `class 17` where the labels are unknown."""
        return self.labels[index] if self.labels else f"class {index}"

    def layer_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return each layer's output shape without the batch, in forward order.

        (C, H, W) for maps, (D,) for vectors. Raises nothing: the spec was checked when made.
        """
        shapes: dict[str, tuple[int, ...]] = {}
        size = self.input_size
        for index, width in enumerate(self.widths):
            number = index + 1
            top, _, bottom, _ = self.conv_padding(number)
            size = (size + top + bottom - CONV_KERNELS[index]) // CONV_STRIDES[index] + 1
            shapes[f"conv{number}"] = (width, size, size)
            normalised = self.lrn is not None and number in NORMALISED_CONVS
            if normalised and self.lrn and self.lrn.position == "before_pool":
                shapes[f"norm{number}"] = (width, size, size)
            if number in POOLED_CONVS:
                size = (size - POOL_SIZE) // POOL_STRIDE + 1
                shapes[f"pool{number}"] = (width, size, size)
            if normalised and self.lrn and self.lrn.position == "after_pool":
                shapes[f"norm{number}"] = (width, size, size)
        shapes |= {"fc6": (FC_WIDTH,), "fc7_pre": (FC_WIDTH,), "fc7": (FC_WIDTH,)}
        return shapes | {"logits": (self.num_classes,), "probabilities": (self.num_classes,)}

    def conv_padding(self, number: int) -> tuple[int, int, int, int]:
        """Return the zeros around the input of conv `number` (1..5): top, left, bottom, right."""
        if number == 1:
            return self.conv1_padding
        padding = CONV_PADDINGS[number - 1]
        return (padding, padding, padding, padding)

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
        return shapes

    def identity(self) -> dict[str, Any]:
        """Return the fields that change what is computed: all but names, labels, provenance."""
        fields = dataclasses.asdict(self)
        for name in ("preset", "labels", "provenance", "num_classes"):
            del fields[name]
        return fields

    def to_json(self) -> str:
        """Return the spec as one line of JSON with its format version; `from_json` reads it."""
        plain = dataclasses.replace(self, provenance={}, labels=())
        fields = dataclasses.asdict(plain) | {
            "labels": list(self.labels),
            "provenance": dict(self.provenance),
        }
        return json.dumps({"format": FORMAT_VERSION, **fields}, allow_nan=False)

    @classmethod
    def from_json(cls, text: str, source: str = "model spec") -> "ModelSpec":
        """Read what `to_json` wrote; `source` is where it comes from, for messages.

        Raises:
            IncompatibleFileError: not JSON, a field missing, unknown or impossible, another format.
        """
        try:
            fields = json.loads(text, parse_constant=_refuse_constant)
            version = fields.pop("format")
            if version != FORMAT_VERSION:
                raise IncompatibleFileError(
                    f"the spec's format is {version!r}, this version reads {FORMAT_VERSION}; "
                    "update alexnet-deploy, or write the file again with this version"
                )
            lrn, preprocessing = fields.pop("lrn"), fields.pop("preprocessing")
            return cls(
                lrn=None if lrn is None else LrnSpec(**lrn),
                preprocessing=Preprocessing(**preprocessing),
                **fields,
            )
        except IncompatibleFileError as error:
            raise IncompatibleFileError(f"{source}: {error}") from error
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise IncompatibleFileError(
                f"{source}: the spec cannot be read ({type(error).__name__}: {error}); "
                "write the file again with this version of alexnet-deploy"
            ) from error


def _refuse_constant(name: str) -> None:
    # Python's parser takes what `to_json` could not write again.
    raise ValueError(f"{name} is not JSON")


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
PRESETS: Mapping[str, ModelSpec] = MappingProxyType(
    {
        "paper": _PAPER,
        "torchvision": dataclasses.replace(
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
        ),
        "caffe": _CAFFE,
        "caffenet": dataclasses.replace(
            _CAFFE,
            preset="caffenet",
            lrn=LrnSpec(size=5, alpha=1e-4, beta=0.75, k=1.0, towers=1, position="after_pool"),
        ),
    }
)
"""The four networks that go by the name of AlexNet, with 1000 unnamed classes."""


def preset_spec(name: str, *, num_classes: int = 1000, labels: tuple[str, ...] = ()) -> ModelSpec:
    """Return the preset `name` for `num_classes` classes.

    Raises:
        UsageError: there is no preset of that name.
    """
    if name not in PRESETS:
        raise UsageError(f"no preset is called {name!r}; choose from {', '.join(PRESET_NAMES)}")
    return dataclasses.replace(PRESETS[name], num_classes=num_classes, labels=labels)
