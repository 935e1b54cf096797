"""Stand-ins for the C++ objects that a TensorRT build hands to a plugin.

The plugin registry, dimension expressions and their builder, and the two objects that take the
launch. Whatever else the tests use is the real package's. Imported by the fixture, once the real
bindings are in `sys.modules`.
"""

import operator
from collections.abc import Callable
from typing import Any, Self

import tensorrt as trt
from tensorrt_bindings.plugin import _tensor

_OPERATIONS: dict[str, tuple[str, Callable[[int, int], int]]] = {
    "SUM": ("+", operator.add),
    "SUB": ("-", operator.sub),
    "PROD": ("*", operator.mul),
    "FLOOR_DIV": ("//", operator.floordiv),
}


class Registry:
    """What `trt.get_plugin_registry()` is, which over the stubs returns None."""

    def __init__(self) -> None:
        self.creators: dict[tuple[str, str, str], Any] = {}

    def register_creator(self, creator: Any, namespace: str = "") -> bool:
        key = (creator.name, creator.plugin_version, namespace)
        return self.creators.setdefault(key, creator) is creator

    def get_creator(self, name: str, version: str, namespace: str = "") -> Any:
        return self.creators.get((name, version, namespace))


class Expr(trt.IDimensionExpr):  # type: ignore[misc]
    """A dimension as text, with its value for the batch of the test.

    The real class has no constructor; __new__ alone makes an object that passes isinstance(), and
    since what Python calls of it is overridden, the missing C++ object is never reached.
    """

    text: str
    value: int

    @classmethod
    def of(cls, text: str, value: int) -> Self:
        self: Self = cls.__new__(cls)
        self.text, self.value = text, value
        return self

    def is_constant(self) -> bool:
        return self.text.lstrip("-").isdigit()

    def get_constant_value(self) -> int:
        assert self.is_constant()
        return self.value

    def is_size_tensor(self) -> bool:
        return False

    def __repr__(self) -> str:
        return f"Expr({self.text} = {self.value})"


class ExprBuilder:
    """trt.IExprBuilder: folds constants, as the real one does, and writes down the rest."""

    def constant(self, value: int) -> Expr:
        return Expr.of(str(value), value)

    def operation(self, operation: Any, first: Expr, second: Expr) -> Expr:
        sign, compute = _OPERATIONS[operation.name]
        value = compute(first.value, second.value)
        if first.is_constant() and second.is_constant():
            return self.constant(value)
        return Expr.of(f"({first.text} {sign} {second.text})", value)


class KeptExpression(_tensor.SymExprImpl):  # type: ignore[misc]
    """The real class, of which `expr` can only be written: keeps what was written."""

    def __init__(self, expression: Any) -> None:
        super().__init__(expression)
        self.said: Expr | None = expression._expr  # None: a float or a NumPy number was given


class LaunchParameters:
    """trt.KernelLaunchParams."""

    grid_x: Any = None
    grid_y: Any = None
    grid_z: Any = None
    block_x: Any = None
    block_y: Any = None
    block_z: Any = None
    shared_mem: Any = None


class ExtraArguments(dict[int, Any]):
    """trt.ISymExprs."""

    nbSymExprs: int | None = None


def tensor(dtype: Any, shape: tuple[int, ...], layout: Any) -> Any:
    """Return a real descriptor with a free batch; `shape` is that of tuning."""
    described = trt.DynamicPluginTensorDesc()
    described.desc.dims = trt.Dims((-1, *shape[1:]))
    described.desc.type, described.desc.format, described.desc.scale = dtype, layout, 1.0
    described.min = described.opt = described.max = trt.Dims(shape)
    return described
