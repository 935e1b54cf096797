"""The layers of an AlexNet in the order in which a graph must have them, and what is read of each.

Names of layers: images conv1 relu1 norm1 pool1 .. conv5 relu5 pool5 fc6 relu6 fc7 relu7 fc8
probabilities; a normalization is optional, before or after its pooling.
"""

import math
from collections.abc import Sequence

import numpy as np

from alexnet_deploy.importing.onnx_constants import Node, Shape
from alexnet_deploy.importing.onnx_flow import Flow, Padding
from alexnet_deploy.importing.source import Array
from alexnet_deploy.model.spec import (
    CONV_KERNELS,
    CONV_PADDINGS,
    CONV_STRIDES,
    FC_WIDTH,
    NORMALIZED_CONVS,
    POOL_SIZE,
    POOL_STRIDE,
    POOLED_CONVS,
)

OUTPUT_LAYERS = {
    "fc7": "fc7_pre",
    "relu7": "fc7",
    "fc8": "logits",
    "probabilities": "probabilities",
}
"""Where a network may end, and `ModelSpec`'s name of that layer."""


def following(done: Sequence[str]) -> dict[str, str]:
    """Return the operators that may come next, each with the layer that it computes.

    Args:
        done: the layers so far, "images" first.
    """
    last = done[-1]
    if last in ("images", "fc8", "probabilities"):
        return {
            "images": {"Conv": "conv1"},
            "fc8": {"Softmax": "probabilities"},
            "probabilities": {},
        }[last]
    kind, number = last[:-1], int(last[-1])
    if kind in ("conv", "fc"):
        return {"Relu": f"relu{number}"}
    if last != "relu5" and number >= 5:
        return {"Gemm": f"fc{number + 1}"}
    steps = {}
    if number in NORMALIZED_CONVS and f"norm{number}" not in done:
        steps["LRN"] = f"norm{number}"
    if number in POOLED_CONVS and f"pool{number}" not in done:
        steps["MaxPool"] = f"pool{number}"
    else:
        steps["Conv"] = f"conv{number + 1}"
    return steps


def window(node: Node, sizes: Shape, kernel: Shape, stride: int) -> Padding:
    """Return the padding of a convolution or pooling: top, left, bottom, right.

    Args:
        node: with `pads` or `auto_pad`.
        sizes: height and width of its input, px.
        kernel: height and width of its window, px.
        stride: px.

    Raises:
        ValueError: its window is not that, or has holes.
    """
    strides, dilations = node.ints("strides", (1, 1)), node.ints("dilations", (1, 1))
    if node.ints("kernel_shape", kernel) != kernel:
        came = list(node.ints("kernel_shape") or ())
        raise ValueError(f"has a window of {came}, expected {list(kernel)}")
    if strides != (stride, stride):
        raise ValueError(f"has strides of {list(strides or ())}, expected {[stride, stride]}")
    if dilations != (1, 1):
        raise ValueError(f"has dilations of {list(dilations or ())}, expected none")
    auto = node.text("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        totals = [
            max(0, (-(-size // stride) - 1) * stride + length - size)
            for size, length in zip(sizes, kernel, strict=True)
        ]
        less = [total // 2 for total in totals]
        more = [total - half for total, half in zip(totals, less, strict=True)]
        first, last = (less, more) if auto == "SAME_UPPER" else (more, less)
        return (first[0], first[1], last[0], last[1])
    pads = node.ints("pads", (0, 0, 0, 0)) if auto == "NOTSET" else (0, 0, 0, 0)
    if auto not in ("NOTSET", "VALID") or pads is None or len(pads) != 4 or min(pads) < 0:
        raise ValueError(f"has padding of {list(pads or ())[:8]} ({auto[:20]})")
    return (pads[0], pads[1], pads[2], pads[3])


def convolved(node: Node, flow: Flow, weight: Array, number: int) -> tuple[Padding, int, Shape]:
    """Return padding, groups and output shape of conv `number`.

    Raises:
        ValueError: it is not AlexNet's.
    """
    length, stride = CONV_KERNELS[number - 1], CONV_STRIDES[number - 1]
    group, shape = node.integer("group", 1), weight.shape
    if len(shape) != 4 or shape[2:] != (length, length):
        raise ValueError(f"has a kernel of {list(shape[2:])}, expected {[length, length]}")
    if len(flow.size) != 4:
        raise ValueError(f"reads {list(flow.shape)}, expected maps (N, C, H, W)")
    images, channels, height, width = flow.size
    if group < 1 or shape[1] * group != channels or shape[0] % group:
        raise ValueError(
            f"has a kernel of {list(shape)} in {group} groups, for {channels} channels"
        )
    own = window(node, (height, width), (length, length), stride)
    padding = tuple(map(sum, zip(own, flow.padding, strict=True)))
    expected = CONV_PADDINGS[number - 1]
    if number > 1 and padding != (expected,) * 4:
        raise ValueError(f"has padding of {list(padding)}, expected {expected} on each side")
    rows = (height + own[0] + own[2] - length) // stride + 1
    columns = (width + own[1] + own[3] - length) // stride + 1
    if min(rows, columns) < 1:
        raise ValueError(f"reads maps of {height} x {width} px, which are too small")
    top, left, bottom, right = padding
    return (top, left, bottom, right), group, (images, shape[0], rows, columns)


def pooled(node: Node, flow: Flow) -> tuple[int, Shape]:
    """Return `ModelSpec.pool_padding` of a MaxPool, and its output shape.

    Raises:
        ValueError: it is not AlexNet's.
    """
    images, channels, height, width = flow.size
    # Zeros around it are no maximum, either: it comes after a ReLU.
    if node.ints("kernel_shape") is None:
        raise ValueError("has no window")
    own = window(node, (height, width), (POOL_SIZE, POOL_SIZE), POOL_STRIDE)
    top, left, bottom, right = map(sum, zip(own, flow.padding, strict=True))
    if top or left:
        raise ValueError(
            f"has padding of {[top, left, bottom, right]}, expected none above and on the left"
        )
    inner = (height - flow.padding[2], width - flow.padding[3])
    lengths, paddings = [], []
    for size, end in zip(inner, (bottom, right), strict=True):
        room = size + end - POOL_SIZE
        length = (-(-room // POOL_STRIDE) if node.integer("ceil_mode", 0) else room // 2) + 1
        if (length - 1) * POOL_STRIDE >= size:  # no window begins outside
            length -= 1
        lengths.append(length)
        paddings.append(max(0, (length - 1) * POOL_STRIDE + POOL_SIZE - size))
    if min(lengths) < 1 or paddings[0] != paddings[1] or paddings[0] >= POOL_SIZE:
        raise ValueError(f"pools {inner[0]} x {inner[1]} px with padding of {[bottom, right]}")
    return paddings[0], (images, channels, lengths[0], lengths[1])


def connected(layer: str, flow: Flow, weight: Array) -> Array:
    """Return a fully connected layer's weight as (out, in), its inputs in the order C, H, W.

    Args:
        layer: fc6, fc7 or fc8.
        flow: (N, D).
        weight: (out, in), in the order of the flow.

    Raises:
        ValueError: it does not fit.
    """
    if len(flow.size) != 2:
        raise ValueError(f"reads {list(flow.shape)}, expected (N, D)")
    if weight.ndim != 2 or weight.shape[1] != flow.size[1]:
        raise ValueError(
            f"has a weight of {list(weight.shape)} (out, in) for {flow.size[1]} numbers"
        )
    if layer != "fc8" and len(weight) != FC_WIDTH:
        raise ValueError(f"is {layer} with {len(weight)} outputs, expected {FC_WIDTH}")
    if flow.flattened is not None and layer == "fc6":
        weight = weight.reshape(-1, *flow.flattened).transpose(0, 3, 1, 2).reshape(weight.shape)
    return weight


def connected_as_maps(layer: str, node: Node, flow: Flow, weight: Array) -> Array:
    """Return the weight of a fully connected layer that is written as a convolution, (out, in).

    Raises:
        ValueError: its kernel does not cover the whole map.
    """
    if len(flow.size) != 4 or weight.ndim != 4:
        raise ValueError(f"reads {list(flow.shape)}, expected maps (N, C, H, W)")
    padding = window(node, flow.size[2:], weight.shape[2:], 1)
    if weight.shape[1:] != flow.size[1:] or any((*padding, *flow.padding)):
        raise ValueError(
            f"is a convolution of {list(weight.shape)} with padding of {list(padding)}, expected "
            f"{layer} as [out, {', '.join(map(str, flow.size[1:]))}]"
        )
    if node.integer("group", 1) != 1:
        raise ValueError("has groups")
    flat = Flow(size=(flow.size[0], math.prod(flow.size[1:])), num_done=flow.num_done)
    return connected(layer, flat, weight.reshape(len(weight), -1))


def vector(constant: Array, length: int, rank: int) -> Array:
    """Return a bias as (length,).

    Args:
        constant: as it is added to a tensor of `rank` axes, its channels second.
        length: number of channels.
        rank: 2 or 4.

    Raises:
        ValueError: it is not one number a channel.
    """
    shape = (1,) * (rank - constant.ndim) + constant.shape
    if shape != (1, length) + (1,) * (rank - 2):
        raise ValueError(f"adds {list(constant.shape)} to {length} channels")
    return np.ascontiguousarray(constant.reshape(length))


def check_average(node: Node, flow: Flow) -> None:
    """Reject an average that changes its maps; an adaptive one leaves AlexNet's as they are.

    Raises:
        ValueError: it averages windows of more than one position.
    """
    kernel = flow.size[2:] if node.op == "GlobalAveragePool" else node.ints("kernel_shape", ())
    strides, pads = node.ints("strides", (1, 1)), node.ints("pads", ()) or ()
    if kernel != (1, 1) or strides != (1, 1) or any(pads):
        raise ValueError(f"averages windows of {list(kernel or ())}")
