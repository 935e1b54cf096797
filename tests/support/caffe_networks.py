"""AlexNets as Caffe describes and stores them; most with few weights."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.importing.caffe_files import read_caffe
from alexnet_deploy.importing.source import Source, StatedNetwork
from tests.support.caffe_writer import Fields, binary, prototxt

Arrays: TypeAlias = dict[str, tuple[NDArray[Any], ...]]

OLD_TYPES = {
    "Accuracy": "ACCURACY",
    "Convolution": "CONVOLUTION",
    "Data": "DATA",
    "LRN": "LRN",
    "Dropout": "DROPOUT",
    "InnerProduct": "INNER_PRODUCT",
    "Pooling": "POOLING",
    "ReLU": "RELU",
    "SoftmaxWithLoss": "SOFTMAX_LOSS",
    "Split": "SPLIT",
}


def layer(name: str, type_: str, bottom: str, top: str, *more: tuple[str, Any]) -> Fields:
    """Return a layer with one input and one output."""
    return [("name", name), ("type", type_), ("bottom", bottom), ("top", top), *more]


def blob(array: NDArray[Any]) -> Fields:
    """Return numbers with their shape."""
    return [("shape", [("dim", array.shape)]), ("data", array)]


def old_blob(array: NDArray[Any]) -> Fields:
    """Return numbers with the four dimensions that every array had until 2014."""
    four = (1,) * (4 - array.ndim) + array.shape
    names = ("num", "channels", "height", "width")
    return [*zip(names, four, strict=True), ("data", array)]


def in_old_format(net: Fields) -> Fields:
    """Return a network with `layers` for `layer`, as Caffe wrote it until 2014."""
    return [
        ("layers", _old_layer(value)) if name == "layer" else (name, value) for name, value in net
    ]


def _old_layer(fields: Fields) -> Fields:
    kept = [(name, value) for name, value in fields if name not in ("param", "input_param")]
    return [(n, OLD_TYPES[v]) if n == "type" else (n, v) for n, v in kept]


def data_layer(phase: str, transform: Fields) -> Fields:
    """Return a layer of data as in the training prototxt."""
    return [
        ("name", "data"),
        ("type", "Data"),
        ("top", "data"),
        ("top", "label"),
        ("include", [("phase", phase)]),
        ("transform_param", [("mirror", "true" if phase == "TRAIN" else "false"), *transform]),
        ("data_param", [("source", "lmdb"), ("batch_size", 256), ("backend", "LMDB")]),
    ]


MEAN_FILE = "data/ilsvrc12/imagenet_mean.binaryproto"
TRANSFORM: Fields = [("crop_size", 227), ("mean_file", MEAN_FILE)]
LRN: Fields = [("local_size", 5), ("alpha", 0.0001), ("beta", 0.75)]


def body(
    *, is_norm_first: bool, conv1: Fields | None = None, pooling: Fields | None = None
) -> list[Fields]:
    """Return the layers of bvlc_alexnet, or of bvlc_reference_caffenet, from conv1 to fc8."""
    convolutions = [
        conv1 or [("num_output", 96), ("kernel_size", 11), ("stride", 4)],
        [("num_output", 256), ("pad", 2), ("kernel_size", 5), ("group", 2)],
        [("num_output", 384), ("pad", 1), ("kernel_size", 3)],
        [("num_output", 384), ("pad", 1), ("kernel_size", 3), ("group", 2)],
        [("num_output", 256), ("pad", 1), ("kernel_size", 3), ("group", 2)],
    ]
    pool = [("pool", "MAX"), ("kernel_size", 3), ("stride", 2), *(pooling or [])]
    learning = [("param", [("lr_mult", 1), ("decay_mult", 1)])]
    filler = ("weight_filler", [("type", "gaussian"), ("std", 0.01)])
    layers: list[Fields] = []
    at = "data"
    for number, parameters in enumerate(convolutions, 1):
        name = f"conv{number}"
        own = ("convolution_param", [*parameters, filler])
        layers.append(layer(name, "Convolution", at, name, *learning, own))
        layers.append(layer(f"relu{number}", "ReLU", name, name))
        at = name
        steps = [("norm", "LRN", ("lrn_param", LRN)), ("pool", "Pooling", ("pooling_param", pool))]
        if number > 2:
            steps = steps[1:] if number == 5 else []
        for prefix, type_, values in steps if is_norm_first else steps[::-1]:
            layers.append(layer(f"{prefix}{number}", type_, at, f"{prefix}{number}", values))
            at = f"{prefix}{number}"
    for number, width in ((6, 4096), (7, 4096), (8, 1000)):
        name = f"fc{number}"
        own = ("inner_product_param", [("num_output", width)])
        layers.append(layer(name, "InnerProduct", at, name, *learning, own))
        at = name
        if number < 8:
            layers.append(layer(f"relu{number}", "ReLU", name, name))
            layers.append(layer(f"drop{number}", "Dropout", name, name))
    return layers


def train_val(layers: list[Fields], transform: Fields | None = None) -> Fields:
    """Return what is trained and validated: with layers of data, of accuracy, of loss."""
    transform = TRANSFORM if transform is None else transform
    accuracy = [("bottom", "label"), ("include", [("phase", "TEST")])]
    return [
        ("name", "AlexNet"),
        *(("layer", data_layer(phase, transform)) for phase in ("TRAIN", "TEST")),
        *(("layer", fields) for fields in layers),
        ("layer", layer("accuracy", "Accuracy", "fc8", "accuracy", *accuracy)),
        ("layer", layer("loss", "SoftmaxWithLoss", "fc8", "loss", ("bottom", "label"))),
    ]


def weights(
    widths: Sequence[int] = (4, 4, 8, 8, 4), hidden: int = 6, classes: int = 5, side: int = 6
) -> Arrays:
    """Return random weights and biases of conv1 .. fc8, few of them unless more are asked for."""
    rng = np.random.default_rng(0)
    kernels, groups, inputs = (11, 5, 3, 3, 3), (1, 2, 1, 2, 2), (3, *widths[:4])
    shapes: dict[str, tuple[int, ...]] = {
        f"conv{n + 1}": (widths[n], inputs[n] // groups[n], kernels[n], kernels[n])
        for n in range(5)
    }
    shapes |= {"fc6": (hidden, widths[4] * side**2), "fc7": (hidden, hidden)}
    shapes |= {"fc8": (classes, hidden)}
    return {
        name: (rng.standard_normal(shape, np.float32), rng.standard_normal(shape[0], np.float32))
        for name, shape in shapes.items()
    }


def snapshot(net: Fields, arrays: Arrays, form: Callable[[Any], Fields] = blob) -> Fields:
    """Return what Caffe writes in training: the network without what is for tests, with weights."""
    fields: Fields = []
    for name, value in net:
        if name != "layer":
            fields.append((name, value))
        elif ("include", [("phase", "TEST")]) not in value:
            blobs = arrays.get(dict(value)["name"], ())
            fields.append(("layer", [*value, *(("blobs", form(array)) for array in blobs)]))
    return fields


WEIGHTS = weights()
IS_NORM_FIRST = {"caffe": True, "caffenet": False}
"""The presets: bvlc_alexnet and bvlc_reference_caffenet."""


def layers_of(preset: str = "caffe", **parameters: Any) -> list[Fields]:
    """Return the layers of a preset from conv1 to fc8."""
    return body(is_norm_first=IS_NORM_FIRST[preset], **parameters)


def trained(layers: list[Fields] | None = None, transform: Fields | None = None) -> Fields:
    """Return a snapshot of these layers in training."""
    return snapshot(train_val(layers or layers_of(), transform), WEIGHTS)


def read(tmp_path: Path, model: Fields | bytes, text: Fields | str | None = None) -> Source:
    """Write the files and read them."""
    path, described = tmp_path / "net.caffemodel", None
    path.write_bytes(model if isinstance(model, bytes) else binary(model))
    if text is not None:
        described = tmp_path / "net.prototxt"
        described.write_text(text if isinstance(text, str) else prototxt(text))
    return read_caffe(path, described)


def stated(source: Source) -> StatedNetwork:
    assert source.stated is not None
    return source.stated


def changed(layers: list[Fields], name: str, change: Callable[[Fields], Fields]) -> list[Fields]:
    """Return the layers with one of them changed."""
    return [change(fields) if ("name", name) in fields else fields for fields in layers]


def without(layers: list[Fields], *names: str) -> list[Fields]:
    return [fields for fields in layers if dict(fields)["name"] not in names]


def with_parameters(parameters: str, *more: tuple[str, Any]) -> Callable[[Fields], Fields]:
    """Return what adds to the parameters of a layer; the last value of a field counts."""
    names = {name for name, _ in more}

    def change(fields: Fields) -> Fields:
        old = [item for item in dict(fields).get(parameters, []) if item[0] not in names]
        return [item for item in fields if item[0] != parameters] + [(parameters, [*old, *more])]

    return change


def deploy(layers: list[Fields], *inputs: tuple[str, Any]) -> Fields:
    """Return a network for use: an input, no layers of data or loss."""
    return [
        ("name", "AlexNet"),
        *inputs,
        *(("layer", fields) for fields in layers),
        ("layer", layer("prob", "Softmax", "fc8", "prob")),
    ]
