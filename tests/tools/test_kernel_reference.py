"""What the LRN kernel is held against on a GPU, without the kernel: numbers, floors and bounds."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lrn_bandwidth
import numpy as np
import pytest
import torch
from gpu_checks import test_kernel, test_onnxruntime
from gpu_checks.kernel_reference import DTYPES, TOLERANCES, formula, largest_error
from gpu_checks.session import ROOT
from lrn_bandwidth import FORMS, banded, by_torch, bytes_moved, summaries

from alexnet_deploy.trt.kernel import Scalar, TowerLrnKernel
from tests.support.plain_session import plain_session

KERNEL = TowerLrnKernel(
    scalar="float",
    channels=12,
    height=7,
    width=9,
    size=5,
    alpha=1e-4,
    beta=0.75,
    k=2.0,
    towers=2,
    fused=True,
)


def activations(kernel: TowerLrnKernel, num_images: int = 2) -> np.ndarray[Any, Any]:
    """Return numbers at which the normalization halves what it gets."""
    shape = (num_images, kernel.channels, kernel.height, kernel.width)
    x = 200 * np.random.default_rng(0).standard_normal(shape)
    return x.astype(DTYPES[kernel.scalar])


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("towers", [1, 2, 3])
@pytest.mark.parametrize("form", ["torch", "banded"])
def test_each_form_that_is_timed_computes_the_formula(form: str, towers: int, fused: bool) -> None:
    kernel = dataclasses.replace(KERNEL, towers=towers, fused=fused)
    x = activations(kernel)
    work = banded(kernel, "cpu") if form == "banded" else lambda x: by_torch(kernel, x)
    actual = work(torch.from_numpy(x)).numpy()
    assert actual.shape == (2, *kernel.output_shape())
    assert largest_error(actual, formula(kernel, x)) < TOLERANCES["float"]


def test_the_formula_halves_what_it_gets_and_stops_at_towers() -> None:
    """Else the tests above would prove little."""
    kernel = dataclasses.replace(KERNEL, fused=False)
    x = activations(kernel)
    y = formula(kernel, x)
    assert np.abs(y).mean() < 0.6 * np.abs(x).mean()
    other = formula(dataclasses.replace(kernel, towers=1), x)
    assert largest_error(y.astype(np.float32), other) > 0.1


@pytest.mark.parametrize(
    ("actual", "expected", "error"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.5, 2.0], [1.0, 2.0], 0.5),
        ([np.nan, np.inf, -np.inf], [np.nan, np.inf, -np.inf], 0.0),
        ([1.0], [np.inf], np.inf),
        ([np.inf], [1.0], np.inf),
        ([np.inf], [-np.inf], np.inf),
        ([np.nan], [np.inf], np.inf),
        ([np.nan, 1.0], [1.0, 1.0], np.inf),
        ([1.0], [np.nan], np.inf),
        ([0.0], [1e-300], 1e-300 / np.finfo(np.float32).tiny),
    ],
)
def test_the_largest_error_counts_what_is_no_number(
    actual: Sequence[float], expected: Sequence[float], error: float
) -> None:
    found = largest_error(np.array(actual, np.float32), np.array(expected, np.float64))
    assert found == pytest.approx(error, rel=1e-6)


@pytest.mark.parametrize("scalar", ["float", "half"])
def test_the_graph_for_cudnn_computes_the_formula_in_each_of_its_branches(scalar: Scalar) -> None:
    kernel = dataclasses.replace(KERNEL, towers=1, scalar=scalar)
    x = activations(kernel)
    graph = test_onnxruntime.lrn_graph(x.shape, scalar)
    kinds = {
        value.type.tensor_type.elem_type for value in (*graph.graph.input, *graph.graph.output)
    }
    assert kinds == {10 if scalar == "half" else 1}
    if scalar == "float":  # for half ONNX Runtime has it on a GPU only
        outputs = plain_session(graph.SerializeToString()).run(None, {"x": x})
        assert len(outputs) == test_onnxruntime.BRANCHES
        for output in outputs:
            assert largest_error(output, formula(kernel, x)) < TOLERANCES[scalar]


@pytest.mark.parametrize(("scalar", "size"), [("float", 4), ("half", 2)])
def test_the_floor_is_the_input_and_the_output_once(scalar: Scalar, size: int) -> None:
    kernel = dataclasses.replace(KERNEL, scalar=scalar)
    assert bytes_moved(kernel, 10) == 10 * size * 12 * (7 * 9 + 3 * 4)


def test_shares_are_of_the_copy_of_the_same_round() -> None:
    """The clock rises from round to round; the kernel always moves as fast as the copy."""
    copy = [4.0, 2.0, 1.0]
    slower = [2 * each for each in copy]
    seconds = {"copy": copy, "kernel": copy, "torch": slower, "banded": [1.0, 1.0, 1.0]}
    rows = summaries(seconds, 2 * lrn_bandwidth.COPY_BYTES)
    assert [row["form"] for row in rows] == list(FORMS)
    assert [row["share_of_copy"] for row in rows] == [1.0, 0.5, 2.0]
    assert [row["microseconds"] for row in rows] == [2e6, 4e6, 1e6]
    half = summaries(seconds, lrn_bandwidth.COPY_BYTES)
    assert half[0]["share_of_copy"] == 0.5


@pytest.mark.parametrize(("factor", "is_right"), [(1.0, True), (1.0 + 1e-5, False)])
def test_the_check_of_numbers_launches_each_kernel_and_compares_what_it_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factor: float, is_right: bool
) -> None:
    """With NumPy in CuPy's place, and the formula in the kernel's."""
    launched: list[tuple[Any, Any]] = []

    def launch(grid: Any, block: Any, arrays: tuple[Any, Any]) -> None:
        launched.append((grid, block))
        x, y = arrays
        y[...] = factor * formula(KERNEL, x)

    module = SimpleNamespace(get_function={KERNEL.name: launch}.__getitem__)
    cupy = SimpleNamespace(
        __version__="14",
        cuda=SimpleNamespace(Device=lambda: SimpleNamespace(compute_capability="90")),
        RawModule=lambda path: module,
        full=np.full,
        asarray=np.asarray,
        asnumpy=np.asarray,
        ascontiguousarray=np.ascontiguousarray,
    )
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(test_kernel, "kernels", lambda: iter([(KERNEL, 2)]))
    monkeypatch.chdir(tmp_path)
    figures: dict[str, Any] = {}
    outcome = nullcontext() if is_right else pytest.raises(AssertionError, match=r"1\.0e-05 off")
    with outcome:
        test_kernel.test_numbers(figures)
    inputs = 1 + len(test_kernel.SPECIAL) if is_right else 1
    assert launched == inputs * [((2 * KERNEL.blocks_per_image,), (KERNEL.threads,))]
    assert (figures["kernels"], figures["error_max"]["float"] > 5e-6) == (1, not is_right)


def test_the_numbers_are_checked_without_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; import gpu_checks.test_kernel"
    places = os.pathsep.join([str(ROOT), str(ROOT / "tools")])
    subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": places}, check=True
    )


@pytest.mark.parametrize(
    ("copy_gb_per_s", "name", "microseconds"),
    [(4300, "memory", 42.9), (8000, "special functions", 35.6)],
)
def test_the_bound_is_the_longer_of_both(
    monkeypatch: pytest.MonkeyPatch, copy_gb_per_s: float, name: str, microseconds: float
) -> None:
    """Of conv1 in half precision, 256 images, on the 132 multiprocessors of an H200 at 1.98 GHz."""
    moved = 256 * 2 * 96 * (55 * 55 + 27 * 27)
    share = moved / (1e3 * copy_gb_per_s) / 60
    rows = [{"layer": "conv1", "microseconds": 60.0, "share_of_copy": share}]
    monkeypatch.setattr(lrn_bandwidth, "measure", lambda: {"batch": 256, "rows": rows})
    attributes = {"MULTIPROCESSOR_COUNT": 132, "CLOCK_RATE": 1_980_000}
    monkeypatch.setattr(
        test_kernel,
        "device_attribute",
        lambda attribute: attributes[attribute.name.removeprefix("CU_DEVICE_ATTRIBUTE_")],
    )
    figures: dict[str, Any] = {}
    test_kernel.test_bandwidth(figures)
    (found,) = figures["rows"]
    assert found["bound"] == name
    assert found["bound_microseconds"] == pytest.approx(microseconds, abs=0.05)
    assert found["share_of_bound"] == pytest.approx(microseconds / 60, abs=1e-3)
