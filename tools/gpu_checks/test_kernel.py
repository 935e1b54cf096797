"""The LRN kernel on the GPU: its numbers, and its speed beside what bounds it."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import kernel_bounds
import numpy as np
import pytest
from cuda.bindings import driver
from numpy.typing import NDArray

from alexnet_deploy.trt.kernel import Hwc8Kernel, Scalar, TowerLrnKernel, compile_ptx, fits_hwc8
from gpu_checks.kernel_reference import DTYPES, TOLERANCES, formula, largest_error
from gpu_checks.record import Figures

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


@pytest.mark.gpu("cupy")
@pytest.mark.timeout(60)
@pytest.mark.usefixtures("_in_own_folder")
def test_numbers(figures: Figures) -> None:
    """Each shape, in both dtypes, plain and fused, with and without NaN and infinities."""
    import cupy

    capability = cupy.cuda.Device().compute_capability
    figures |= {"cupy": cupy.__version__, "kernels": 0, "error_max": dict.fromkeys(DTYPES, 0.0)}
    for kernel, num_images in kernels():
        ptx = Path(f"kernel-{figures['kernels']}.ptx")
        ptx.write_bytes(compile_ptx(kernel, f"compute_{capability}"))
        function = cupy.RawModule(path=str(ptx)).get_function(kernel.name)
        figures["kernels"] += 1
        for x in inputs(kernel, num_images):
            y = cupy.full((len(x), *kernel.output_shape()), 12345, dtype=x.dtype)
            here, there = (0, 1, 2, 3), (0, 1, 2, 3)
            if isinstance(kernel, Hwc8Kernel):
                here, there = (0, 2, 3, 1), (0, 3, 1, 2)
            given = cupy.ascontiguousarray(cupy.asarray(x).transpose(here))
            y = cupy.ascontiguousarray(y.transpose(here))
            grid = (len(x) * kernel.blocks_per_image,)
            function(grid, (kernel.threads,), (given, y))
            error = largest_error(cupy.asnumpy(y).transpose(there), formula(kernel, x))
            largest = figures["error_max"]
            largest[kernel.scalar] = max(error, largest[kernel.scalar])
            is_right = error <= TOLERANCES[kernel.scalar]
            assert is_right, f"{kernel}, {num_images} images: {error:.1e} off"


def kernels() -> Iterator[tuple[TowerLrnKernel, int]]:
    """Yield kernels with a number of images for each."""
    for channels, height, width, towers, size, num_images in SHAPES:
        kinds: list[tuple[type[TowerLrnKernel], Scalar]]
        kinds = [(TowerLrnKernel, "float"), (TowerLrnKernel, "half")]
        kinds += [(Hwc8Kernel, "half")] if fits_hwc8(channels, size, towers) else []
        for (kind, scalar), fused in product(kinds, (False, True)):
            kernel = kind(
                scalar=scalar,
                channels=channels,
                height=height,
                width=width,
                size=size,
                alpha=1e-4,
                beta=0.75,
                k=2.0,
                towers=towers,
                fused=fused,
            )
            yield kernel, num_images


def inputs(kernel: TowerLrnKernel, num_images: int) -> Iterator[NDArray[Any]]:
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


@pytest.mark.gpu("torch")
def test_bandwidth(figures: Figures) -> None:
    """`tools/lrn_bandwidth.py`, which raises on wrong results, and its times beside their bound."""
    import lrn_bandwidth  # which needs torch; the numbers above do not

    figures |= lrn_bandwidth.measure()
    attribute = driver.CUdevice_attribute
    multiprocessors = device_attribute(attribute.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)
    clock_khz = device_attribute(attribute.CU_DEVICE_ATTRIBUTE_CLOCK_RATE)
    rate = kernel_bounds.SPECIAL_FUNCTIONS * multiprocessors * 1e3 * clock_khz
    figures |= {"multiprocessors": multiprocessors, "clock_mhz": clock_khz / 1e3}
    for row in figures["rows"]:
        elements = figures["batch"] * int(np.prod(lrn_bandwidth.LAYERS[row["layer"]]))
        row |= bound(row, elements, rate)


def device_attribute(attribute: Any) -> int:
    """Return an attribute of the first GPU; torch has initialized the driver."""
    status, number = driver.cuDeviceGetAttribute(attribute, 0)
    assert status == driver.CUresult.CUDA_SUCCESS, f"{attribute.name}: {status.name}"
    return int(number)


def bound(row: dict[str, Any], elements: int, special_functions_per_s: float) -> dict[str, Any]:
    """Return what bounds a row of `lrn_bandwidth.measure`, and the share of it that it reaches.

    The bound is the longer of two times: to move input and output at the speed of a copy, and to
    compute the special functions at the highest clock.
    """
    times = {
        "memory": row["share_of_copy"] * row["microseconds"],
        "special functions": 1e6 * kernel_bounds.ROOTS * elements / special_functions_per_s,
    }
    name = max(times, key=times.__getitem__)
    return {
        "bound": name,
        "bound_microseconds": times[name],
        "share_of_bound": times[name] / row["microseconds"],
    }
