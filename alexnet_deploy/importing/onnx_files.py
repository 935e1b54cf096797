"""Read the AlexNet in any `.onnx` file: the ONNX Model Zoo's, torch's exports, and others.

Nothing of the file is run. Its graph says which array is which and how the network is wired, so
nothing is guessed, but the size of an image in a file that leaves it open.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_deploy.errors import IncompatibleFileError, MissingPackageError
from alexnet_deploy.graph.reading import parsed_model, read_model
from alexnet_deploy.importing.onnx_constants import arrays_of, text_of
from alexnet_deploy.importing.onnx_flow import Flow, PixelKind
from alexnet_deploy.importing.onnx_layers import OUTPUT_LAYERS, following
from alexnet_deploy.importing.onnx_walk import Walk
from alexnet_deploy.importing.source import Source, StatedNetwork
from alexnet_deploy.model.checkpoints import Checkpoint
from alexnet_deploy.model.spec import SPEC_KEY

try:
    import onnx
    from onnx import TensorProto, helper
except ImportError as error:
    raise MissingPackageError("onnx", "cpu", "reading an ONNX file") from error

_USUAL_SIDES = (224, 227)
_LARGEST_SIDE = 4096  # of a spec's input_size
_MOST_PIXELS = 2**24  # of a batch, which is run as it is: 256 images of 256 px
_QUANTIZED = ("QLinear", "QuantizeLinear", "DequantizeLinear", "DynamicQuantize", "Integer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """How to run a foreign file.

    Attributes:
        input_name: of its only input.
        dtype: of the input.
        channels_last: the input is (N, S, S, 3), not (N, 3, S, S).
        batch: N where the file fixes it, else None.
        pixels: what the input holds: pixels as they are ("grey levels" or "0..1") where the graph
            normalizes them, else "normalized".
        output_name: of its furthest output.
        layer: `ModelSpec`'s name of what that output holds: fc7_pre, fc7, logits, probabilities.
        is_narrow: it holds float16, in which it may also compute.
        opset: the version of its operators.
    """

    input_name: str
    dtype: np.dtype[Any]
    channels_last: bool
    batch: int | None
    pixels: PixelKind
    output_name: str
    layer: str
    is_narrow: bool
    opset: int


@dataclass(frozen=True, kw_only=True, eq=False)
class ForeignNetwork:
    """A foreign file's content, and how to run the file itself."""

    source: Source
    interface: Interface


def read_onnx(path: Path) -> ForeignNetwork | Checkpoint:
    """Read the AlexNet in an `.onnx` file: a checkpoint of a file of ours, which has its spec.

    Raises:
        IncompatibleFileError: as `read_foreign_network` or, of a file of ours, `read_model`.
    """
    model = parsed_model(path)
    if any(entry.key == SPEC_KEY for entry in model.metadata_props):
        del model
        return read_model(path).weights()
    return _network(model, path)


def read_foreign_network(path: Path) -> ForeignNetwork:
    """Read the AlexNet in an `.onnx` file by its graph alone, even if it is ours.

    Raises:
        IncompatibleFileError: damaged, too large, in several files, quantized, or another network;
            the message names the first node that is not AlexNet's.
    """
    return _network(parsed_model(path), path)


def _network(model: onnx.ModelProto, path: Path) -> ForeignNetwork:
    opset = _checked_opset(model, path)
    graph = model.graph
    try:
        constants = arrays_of(graph.initializer)
    except ValueError as error:
        raise IncompatibleFileError(f"{path}: {error}") from error
    images = [value for value in graph.input if text_of(value.name) not in constants]
    if len(images) != 1:
        names = ", ".join(repr(value.name[:50]) for value in images[:4]) or "none"
        raise IncompatibleFileError(
            f"{path}: its inputs are {names}; an AlexNet has one, its images"
        )
    (image,) = images
    input_name = text_of(image.name)
    flows = _image_flows(image, path)
    for begin in flows:
        walk = Walk(path, opset)
        walk.begin(input_name, begin, constants)
        try:
            walk.follow(graph.node)
        except IncompatibleFileError:
            # At another size than its own a network fits up to fc6.
            if begin is flows[-1] or walk.done[-1] != "pool5":
                raise
        else:
            break
    walk.end()
    if len(flows) > 1:
        walk.notes.append(
            f"the file leaves the size of its images open; {begin.size[2]} px fit its fc6"
        )
    output, layer = _furthest_output(walk, graph, path)
    pixels, source = _source(walk, begin, image, model, path)
    interface = Interface(
        input_name=input_name,
        dtype=np.dtype(helper.tensor_dtype_to_np_dtype(image.type.tensor_type.elem_type)),
        channels_last=begin.channels_last,
        batch=_length(image, 0),
        pixels=pixels,
        output_name=output,
        layer=layer,
        is_narrow=any(array.dtype == np.float16 for array in source.arrays.values()),
        opset=opset,
    )
    return ForeignNetwork(source=source, interface=interface)


def _checked_opset(model: onnx.ModelProto, path: Path) -> int:
    """Return the version of the operators, all of them ONNX's own and none of them quantized."""
    nodes = model.graph.node
    if any(word in text_of(node.op_type) for node in nodes for word in _QUANTIZED):
        raise IncompatibleFileError(
            f"{path}: is quantized; its float weights are gone. Give the float file that it was "
            "made from (of the Model Zoo: -12.onnx, not -12-int8.onnx or -12-qdq.onnx)"
        )
    foreign = next((node for node in nodes if node.domain not in ("", "ai.onnx")), None)
    if foreign is not None:
        raise IncompatibleFileError(
            f"{path}: node {foreign.name[:100]!r} is {foreign.op_type[:50]!r} of "
            f"{foreign.domain[:50]!r}, not of ONNX; give the file from before it was optimized "
            "for one runtime, or expand its functions with onnx.inliner"
        )
    if model.functions:
        raise IncompatibleFileError(
            f"{path}: holds functions of its own, in which any operator may be; expand them with "
            "onnx.inliner"
        )
    if model.graph.sparse_initializer:
        raise IncompatibleFileError(f"{path}: holds sparse arrays; save them as dense ones")
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    return max(versions, default=1)


def _image_flows(image: onnx.ValueInfoProto, path: Path) -> list[Flow]:
    """Return the images that a graph's input may mean: one, or one for each usual size."""
    rank = len(image.type.tensor_type.shape.dim)
    lengths = [_length(image, axis) for axis in range(rank)]
    kinds = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.UINT8)
    channels_last = rank == 4 and lengths[3] == 3 and lengths[1] != 3
    sides = {lengths[axis] for axis in ((1, 2) if channels_last else (2, 3))} if rank == 4 else {0}
    is_open = sides == {None}
    is_small = max(side or 0 for side in sides) <= _LARGEST_SIDE
    if (
        rank != 4
        or len(sides) != 1
        or not is_small
        or image.type.tensor_type.elem_type not in kinds
    ):
        raise IncompatibleFileError(
            f"{path}: its input {image.name[:50]!r} is {lengths[:8]}, expected square images of "
            f"{_LARGEST_SIDE} px at most, [N, 3, S, S] or [N, S, S, 3], as floating-point numbers "
            "or bytes"
        )
    if not channels_last and lengths[1] not in (3, None):
        raise IncompatibleFileError(
            f"{path}: its input {image.name[:50]!r} has {lengths[1]} channels, expected 3"
        )
    images = lengths[0] or 1
    possible = _USUAL_SIDES if is_open else [side for side in sides if side]
    if images > 1 and images * max(possible) ** 2 > _MOST_PIXELS:
        raise IncompatibleFileError(
            f"{path}: takes {images:,} images of {max(possible)} px at once, too many to run it; "
            "export it for one, or for any number"
        )
    return [
        Flow(size=(images, 3, side, side), num_done=0, channels_last=channels_last)
        for side in possible
    ]


def _length(image: onnx.ValueInfoProto, axis: int) -> int | None:
    """Return the length of an axis, or None if it is open."""
    length = image.type.tensor_type.shape.dim[axis].dim_value
    return int(length) if length > 0 else None


def _furthest_output(walk: Walk, graph: onnx.GraphProto, path: Path) -> tuple[str, str]:
    """Return the name of the graph's furthest output, and the layer that it holds."""
    reached = {
        name: value.num_done
        for name in (text_of(output.name) for output in graph.output)
        if isinstance(value := walk.values.get(name), Flow)
    }
    name = max(reached, key=lambda name: reached[name], default="")
    last = walk.done[reached[name]] if reached else walk.done[-1]
    if last not in OUTPUT_LAYERS:
        rest = " or ".join(following(walk.done).values()) or "its output"
        raise IncompatibleFileError(
            f"{path}: its network ends after {last}; an AlexNet goes on with {rest}"
        )
    return name, OUTPUT_LAYERS[last]


def _source(
    walk: Walk, begin: Flow, image: onnx.ValueInfoProto, model: onnx.ModelProto, path: Path
) -> tuple[PixelKind, Source]:
    is_integer = image.type.tensor_type.elem_type == TensorProto.UINT8
    if len(set(walk.lrns)) > 1 or len(walk.lrns) == 1:
        raise IncompatibleFileError(
            f"{path}: its normalizations are {walk.lrns}, expected the same after conv1 and conv2, "
            "or none"
        )
    try:
        pixels = walk.normalization.stated(begin.size[2], is_integer=is_integer)
    except ValueError as error:
        raise IncompatibleFileError(f"{path}: {error}") from error
    conv1, conv2, conv3, conv4, conv5 = walk.groups
    pool1, pool2, pool5 = walk.pool_padding
    stated = StatedNetwork(
        input_size=begin.size[2],
        conv1_padding=walk.conv1_padding,
        pool_padding=(pool1, pool2, pool5),
        groups=(conv1, conv2, conv3, conv4, conv5),
        lrn=walk.lrns[0] if walk.lrns else None,
        mean=pixels.mean,
        std=pixels.std,
    )
    producer = text_of(model.producer_name)[:50]
    source = Source(
        container=f"ONNX model, written by {producer!r}" if producer else "ONNX model",
        arrays=walk.arrays,
        places=walk.places,
        stated=stated,
        mean_image=pixels.mean_image,
        notes=tuple(walk.notes),
    )
    return pixels.kind, source
