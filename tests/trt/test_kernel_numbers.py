"""The LRN kernel's PTX, executed on a CPU, computes the formula: each number of each map.

The oracle is the formula in float64 NumPy, channel by channel. A kernel may differ by the rounding
of its own arithmetic: float32 sums, a root and a root of it, a product: 1e-6; and, with float16
tensors, by one rounding to float16. `support/ptx.py` says which accesses are refused besides.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator
from functools import cache
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

pytest.importorskip("cuda.bindings.nvrtc", reason="cuda-bindings is not installed")
from alexnet_deploy.trt import kernel as kernel_module
from alexnet_deploy.trt.kernel import (
    SOURCES,
    Hwc8Kernel,
    Scalar,
    TowerLrnKernel,
    compile_ptx,
    fits_hwc8,
)
from tests.support import ptx

DTYPES = {"float": np.float32, "half": np.float16}
RELATIVE = {"float": 1e-6, "half": 2**-11 + 1e-6}
ABSOLUTE = {"float": 2**-126, "half": 2**-25}  # half a step of the smallest numbers


def kernel(
    shape: tuple[int, int, int], *, towers: int = 2, size: int = 5, **changes: Any
) -> TowerLrnKernel:
    channels, height, width = shape
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
    return dataclasses.replace(plain, **changes)


def variants(plain: TowerLrnKernel) -> Iterator[TowerLrnKernel]:
    """Yield both types and layouts, and both entry points, of those that the map can have."""
    scalars: tuple[Scalar, ...] = ("float", "half")
    for fused in (False, True):
        if not fused or min(plain.height, plain.width) >= 3:
            for scalar in scalars:
                yield dataclasses.replace(plain, scalar=scalar, fused=fused)
            if fits_hwc8(plain.channels, plain.size, plain.towers):
                yield in_hwc8(dataclasses.replace(plain, scalar="half", fused=fused))


def in_hwc8(of: TowerLrnKernel) -> Hwc8Kernel:
    return Hwc8Kernel(**dataclasses.asdict(of))


LAYERS = [
    *variants(kernel((96, 55, 55))),
    *variants(kernel((256, 27, 27))),
    *list(variants(kernel((256, 27, 27), towers=1, k=1.0)))[-2:],
    *list(variants(kernel((256, 13, 13), towers=1, k=1.0)))[1:3],
]
SMALL = [
    each
    for plain in (
        kernel((6, 3, 3), towers=1, size=7),
        kernel((8, 4, 5), size=3),
        kernel((9, 7, 6), towers=3),
        kernel((10, 9, 9), size=1),
        kernel((14, 5, 8), size=7),
        kernel((12, 11, 7), towers=2, size=9, alpha=3e-3, k=1.0),
        kernel((12, 6, 6), towers=3, beta=0.6, k=1.5),
        kernel((4, 1, 2), towers=2),
        kernel((264, 3, 4), towers=2),  # a tower in two stretches
        kernel((131, 3, 3), towers=1, size=3),  # the same, and no even number of channels
        kernel((2, 64, 33), towers=1, size=3),  # the map in several parts
        kernel((2, 5, 384), towers=1, size=3),  # the widest that can be pooled
        kernel((8, 1, 2), towers=1, size=1),
        kernel((24, 5, 8), towers=3, size=7),
        kernel((16, 6, 7), towers=1, size=17, alpha=3e-3),  # the widest window of HWC8
        kernel((48, 4, 9), beta=0.6, k=1.5),
        kernel((16, 64, 33)),  # in HWC8 in several parts, too
        kernel((24, 3, 384), towers=1, size=3),  # in HWC8 in several slabs
    )
    for each in variants(plain)
]


@cache
def compiled(of: TowerLrnKernel) -> str:
    return compile_ptx(of).decode()


def run(of: TowerLrnKernel, x: NDArray[Any], text: str = "") -> NDArray[Any]:
    """Launch the kernel, or another PTX text in its place, on (N, C, H, W)."""
    output = np.empty((len(x), *of.output_shape()), x.dtype)
    if isinstance(of, Hwc8Kernel):
        x, output = (np.ascontiguousarray(each.transpose(0, 2, 3, 1)) for each in (x, output))
    blocks = len(x) * of.blocks_per_image
    result = ptx.run(text or compiled(of), x, output, blocks=blocks, threads=of.threads)
    return result.transpose(0, 3, 1, 2) if isinstance(of, Hwc8Kernel) else result


def formula(x: NDArray[Any], of: TowerLrnKernel) -> NDArray[np.float64]:
    """Compute what `of` stands for on (N, C, H, W), in float64."""
    a = x.astype(np.float64)
    if of.fused:
        a = np.maximum(a, 0)
    b = np.empty_like(a)
    width = of.channels // of.towers
    for channel in range(of.channels):
        start = channel // width * width
        window = slice(
            max(start, channel - of.size // 2), min(start + width, channel + of.size // 2 + 1)
        )
        sums = (a[:, window] ** 2).sum(axis=1)
        with np.errstate(invalid="ignore"):  # inf / inf
            b[:, channel] = a[:, channel] / (of.k + of.alpha / of.size * sums) ** of.beta
    return pooled(b, of) if of.fused else b


def pooled(b: NDArray[np.float64], of: TowerLrnKernel) -> NDArray[np.float64]:
    _, height, width = of.output_shape()
    result = np.empty((*b.shape[:2], height, width))
    for row in range(height):
        for column in range(width):
            window = b[:, :, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
            result[:, :, row, column] = window.max(axis=(2, 3))
    return result


def assert_right(actual: NDArray[Any], x: NDArray[Any], of: TowerLrnKernel) -> None:
    expected = formula(x, of)
    np.testing.assert_allclose(
        actual.astype(np.float64),
        expected,
        rtol=RELATIVE[of.scalar],
        atol=ABSOLUTE[of.scalar],
        err_msg=str(of),
    )


def activations(of: TowerLrnKernel, images: int, seed: int = 0) -> NDArray[Any]:
    """Return inputs of every size up to 1e4, negative ones too, about half of them large."""
    rng = np.random.default_rng(seed)
    shape = (images, of.channels, of.height, of.width)
    x = rng.choice([-1.0, 1.0, 1.0], shape) * 10 ** rng.uniform(-3, 4, shape)
    return x.astype(DTYPES[of.scalar])


@pytest.mark.parametrize("of", LAYERS, ids=str)
def test_each_layer_of_the_presets_is_the_formula(of: TowerLrnKernel) -> None:
    x = activations(of, 1)
    assert_right(run(of, x), x, of)


@pytest.mark.parametrize("of", SMALL, ids=str)
def test_small_and_odd_maps_are_the_formula(of: TowerLrnKernel) -> None:
    x = activations(of, 3, seed=1)
    assert_right(run(of, x), x, of)


@pytest.mark.parametrize("of", [*variants(kernel((8, 4, 5), towers=1))], ids=str)
def test_a_batch_of_129_images_is_129_images(of: TowerLrnKernel) -> None:
    x = activations(of, 129, seed=2)
    assert_right(run(of, x), x, of)


@pytest.mark.parametrize("of", SMALL, ids=str)
def test_a_nan_or_infinity_spoils_its_own_windows_only(of: TowerLrnKernel) -> None:
    """The formula says which: inf / inf is NaN, a / inf is 0, ReLU and maximum keep a NaN."""
    channels = {0, of.channels // of.towers - 1, of.channels // 2, of.channels - 1}
    cases = list(product(channels, (np.nan, np.inf, -np.inf)))
    x = np.repeat(np.abs(activations(of, 1, seed=3)) + 1, len(cases), axis=0)
    for image, (channel, special) in zip(x, cases, strict=True):
        image[channel, of.height // 2, of.width // 2] = special
    # Where ReLU makes a 0 of it, nothing is spoiled.
    spoiled = [not (special < 0 and of.fused) for _, special in cases]
    assert np.isnan(formula(x, of)).any(axis=(1, 2, 3)).tolist() == spoiled
    assert_right(run(of, x), x, of)


def test_the_largest_halves_do_not_overflow_the_sums() -> None:
    of = next(each for each in SMALL if each.scalar == "half" and each.size == 7)
    x = np.full((1, of.channels, of.height, of.width), 65504, np.float16)
    actual = run(of, x)
    assert_right(actual, x, of)
    assert actual.min() > 0


def test_the_formula_can_tell_towers_apart() -> None:
    """The oracle of these tests notices a window that reaches over the edge of its tower."""
    of = next(each for each in SMALL if each.towers == 3 and each.scalar == "half" and each.fused)
    x = activations(of, 1)
    across = dataclasses.replace(of, towers=1)
    actual = run(of, x)
    assert_right(actual, x, of)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_right(actual, x, across)


def without_barriers(text: str) -> str:
    return text.replace("bar.sync", "// bar.sync")


def moved(instruction: str) -> Callable[[str], str]:
    """Return a fault: the first such instruction accesses what is two bytes further."""
    return lambda text: re.sub(rf"(\b{instruction}\.[^\[;]*\[%rd\d+)(?=\])", r"\1+2", text, count=1)


FAULTS_OF_PTX = {
    "no barrier": (without_barriers, "race"),
    "a load moved": (moved("ld.global"), "Not equal to tolerance|outside|multiple"),
    "a store moved": (moved("st.global"), "written before|outside|race|multiple"),
}


@pytest.mark.parametrize("fault", FAULTS_OF_PTX)
@pytest.mark.parametrize("layout", [TowerLrnKernel, Hwc8Kernel])
def test_a_fault_put_into_the_ptx_is_noticed(fault: str, layout: type[TowerLrnKernel]) -> None:
    """These tests are only worth something if they fail on a wrong kernel."""
    change, message = FAULTS_OF_PTX[fault]
    of = layout(**dataclasses.asdict(kernel((16, 7, 7))) | {"scalar": "half", "fused": True})
    x = activations(of, 2)
    text = change(compiled(of))
    assert text != compiled(of)
    with pytest.raises((AssertionError, ptx.Fault), match=message):
        assert_right(run(of, x, text), x, of)


LINEAR = dataclasses.replace(kernel((15, 7, 7), towers=3), fused=True)
HWC8 = in_hwc8(dataclasses.replace(kernel((32, 7, 7)), scalar="half", fused=True))
FAULTS_OF_SOURCE = {
    "windows reach into the next tower": (
        LINEAR,
        "const bool is_inside = 0 <= channel && channel < TOWER;",
        "const bool is_inside = true;",
    ),
    "a place beyond the map is read": (
        LINEAR,
        "walk.has_right[i] = WIDTH % 2 == 0 || column + 1 < WIDTH;",
        "walk.has_right[i] = true;",
    ),
    "ReLU and maximum lose a NaN": (LINEAR, "max.NaN.f32", "max.f32"),
    "HWC8: windows reach into the tower before": (
        HWC8,
        "is_first = number_in_tower == 0",
        "is_first = unit == nullptr",
    ),
    "HWC8: windows end before their tower": (
        HWC8,
        "is_last = number_in_tower == UNITS_OF_TOWER - 1",
        "is_last = true",
    ),
    "HWC8: a column beyond the map is read": (HWC8, "if (i == 0 || has_output)", ""),
    "HWC8: ReLU and maximum lose a NaN": (HWC8, "max.NaN.f16x2 %0, %1, %2", "max.f16x2 %0, %1, %2"),
}


@pytest.mark.parametrize("fault", FAULTS_OF_SOURCE)
def test_a_fault_put_into_the_source_is_noticed(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of, right, wrong = FAULTS_OF_SOURCE[fault]
    found = 0
    for name in SOURCES:
        source = files("alexnet_deploy.trt").joinpath(name).read_text("utf-8")
        found += source.count(right)
        tmp_path.joinpath(name).write_text(source.replace(right, wrong), "utf-8")
    assert found == 1, "the kernel has changed: write this fault anew"
    monkeypatch.setattr(kernel_module, "files", lambda package: tmp_path)
    x = activations(of, 2)
    x[0, 4, 3, 3] = np.nan
    with pytest.raises((AssertionError, ptx.Fault), match=r"Not equal to tolerance|outside"):
        assert_right(run(of, x, compile_ptx(of).decode()), x, of)


@st.composite
def kernels(draw: st.DrawFn) -> TowerLrnKernel:
    towers = draw(st.integers(1, 3))
    fused, is_hwc8 = draw(st.booleans()), draw(st.booleans())
    side = st.integers(3 if fused else 1, 20)
    channels = towers * draw(st.sampled_from([8, 16]) if is_hwc8 else st.integers(1, 12))
    of = kernel(
        (channels, draw(side), draw(side)),
        towers=towers,
        size=draw(st.sampled_from([1, 3, 5, 7, 11])),
        alpha=draw(st.sampled_from([0.0, 1e-4, 0.5])),
        beta=draw(st.sampled_from([0.75, 0.5, 1.0, -0.5])),
        k=draw(st.sampled_from([1.0, 2.0, 0.01])),
        scalar="half" if is_hwc8 else draw(st.sampled_from(["float", "half"])),
        fused=fused,
    )
    return in_hwc8(of) if is_hwc8 else of


@settings(max_examples=16)
@given(of=kernels(), seed=st.integers(0, 99))
def test_any_shape_is_the_formula(of: TowerLrnKernel, seed: int) -> None:
    # Up to 100, so that the odd powers stay within the numbers that a half has.
    x = np.clip(activations(of, 2, seed), -100, 100)
    assert_right(run(of, x), x, of)
