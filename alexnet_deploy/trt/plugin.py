"""The kernels of LRN as two TensorRT plugins; importing this registers both.

TensorRT calls these functions while building: `register` describes the output, `autotune` the types
and layouts, `aot_impl` supplies the compiled kernel and its launch parameters. The kernel is stored
in the engine, which then needs neither this module nor Python.

TensorRT's decorators evaluate the annotations and do not accept strings: no `from __future__ import
annotations` here. All functions of an operator declare all attributes in the same order, because
they are passed by position.
"""

import hashlib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from alexnet_deploy.errors import IncompatibleFileError, MissingPackageError
from alexnet_deploy.graph.plugin_nodes import DOMAIN, FUSED_OP, NORM_OP
from alexnet_deploy.model.spec import POOL_SIZE, POOL_STRIDE
from alexnet_deploy.runtimes.gpu_driver import gpus
from alexnet_deploy.runtimes.tensorrt_library import load_library
from alexnet_deploy.trt.kernel import (
    SOURCES,
    Hwc8Kernel,
    Scalar,
    TowerLrnKernel,
    compile_ptx,
    fits_hwc8,
)

try:
    import tensorrt as trt

    _library = load_library("tensorrt")
    _library.version()  # first: TensorRT 10 has no tensorrt.plugin, or an incomplete one
    # Importing tensorrt.plugin prints a warning to stdout, which is for results.
    _logger, trt.Logger = trt.Logger, type(_library.logger)
    try:
        import tensorrt.plugin as trtp
    finally:
        trt.Logger = _logger
except ImportError as error:
    raise MissingPackageError("tensorrt", "tensorrt", "building a TensorRT engine") from error

_SCALARS: Mapping[Any, Scalar] = {trt.DataType.FLOAT: "float", trt.DataType.HALF: "half"}

_Kernel = tuple[str, bytes, trtp.KernelLaunchParams, trtp.SymIntExprs]


def _same_shape(
    x: trtp.TensorDesc, size: int, alpha: float, beta: float, bias: float, towers: int
) -> trtp.TensorDesc:
    """Describe the output of `TowerLRN`: the same as its input."""
    return x.like()


def _pooled_shape(
    x: trtp.TensorDesc, size: int, alpha: float, beta: float, bias: float, towers: int
) -> trtp.TensorDesc:
    """Describe the output of `ReluTowerLRNPool`: pooled maps, without partial windows."""
    n, channels, *sides = x.shape_expr
    pooled = [(side - POOL_SIZE) // POOL_STRIDE + 1 for side in sides]
    return trtp.from_shape_expr((n, channels, *pooled), x.dtype)


def _types_and_layouts(
    x: trtp.TensorDesc,
    size: int,
    alpha: float,
    beta: float,
    bias: float,
    towers: int,
    outputs: tuple[trtp.TensorDesc],
) -> list[trtp.AutoTuneCombination]:
    """Offer float32 and float16, the same for input and output, in linear NCHW layout.

    And float16 in the layout of its convolutions, so that nothing is reordered between them and
    this; but not where a tower is no whole number of that layout's units of 8 channels.
    """
    offered = [trtp.AutoTuneCombination("FP32|FP16, FP32|FP16", "LINEAR")]
    if fits_hwc8(x.shape[1], size, towers):
        offered.append(trtp.AutoTuneCombination("FP16, FP16", "HWC8"))
    return offered


def _norm_kernel(
    x: trtp.TensorDesc,
    size: int,
    alpha: float,
    beta: float,
    bias: float,
    towers: int,
    outputs: tuple[trtp.TensorDesc],
    tactic: int,
) -> _Kernel:
    """Return the kernel of `TowerLRN` and its launch parameters."""
    lrn = {"size": size, "alpha": alpha, "beta": beta, "bias": bias, "towers": towers}
    return _launched(x, kernel_for(NORM_OP, x.dtype, x.shape, lrn, x.format), tactic)


def _fused_kernel(
    x: trtp.TensorDesc,
    size: int,
    alpha: float,
    beta: float,
    bias: float,
    towers: int,
    outputs: tuple[trtp.TensorDesc],
    tactic: int,
) -> _Kernel:
    """Return the kernel of `ReluTowerLRNPool` and its launch parameters."""
    lrn = {"size": size, "alpha": alpha, "beta": beta, "bias": bias, "towers": towers}
    return _launched(x, kernel_for(FUSED_OP, x.dtype, x.shape, lrn, x.format), tactic)


def kernel_for(
    op: str,
    dtype: Any,
    shape: Iterable[int],
    lrn: Mapping[str, float],
    layout: Any = trt.TensorFormat.LINEAR,
) -> TowerLrnKernel:
    """Return the kernel of an operator for one input dtype and shape.

    Args:
        op: `NORM_OP` or `FUSED_OP`.
        dtype: TensorRT's type of the input, float32 or float16.
        shape: of the input: N (ignored), C, H, W.
        lrn: the values of `plugin_nodes.ATTRIBUTES`.
        layout: TensorRT's format of input and output, LINEAR or HWC8.

    Raises:
        IncompatibleFileError: unsupported attributes or dtype.
    """
    if dtype not in _SCALARS:
        raise IncompatibleFileError(
            f"{op}: its input is {dtype.name}, expected FLOAT or HALF; export the checkpoint again"
        )
    _, channels, height, width = shape
    kind = Hwc8Kernel if layout == trt.TensorFormat.HWC8 else TowerLrnKernel
    return kind(
        scalar=_SCALARS[dtype],
        channels=channels,
        height=height,
        width=width,
        size=int(lrn["size"]),
        alpha=lrn["alpha"],
        beta=lrn["beta"],
        k=lrn["bias"],
        towers=int(lrn["towers"]),
        fused=op == FUSED_OP,
    )


@cache
def compiled(kernel: TowerLrnKernel) -> bytes:
    """Return a kernel's PTX for this machine's GPU; without one, for 8.0 and later.

    Raises:
        DeviceError: the compiler is missing or rejects it.
    """
    found = gpus()
    if not found:
        return compile_ptx(kernel)
    major, minor = found[0].compute_capability.split(".")
    return compile_ptx(kernel, f"compute_{major}{minor}")


def plugin_sha256() -> str:
    """Hash the kernels' sources and the module that says how to compile them."""
    digest = hashlib.sha256()
    for name in (*SOURCES, "kernel.py"):
        digest.update(files("alexnet_deploy.trt").joinpath(name).read_bytes())
    return digest.hexdigest()


def _launched(x: trtp.TensorDesc, kernel: TowerLrnKernel, tactic: int) -> _Kernel:
    """Return what TensorRT needs to launch `kernel`; the grid stays symbolic, N x blocks."""
    if tactic != 0:  # the only one: there is no choice
        raise ValueError(f"tactic is {tactic}, expected 0")
    launch = trtp.KernelLaunchParams()
    launch.grid_x = x.shape_expr[0] * kernel.blocks_per_image
    launch.block_x = kernel.threads
    return kernel.name, compiled(kernel), launch, trtp.SymIntExprs(0)


for _op, _shape, _kernel in (
    (NORM_OP, _same_shape, _norm_kernel),
    (FUSED_OP, _pooled_shape, _fused_kernel),
):
    _id = f"{DOMAIN}::{_op}"
    trtp.register(_id)(_shape)
    trtp.autotune(_id)(_types_and_layouts)
    trtp.aot_impl(_id)(_kernel)
