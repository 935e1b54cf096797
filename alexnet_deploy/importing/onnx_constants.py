"""The constants of any ONNX graph: read within bounds, and computed where exporters compute them.

Exporters spell a shape, a transposed weight or the amount of a padding as nodes. Those that move
numbers about are computed on arrays of any size, without copying them; arithmetic only on few
numbers, since no network needs more of it, and a small file could otherwise fill the memory.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from alexnet_deploy.errors import MissingPackageError
from alexnet_deploy.importing.source import Array, shortest

try:
    import onnx
    from onnx import AttributeProto, TensorProto, helper, numpy_helper
except ImportError as error:
    raise MissingPackageError("onnx", "cpu", "reading an ONNX file") from error

Shape = tuple[int, ...]

_MAX_BYTES = 2**31 - 1
"""Of all that is computed of a file's constants; as much as a file can hold itself."""
_FEW = 1024
RESHAPING = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
"""Operators that keep the order of all elements."""


class Node:
    """A node and its attributes, each of the type that the operator wants."""

    def __init__(self, proto: onnx.NodeProto) -> None:
        self.op = text_of(proto.op_type)
        self.inputs = tuple(map(text_of, proto.input))
        self.outputs = tuple(map(text_of, proto.output))
        self.name = text_of(proto.name) or next(iter(self.outputs), "")
        self._attributes = {text_of(attribute.name): attribute for attribute in proto.attribute}

    def ints(self, name: str, default: Sequence[int] | None = None) -> Shape | None:
        """Return a list of integers, or `default`."""
        attribute = self._attribute(name, AttributeProto.INTS)
        if attribute is None:
            return None if default is None else tuple(default)
        return tuple(attribute.ints)

    def integer(self, name: str, default: int) -> int:
        """Return an integer, or `default`."""
        attribute = self._attribute(name, AttributeProto.INT)
        return default if attribute is None else int(attribute.i)

    def number(self, name: str, default: float) -> float:
        """Return a number as the shortest decimal that is the file's float32, or `default`."""
        attribute = self._attribute(name, AttributeProto.FLOAT)
        return default if attribute is None else shortest(attribute.f)

    def text(self, name: str, default: str) -> str:
        """Return a word, or `default`."""
        attribute = self._attribute(name, AttributeProto.STRING)
        return default if attribute is None else attribute.s.decode("utf-8", "replace")

    def tensor(self, name: str) -> Array | None:
        """Return an array, or None."""
        attribute = self._attribute(name, AttributeProto.TENSOR)
        return None if attribute is None else array_of(attribute.t)

    def branch(self, name: str) -> onnx.GraphProto:
        """Return a graph inside the node."""
        attribute = self._attribute(name, AttributeProto.GRAPH)
        if attribute is None:
            raise ValueError(f"it has no {name}")
        return attribute.g

    def has(self, name: str) -> bool:
        """Return whether it has that attribute."""
        return name in self._attributes

    def _attribute(self, name: str, kind: int) -> AttributeProto | None:
        attribute = self._attributes.get(name)
        # The first version of the format stored no type.
        if attribute is not None and attribute.type not in (kind, AttributeProto.UNDEFINED):
            raise ValueError(f"its {name} is of another type than the operator's")
        return attribute


def text_of(text: str | bytes) -> str:
    """Return a text of a file, which protobuf gives as bytes where they are not UTF-8."""
    return text if isinstance(text, str) else text.decode("utf-8", "replace")


def array_of(tensor: TensorProto) -> Array:
    """Return the numbers of a tensor, if they are in the file.

    Raises:
        ValueError: they are not, or not as many as it states.
    """
    name = text_of(tensor.name)[:100]
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        raise ValueError(
            f"the numbers of {name!r} are in another file beside it, as torch's exporter puts them "
            "by default; put all into one file first: onnx.save(onnx.load(FILE), ONE_FILE)"
        )
    if min(tensor.dims, default=0) < 0:
        raise ValueError(f"array {name!r} has the shape {list(tensor.dims)}")
    try:
        array: Array = numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"array {name!r} is damaged ({error})") from error
    return array


def arrays_of(tensors: Iterable[TensorProto]) -> dict[str, Array]:
    """Return initializers by name; see `array_of`."""
    return {text_of(tensor.name): array_of(tensor) for tensor in tensors}


def reshaped(node: Node, shape: Shape, operands: Sequence[Array | None]) -> Shape:
    """Return what one of RESHAPING makes of a shape.

    Args:
        node: of a `RESHAPING` operator.
        shape: of its first input.
        operands: its other inputs.

    Raises:
        ValueError: the elements do not fit.
    """
    axes = integers(operands[0]) if operands and operands[0] is not None else None
    if node.op == "Reshape":
        target = axes if axes is not None else node.ints("shape")
        if target is None:
            raise ValueError("it has no known shape")
        return _filled(target, shape, keeps_zero=bool(node.integer("allowzero", 0)))
    if node.op == "Flatten":
        axis = node.integer("axis", 1)
        axis += len(shape) if axis < 0 else 0
        return (math.prod(shape[:axis]), math.prod(shape[axis:]))
    axes = axes if axes is not None else node.ints("axes")
    if node.op == "Squeeze":
        if axes is None:
            return tuple(length for length in shape if length != 1)
        dropped = {axis % len(shape) for axis in axes}
        if any(shape[axis] != 1 for axis in dropped):
            raise ValueError(f"it drops an axis of {list(shape)} that has more than one element")
        return tuple(length for axis, length in enumerate(shape) if axis not in dropped)
    if axes is None or len(axes) > 8:
        raise ValueError("it does not say where the axes are inserted")
    rank = len(shape) + len(axes)
    inserted, rest = {axis % rank for axis in axes}, iter(shape)
    return tuple(1 if axis in inserted else next(rest) for axis in range(rank))


def _filled(target: Shape, shape: Shape, *, keeps_zero: bool) -> Shape:
    """Return the target of a Reshape with its 0 and -1 replaced."""
    wanted = [
        shape[axis] if length == 0 and not keeps_zero else length
        for axis, length in enumerate(target)
    ]
    size = math.prod(shape)
    if wanted.count(-1) == 1:
        rest = math.prod(length for length in wanted if length != -1)
        wanted[wanted.index(-1)] = size // rest if rest else 0
    if min(wanted, default=0) < 0 or math.prod(wanted) != size:
        raise ValueError(f"it makes {list(target)[:8]} of {list(shape)}")
    return tuple(wanted)


def integers(array: Array | None) -> Shape:
    """Return a small array of whole numbers as a tuple, and none for no array."""
    if array is None:
        return ()
    if array.dtype.kind not in "iu" or array.size > _FEW:
        raise ValueError(f"it reads {array.dtype} {list(array.shape)}, expected a few integers")
    return tuple(int(number) for number in array.ravel())


class Folding:
    """Computes nodes that read constants only, and counts what that takes."""

    def __init__(self) -> None:
        self._left = _MAX_BYTES

    def compute(self, node: Node, operands: Sequence[Array | None]) -> Array:
        """Return the first output of a node.

        Raises:
            ValueError: an operator that is not computed here, or too much of it.
        """
        if node.op == "Constant":
            return _constant(node)
        if node.op == "ConstantOfShape":
            return self._constant_of_shape(node, integers(operands[0]))
        first = operands[0] if operands else None
        if first is None:
            raise ValueError("it has no input")
        if node.op == "Identity":
            return first
        if node.op in RESHAPING:
            shape = reshaped(node, first.shape, operands[1:])
            if not first.flags.c_contiguous:  # NumPy copies it
                self._spend(first.nbytes)
            return first.reshape(shape)
        if node.op == "Transpose":
            return first.transpose(node.ints("perm"))
        if node.op == "Cast":
            dtype = helper.tensor_dtype_to_np_dtype(node.integer("to", 0))
            if dtype.hasobject:
                raise ValueError("it makes texts of numbers")
            self._spend(first.size * dtype.itemsize)
            return first.astype(dtype)
        if sum(operand.size for operand in operands if operand is not None) > _FEW:
            raise ValueError("it computes with weights")
        if node.op == "Slice":
            return _sliced(node, first, operands[1:])
        return _arithmetic(node, [operand for operand in operands if operand is not None])

    def _constant_of_shape(self, node: Node, shape: Shape) -> Array:
        value = node.tensor("value")
        value = np.zeros(1, np.float32) if value is None else value
        if value.size != 1 or min(shape, default=0) < 0:
            raise ValueError(f"it makes an array of {list(shape)[:8]}")
        self._spend(math.prod(shape) * value.itemsize)
        return np.broadcast_to(value.reshape(()), shape)  # one number in memory

    def _spend(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise ValueError(f"its constants take more than {_MAX_BYTES:,} bytes")


def _constant(node: Node) -> Array:
    """Return the array in a Constant node."""
    if node.has("value"):
        array = node.tensor("value")
        assert array is not None
        return array
    if node.has("value_float"):
        return np.array(node.number("value_float", 0), np.float32)
    if node.has("value_int"):
        return np.array(node.integer("value_int", 0), np.int64)
    numbers = node.ints("value_ints")
    if numbers is None:
        raise ValueError("its value is of an unknown kind")
    return np.array(numbers, np.int64)


def _arithmetic(node: Node, operands: Sequence[Array]) -> Array:
    """Compute on shapes, as exporters do for a batch whose size they do not know."""
    first = operands[0]
    match node.op:
        case "Concat":
            return np.concatenate(operands, axis=node.integer("axis", 1))
        case "Gather" if first.size * operands[1].size <= _FEW:
            return np.asarray(np.take(first, operands[1], axis=node.integer("axis", 0)))
        case "Add" | "Sub" | "Mul" | "Div" | "Equal" if np.broadcast(*operands).size <= _FEW:
            return _elementwise(node.op, first, operands[1])
    raise ValueError("it is not known here")


def _elementwise(op: str, a: Array, b: Array) -> Array:
    with np.errstate(all="ignore"):
        match op:
            case "Add":
                return np.asarray(a + b)
            case "Sub":
                return np.asarray(a - b)
            case "Mul":
                return np.asarray(a * b)
            case "Equal":
                return np.asarray(a == b)
        return np.asarray(a // b if a.dtype.kind in "iu" else a / b)


def _sliced(node: Node, array: Array, given: Sequence[Array | None]) -> Array:
    """Cut as Slice says: in its inputs, or before opset 10 in its attributes."""
    starts, ends, axes, steps = (
        node.ints(name) if operand is None else integers(operand)
        for name, operand in zip(
            ("starts", "ends", "axes", "steps"), [*given, None, None, None, None], strict=False
        )
    )
    if starts is None or ends is None or len(starts) != len(ends):
        raise ValueError("it does not say where to cut")
    axes = tuple(range(len(starts))) if axes is None else axes
    steps = (1,) * len(starts) if steps is None else steps
    cuts = [slice(None)] * array.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        cuts[axis] = slice(start, end, step)
    return array[tuple(cuts)]
