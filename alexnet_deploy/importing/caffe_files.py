"""Read Caffe's `.caffemodel`: weights, and the network that they were trained in.

A snapshot holds its network as the training prototxt has it, so no other file is needed; a prototxt
takes its place where one is given. Weights are found by the names of layers, as in Caffe.
"""

import io
import math
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path

import numpy as np

from alexnet_deploy.errors import Argument, IncompatibleFileError
from alexnet_deploy.files.input_files import existing_file
from alexnet_deploy.files.regular_files import read_file
from alexnet_deploy.importing.caffe_network import (
    CaffeLayer,
    NotAlexNetError,
    alexnet_path,
    input_size_in,
    layers_in,
    stated_network,
    transform_in,
    weighted_layers,
)
from alexnet_deploy.importing.caffe_schema import BLOB, NET
from alexnet_deploy.importing.messages import Message, MessageError, Run
from alexnet_deploy.importing.prototxt import parse_prototxt
from alexnet_deploy.importing.source import Array, Source, StatedNetwork
from alexnet_deploy.importing.wire_format import parse_message

_NPY = b"\x93NUMPY"
_RAW_TYPES = {"DOUBLE": "<f8", "FLOAT": "<f4", "FLOAT16": "<f2"}
_COPY = "copy or download it again"


def is_caffe_model(head: bytes) -> bool:
    """Return whether a file that begins with `head`, a kilobyte or more, is a `.caffemodel`."""
    try:
        net = parse_message(head, NET, is_cut=True)
        if not net.text("name").isprintable():
            return False
        layers = layers_in(net)
    except NotAlexNetError:  # layers, but in a format that is not read
        return True
    except MessageError:
        return False
    said = (layers[0].type or layers[0].name) if layers else ""
    return said != "" and said.isprintable()


def read_caffe(
    model_path: Path, prototxt: Path | None = None, mean_file: Path | None = None
) -> Source:
    """Read a `.caffemodel` of an AlexNet, whatever its layers are called.

    Args:
        model_path: a file that is binary, of Caffe or NVIDIA's branch, of 2014 or later.
        prototxt: describes the network in place of the model's own description: the deploy or the
            train_val file. What it leaves out, the input size or the mean, is the model's.
        mean_file: the mean image: `.binaryproto`, or `.npy` of (3, S, S).

    Returns:
        arrays named LAYER.weight and LAYER.bias; the mean and `mean_image` are in the order of
        conv1's channels, which is BGR wherever Caffe read the photographs.

    Raises:
        IncompatibleFileError: damaged, or not of an AlexNet.
        UsageError: the prototxt or the mean is missing or not readable.
    """
    with model_path.open("rb") as file:
        model = _parsed_model(file, str(model_path))
        described = model if prototxt is None else _parsed_prototxt(prototxt)
        with _blaming(prototxt or model_path):
            layers = layers_in(described)
            path = alexnet_path(layers)
            weighted = weighted_layers(path)
        with _blaming(model_path):
            own_layers = layers_in(model)
            arrays = {
                f"{layer.name}.{part}": array
                for layer in weighted.values()
                for part, array in _weights(file, _holder(layer, own_layers)).items()
            }
    places = {
        f"{name}.{part}": f"{layer.name}.{part}"
        for name, layer in weighted.items()
        for part in ("weight", "bias")
    }
    with _blaming(prototxt or model_path):
        transform = transform_in(layers) or transform_in(own_layers)
        stated: StatedNetwork | None = None
        if any("bottom" in layer.message for layer in path):
            size = input_size_in(described, layers) or input_size_in(model, own_layers)
            conv5, fc6 = arrays[places["conv5.weight"]], arrays[places["fc6.weight"]]
            stated = stated_network(path, transform, size, (conv5.shape[0], fc6.shape[1]))
    mean_image = None if mean_file is None else read_mean_image(mean_file)
    return Source(
        container="Caffe model",
        arrays=arrays,
        places=places,
        stated=stated,
        mean_image=mean_image,
        notes=tuple(_notes(weighted, own_layers, transform, mean_image)),
    )


def read_mean_image(path: Path) -> Array:
    """Return a mean image, (3, S, S) in grey levels, as `.binaryproto` and `.npy` files have it.

    Raises:
        IncompatibleFileError: damaged, or of another shape.
        UsageError: the file is missing or not readable.
    """
    existing_file(path, "a mean image (.binaryproto or .npy)")
    expected = "a mean image is a .binaryproto or a .npy of (3, S, S)"
    content = read_file(path, f"give another: {expected}")
    try:
        if content.startswith(_NPY):
            image: Array = np.load(io.BytesIO(content), allow_pickle=False)
        else:
            image = _array(io.BytesIO(content), parse_message(content, BLOB))
    except Exception as error:  # NumPy's reader fails in many ways on a damaged header
        raise IncompatibleFileError(
            f"{path}: is damaged or no mean image ({str(error)[:200]}); {expected}: {_COPY}"
        ) from error
    if image.ndim == 4 and len(image) == 1:
        image = image[0]
    is_square = image.ndim == 3 and image.shape[1] == image.shape[2]
    if not is_square or len(image) != 3 or image.dtype.kind != "f":
        raise IncompatibleFileError(
            f"{path}: is {image.dtype} {list(image.shape)}, expected floats of [3, S, S]; "
            "give the mean image of the training photographs"
        )
    return image


@contextmanager
def _blaming(path: Path) -> Iterator[None]:
    """Put the file's name before what is wrong with what it describes."""
    try:
        yield
    except NotAlexNetError as error:
        raise IncompatibleFileError(f"{path}: {error}; {error.remedy}") from error
    except MessageError as error:
        raise IncompatibleFileError(f"{path}: is damaged ({error}); {_COPY}") from error


def _parsed_model(file: BufferedIOBase, source: str) -> Message:
    try:
        # Only what is parsed is mapped in; numbers are read where they belong, and aligned.
        model = parse_message(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), NET)
        if "layer" not in model and "layers" not in model:
            raise MessageError("it has no layers")
    except (OSError, ValueError) as error:  # MessageError among them
        raise IncompatibleFileError(
            f"{source}: not a readable Caffe model ({error}); it may be truncated: {_COPY}"
        ) from error
    return model


def _parsed_prototxt(path: Path) -> Message:
    existing_file(path, "a prototxt")
    content = read_file(path, "give another prototxt")
    try:
        return parse_prototxt(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise IncompatibleFileError(
            f"{path}: is not text, expected a prototxt; give the model's deploy.prototxt as ",
            Argument("prototxt"),
        ) from error
    except MessageError as error:
        raise IncompatibleFileError(
            f"{path}: not a readable prototxt ({error}); {_COPY}"
        ) from error


def _holder(layer: CaffeLayer, own: list[CaffeLayer]) -> CaffeLayer:
    """Return the layer of the model that holds a layer's weights."""
    found = [other for other in own if other.name == layer.name and "blobs" in other.message]
    if len(found) != 1:
        names = ", ".join(other.name[:40] for other in own[:40] if "blobs" in other.message)
        raise NotAlexNetError(
            f"{'no' if not found else len(found)} layers with weights are called {layer.name!r}, "
            f"expected one; there are: {names or 'none'}",
            "give the prototxt that belongs to the model",
        )
    return found[0]


def _weights(file: BufferedIOBase, layer: CaffeLayer) -> dict[str, Array]:
    """Return the weight and the bias of a layer, without the ones before their shapes."""
    blobs = layer.message.messages("blobs")
    if len(blobs) != 2:
        raise NotAlexNetError(
            f"{layer} has {len(blobs)} arrays, expected a weight and a bias, as AlexNet has"
        )
    try:
        weight, bias = (_array(file, blob) for blob in blobs)
    except (MessageError, OSError) as error:
        raise MessageError(f"{layer}: {error}") from error
    ndim = 4 if layer.kind == "convolution" else 2
    weight, bias = _trimmed(weight, ndim), _trimmed(bias, 1)
    if weight.ndim != ndim or bias.ndim != 1:
        raise NotAlexNetError(
            f"{layer}: its arrays are {list(weight.shape)} and {list(bias.shape)}, expected "
            f"{ndim} dimensions and one"
        )
    is_transposed = ndim == 2 and layer.parameters.flag("transpose", False)
    return {"weight": np.ascontiguousarray(weight.T) if is_transposed else weight, "bias": bias}


def _trimmed(array: Array, ndim: int) -> Array:
    """Return an array without the ones before its shape: every blob once had four dimensions."""
    extra = max(array.ndim - ndim, 0)
    return array.reshape(array.shape[extra:]) if set(array.shape[:extra]) <= {1} else array


def _array(file: BufferedIOBase, blob: Message) -> Array:
    """Return the numbers of a blob in its shape."""
    if "shape" in blob:
        shape = blob.message("shape").wholes("dim")
    else:
        shape = [blob.whole(name, 0) for name in ("num", "channels", "height", "width")]
    kind, runs = "<f4", blob.runs("data")
    if "double_data" in blob:
        kind, runs = "<f8", blob.runs("double_data")
    elif "raw_data" in blob:
        raw_type = blob.text("raw_data_type", "FLOAT")
        if raw_type not in _RAW_TYPES:
            raise MessageError(f"its numbers are of type {raw_type[:20]}, expected floats")
        kind = _RAW_TYPES[raw_type]
        width = np.dtype(kind).itemsize
        runs = [Run(run.start, run.count // width, width) for run in blob.runs("raw_data")]
    count = sum(run.count for run in runs)
    if min(shape, default=0) < 1 or math.prod(shape) != count or len(shape) > 8:
        raise MessageError(f"an array of {shape[:8]} has {count:,} numbers")
    parts = [_numbers(file, run, np.dtype(kind)) for run in runs]
    array: Array = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return array.reshape(shape)


def _numbers(file: BufferedIOBase, run: Run, kind: np.dtype[np.floating]) -> Array:
    """Return the numbers that lie in a file, in memory of their own."""
    tag = run.step - kind.itemsize  # bytes before each number
    file.seek(run.start - tag)
    data = np.empty((run.count, run.step), np.uint8)
    if file.readinto(data.data) != data.size:
        raise MessageError("the file ended while it was read")
    return np.ascontiguousarray(data[:, tag:]).view(kind)[:, 0]


def _notes(
    weighted: dict[str, CaffeLayer],
    own: list[CaffeLayer],
    transform: Message | None,
    mean_image: Array | None,
) -> Iterator[str]:
    names = {layer.name for layer in weighted.values()}
    unused = [layer.name for layer in own if "blobs" in layer.message and layer.name not in names]
    if unused:
        yield f"weights that the network does not use are left aside: {', '.join(unused[:8])}"
    if mean_image is not None and np.abs(mean_image).max(initial=0) <= 1:
        yield (
            "the mean image lies within 0..1, but is subtracted from grey levels of 0..255, as in "
            "Caffe: multiply it by 255 if that was not meant"
        )
    if transform and "mean_file" in transform and mean_image is None:
        yield (
            f"trained with the mean image {transform.text('mean_file')!r}, which is not in the "
            "model: give it if you have it"
        )
