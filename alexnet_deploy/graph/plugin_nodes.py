"""A graph that normalizes with the operators `TowerLRN` and `ReluTowerLRNPool`.

TensorRT maps them to plugins (`trt.plugin`); for every other reader each has a local function of
standard operators with the same name. TensorRT's parser would use the function too, but for the
attribute `plugin_namespace`, which alone makes it look for a plugin first.

The operators take float16 directly and sum in float32. bfloat16 is cast around them, since the
kernel supports only float16 and float32.
"""

from collections.abc import Container, Iterable, Sequence
from typing import Any

from alexnet_deploy.errors import MissingPackageError
from alexnet_deploy.graph.lowering import Norm, find_norms
from alexnet_deploy.graph.model_file import ModelFile, narrow_name
from alexnet_deploy.model.spec import POOL_SIZE, POOL_STRIDE

try:
    import onnx.parser
    from onnx import helper
except ImportError as error:
    raise MissingPackageError("onnx", "cpu", "exporting a checkpoint") from error

DOMAIN = "alexnet"
"""Domain of the operators and namespace of their plugins; must not contain a dot."""
NORM_OP, FUSED_OP = "TowerLRN", "ReluTowerLRNPool"
ATTRIBUTES = ("size", "alpha", "beta", "bias", "towers")
"""Attributes of each operator: the fields of `LrnSpec`, `k` under its ONNX name."""

_POOL = {"kernel_shape": [POOL_SIZE] * 2, "strides": [POOL_STRIDE] * 2}
_PLUGIN = {"plugin_namespace": DOMAIN, "plugin_version": "1", "aot": 1}

# As in the file: towers become images of the batch, so that LRN stops at their edges.
_FUNCTION = """
<domain: "{domain}", opset_import: ["" : {opset}]>
{name} <{attributes}> (x) => (y)
{{
    a = {before} (x)
    towers = Constant <value_int: int = @towers> ()
    images = Shape <start = 0, end = 1> (a)
    channels = Shape <start = 1, end = 2> (a)
    map = Shape <start = 2> (a)
    tower_images = Mul (images, towers)
    tower_channels = Div (channels, towers)
    tower_shape = Concat <axis = 0> (tower_images, tower_channels, map)
    folded = Reshape (a, tower_shape)
    wide = Cast <to = 1> (folded)
    normalized = LRN <size: int = @size, alpha: float = @alpha, beta: float = @beta,
                      bias: float = @bias> (wide)
    narrow = CastLike (normalized, x)
    shape = Shape (a)
    b = Reshape (narrow, shape)
    y = {after} (b)
}}
"""
_MAX_POOL = f"MaxPool <kernel_shape = {_POOL['kernel_shape']}, strides = {_POOL['strides']}>"


def with_plugins(file: ModelFile, *, fused: bool = True) -> ModelFile:
    """Return `file` with each normalization as one node of domain "alexnet".

    Args:
        file: in any precision, not lowered, with its outputs chosen.
        fused: fuse the ReLU before and the max-pool after into the node, where nothing else reads
            the tensors between.
    """
    nodes = list(file.graph.graph.node)
    for norm in find_norms(file):
        nodes = _replaced(nodes, norm, file, fused)
    changed = file.with_nodes(nodes, file.arrays)
    graph = changed.graph
    (opset,) = (each for each in graph.opset_import if not each.domain)
    graph.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    graph.functions.extend(_function(name, opset.version) for name in (NORM_OP, FUSED_OP))
    return changed.with_outputs(file.outputs())


def _replaced(
    nodes: Sequence[onnx.NodeProto], norm: Norm, file: ModelFile, fused: bool
) -> list[onnx.NodeProto]:
    """Replace an LRN, its casts and what is fused with it by one node."""
    op, x, y, dropped = NORM_OP, norm.input, norm.output, set(norm.nodes)
    if file.precision == "fp16":
        x, y = narrow_name(x, "fp16"), narrow_name(y, "fp16")
        dropped |= {norm.input, y}  # the casts; the input's returns where it is an output
    if fused and not {norm.input, norm.output} & set(file.outputs()):
        relu, pool = _sole_neighbours(nodes, x, y, dropped)
        if relu is not None and pool is not None:
            op, x, y = FUSED_OP, relu.input[0], pool.output[0]
            dropped |= {relu.name, pool.name}
    attributes = {**norm.attributes, "towers": norm.towers, **_PLUGIN}
    node = helper.make_node(op, [x], [y], name=y, domain=DOMAIN, **attributes)
    kept = [each for each in nodes if each.name not in dropped]
    place = next(index for index, each in enumerate(kept) if y in each.input)
    return [*kept[:place], node, *kept[place:]]


def _sole_neighbours(
    nodes: Iterable[onnx.NodeProto], x: str, y: str, inner: Container[str]
) -> tuple[onnx.NodeProto | None, onnx.NodeProto | None]:
    """Return the ReLU whose output `x` only `inner` nodes read, and the pool that alone reads `y`.

    Each is None if there is no such node, or if it is not the paper's pooling.
    """
    relus = [node for node in nodes if x in node.output and node.op_type == "Relu"]
    others = [node for node in nodes if x in node.input and node.name not in inner]
    readers = [node for node in nodes if y in node.input and node.name not in inner]
    pools = [node for node in readers if node.op_type == "MaxPool" and _attributes(node) == _POOL]
    is_alone = len(readers) == 1 and not others
    return (relus[0] if relus and is_alone else None, pools[0] if pools and is_alone else None)


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {each.name: helper.get_attribute_value(each) for each in node.attribute}


def _function(name: str, opset: int) -> onnx.FunctionProto:
    """Return the operator as a function of standard ones."""
    text = _FUNCTION.format(
        domain=DOMAIN,
        opset=opset,
        name=name,
        attributes=", ".join((*ATTRIBUTES, *_PLUGIN)),
        before="Identity" if name == NORM_OP else "Relu",
        after="Identity" if name == NORM_OP else _MAX_POOL,
    )
    return onnx.parser.parse_function(text)
