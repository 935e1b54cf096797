"""The LRN kernel on the GPU, launched by CuPy: maps of many shapes against the reference."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cupy
import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.trt.kernel import TowerLrnKernel, compile_ptx
from gpu_checks.check import Figures, Settings, require
from gpu_checks.kernel_reference import DTYPES, TOLERANCES, formula, largest_error

# channels, height, width, towers, size of the window, images
SHAPES = (
    (96, 55, 55, 2, 5, 3),
    (256, 27, 27, 2, 5, 3),
    (6, 3, 3, 1, 7, 2),
    (9, 7, 6, 3, 5, 129),
    (14, 5, 8, 2, 7, 1),
    (131, 3, 3, 1, 3, 2),
    (264, 3, 4, 2, 5, 2),
    (2, 5, 383, 1, 3, 2),
)
SPECIAL = (np.nan, np.inf, -np.inf)


def numbers(settings: Settings) -> Figures:
    """Run each shape, in both dtypes, plain and fused, with and without NaN and infinities.

    Raises:
        Failed: a result is wrong.
    """
    capability = cupy.cuda.Device().compute_capability
    figures: Figures = {"cupy": cupy.__version__, "kernels": 0, "error_max": {}}
    for kernel, num_images in _kernels():
        ptx = Path(f"kernel-{figures['kernels']}.ptx")
        ptx.write_bytes(compile_ptx(kernel, f"compute_{capability}"))
        function = cupy.RawModule(path=str(ptx)).get_function(kernel.name)
        figures["kernels"] += 1
        for x in _inputs(kernel, num_images):
            error = largest_error(_run(kernel, function, x), formula(kernel, x))
            largest = max(error, figures["error_max"].get(kernel.scalar, 0.0))
            figures["error_max"][kernel.scalar] = largest
            is_right = error <= TOLERANCES[kernel.scalar]
            require(is_right, f"{kernel}, {num_images} images: {error:.1e} off", figures)
    return figures


def _kernels() -> Iterator[tuple[TowerLrnKernel, int]]:
    for channels, height, width, towers, size, num_images in SHAPES:
        plain = TowerLrnKernel(
            scalar="float",
            channels=channels,
            height=height,
            width=width,
            size=size,
            alpha=1e-4,
            beta=0.75,
            k=2.0,
            towers=towers,
            fused=False,
        )
        for scalar in DTYPES:
            for fused in (False, True):
                yield dataclasses.replace(plain, scalar=scalar, fused=fused), num_images


def _inputs(kernel: TowerLrnKernel, num_images: int) -> Iterator[NDArray[Any]]:
    """Yield values of all magnitudes up to 1e4 and either sign; then with NaN and infinities."""
    rng = np.random.default_rng(0)
    shape = (num_images, kernel.channels, kernel.height, kernel.width)
    x = rng.choice([-1.0, 1.0, 1.0], shape) * 10 ** rng.uniform(-3, 4, shape)
    x = x.astype(DTYPES[kernel.scalar])
    yield x
    for value in SPECIAL:
        spoiled = x.copy()
        # At the edge of a tower; they must not leak into the next.
        edge = kernel.channels // kernel.towers - 1
        spoiled[-1, edge, kernel.height // 2, kernel.width // 2] = value
        yield spoiled


def _run(kernel: TowerLrnKernel, function: Any, x: NDArray[Any]) -> NDArray[Any]:
    """Launch the kernel; elements that it does not write are 12345."""
    y = cupy.full((len(x), *kernel.output_shape()), 12345, dtype=x.dtype)
    grid = (len(x) * kernel.blocks_per_image,)
    function(grid, (kernel.threads,), (cupy.asarray(x), y))
    result: NDArray[Any] = cupy.asnumpy(y)
    return result
