"""A float32 graph in float16 or bfloat16, for runtimes that take their precision from the graph.

Convolutions, ReLUs, pooling and fully connected layers compute in the narrow type, with narrow
weights. What stays float32: the pixels until the mean is subtracted, LRN (squares overflow float16
above 255, and its sums need more than 11 bits), the softmax, and all inputs and outputs. A tensor
that is read in both types exists twice: `conv1_fp16`, and `conv1` behind one Cast; no tensor is
cast back and forth. LRN keeps its float32 form, so `lowering` finds it in a cast graph as in any
other.
"""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.errors import Argument, IncompatibleFileError, MissingPackageError
from alexnet_deploy.graph.build import OPSETS
from alexnet_deploy.graph.model_file import ModelFile, narrow_name

try:
    import ml_dtypes
    import onnx
    from onnx import TensorProto, helper
except ImportError as error:
    raise MissingPackageError("onnx", "cpu", "exporting a checkpoint") from error

NarrowPrecision = Literal["fp16", "bf16"]

_NARROW_OPS = frozenset({"Conv", "Relu", "MaxPool", "Flatten", "Gemm"})
_ARRAY_TYPES: Mapping[NarrowPrecision, Any] = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16}
_TENSOR_TYPES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
_BF16_OPSET = 22  # the first whose convolution and pooling accept bfloat16


def cast_model(file: ModelFile, precision: NarrowPrecision) -> ModelFile:
    """Return `file` in float16 or bfloat16, with the same float32 outputs.

    Args:
        file: a float32 file from `graph.build.build_model`, not lowered.
        precision: "fp16" or "bf16".

    Raises:
        IncompatibleFileError: the file is not float32, or a weight exceeds float16's 65504.
    """
    if file.precision != "fp32":
        raise IncompatibleFileError(
            f"{file.source}: is {file.precision}, and only an fp32 graph can be cast to "
            f"{precision}; export the checkpoint with ",
            Argument("precision", precision),
        )
    caster = _Caster(file, precision)
    for node in file.graph.graph.node:
        caster.take(node)
    cast = file.with_nodes(caster.nodes, caster.arrays, precision)
    if precision == "bf16":
        (opset,) = (each for each in cast.graph.opset_import if not each.domain)
        opset.version = max(opset.version, _BF16_OPSET)
        cast.graph.ir_version = OPSETS[opset.version]
    return cast.with_outputs(file.outputs())


class _Caster:
    """Nodes and arrays under construction, and the types in which each tensor exists."""

    def __init__(self, file: ModelFile, precision: NarrowPrecision) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.arrays: dict[str, NDArray[Any]] = {}
        self._file = file
        self._precision = precision
        self._wide = {value.name for value in file.graph.graph.input}
        self._narrow: set[str] = set()

    def take(self, node: onnx.NodeProto) -> None:
        """Append `node` in the type that its operator computes in, with the casts that it needs."""
        if node.op_type in _NARROW_OPS:
            inputs = [self._narrow_input(name) for name in node.input]
            outputs = [narrow_name(name, self._precision) for name in node.output]
            self._narrow.update(node.output)
        else:
            inputs = [self._wide_input(name) for name in node.input]
            outputs = list(node.output)
            self._wide.update(node.output)
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.name = outputs[0]
        copy.input[:], copy.output[:] = inputs, outputs
        self.nodes.append(copy)

    def _narrow_input(self, name: str) -> str:
        if name in self._file.arrays:
            self.arrays[name] = self._narrowed(name)
            return name
        narrow = narrow_name(name, self._precision)
        if name not in self._narrow:
            self._cast(name, narrow, _TENSOR_TYPES[self._precision])
            self._narrow.add(name)
        return narrow

    def _wide_input(self, name: str) -> str:
        if name in self._file.arrays:
            self.arrays[name] = self._file.arrays[name]
        elif name not in self._wide:
            self._cast(narrow_name(name, self._precision), name, TensorProto.FLOAT)
            self._wide.add(name)
        return name

    def _cast(self, source: str, target: str, kind: int) -> None:
        self.nodes.append(helper.make_node("Cast", [source], [target], name=target, to=kind))

    def _narrowed(self, name: str) -> NDArray[Any]:
        array = self._file.arrays[name]
        with np.errstate(over="ignore"):
            narrow: NDArray[Any] = array.astype(_ARRAY_TYPES[self._precision])
        if not np.isfinite(narrow).all():
            raise IncompatibleFileError(
                f"{self._file.source}: {name} reaches {np.abs(array).max():.3g}, float16 ends "
                "at 65504; export it in bf16 or fp32"
            )
        return narrow
