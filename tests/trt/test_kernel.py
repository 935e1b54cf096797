"""The LRN kernel compiles to what TensorRT launches, and what cannot be compiled is refused."""

import dataclasses
import importlib
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from alexnet_deploy.errors import DeviceError, IncompatibleFileError, MissingPackageError
from alexnet_deploy.model.spec import preset_spec

pytest.importorskip("cuda.bindings.nvrtc", reason="cuda-bindings is not installed")
from cuda.bindings import nvrtc

from alexnet_deploy.trt import kernel as kernel_module
from alexnet_deploy.trt.kernel import (
    Hwc8Kernel,
    Scalar,
    TowerLrnKernel,
    check_compiler,
    compile_ptx,
)

try:
    kernel_module.compiler_version()
except MissingPackageError:
    pytest.skip("NVRTC is not installed", allow_module_level=True)

PTXAS = shutil.which("ptxas") or next(map(str, Path("/usr/local").glob("cuda*/bin/ptxas")), None)
REGISTERS = 65_536  # of a multiprocessor
SHARED_BYTES = 48 * 1024  # of a block, unless its launcher asks the driver for more

PAPER = TowerLrnKernel(
    scalar="half",
    channels=96,
    height=55,
    width=55,
    size=5,
    alpha=1e-4,
    beta=0.75,
    k=2.0,
    towers=2,
    fused=True,
)


def preset_kernels(scalar: Scalar) -> dict[str, TowerLrnKernel]:
    """Return every kernel that a preset can need."""
    kernels = {}
    for preset in ("paper", "caffe", "caffenet"):
        spec = preset_spec(preset)
        assert spec.lrn is not None
        shapes = spec.layer_shapes()
        before_pool = spec.lrn.position == "before_pool"
        for number in "12":
            channels, height, width = shapes[f"conv{number}" if before_pool else f"pool{number}"]
            for fused in (False, True)[: 1 + before_pool]:
                kernels[f"{preset} {number} {'fused' if fused else 'alone'}"] = TowerLrnKernel(
                    scalar=scalar,
                    channels=channels,
                    height=height,
                    width=width,
                    size=spec.lrn.size,
                    alpha=spec.lrn.alpha,
                    beta=spec.lrn.beta,
                    k=spec.lrn.k,
                    towers=spec.lrn.towers,
                    fused=fused,
                )
    return kernels


CASES = [
    pytest.param(kernel, id=f"{name} {scalar}")
    for scalar in ("float", "half")
    for name, kernel in preset_kernels(scalar).items()
] + [
    pytest.param(Hwc8Kernel(**dataclasses.asdict(kernel)), id=f"{name} hwc8")
    for name, kernel in preset_kernels("half").items()
]


@cache
def ptx(kernel: TowerLrnKernel) -> str:
    return compile_ptx(kernel).decode("ascii")


@pytest.mark.parametrize("kernel", CASES)
def test_the_ptx_is_one_entry_that_takes_two_pointers(kernel: TowerLrnKernel) -> None:
    text = ptx(kernel)
    entry = re.findall(r"\.visible \.entry (\w+)\(([^)]*)\)", text)
    assert [(name, len(re.findall(r"\.param \.u64", found))) for name, found in entry] == [
        (kernel.name, 2)
    ]
    assert re.findall(r"^\.target (\w+)", text, re.MULTILINE) == ["sm_80"]
    assert f".maxntid {kernel.threads}" in text
    assert ".extern" not in text, "needs a function that nobody gives it"
    assert ".local" not in text, "has arrays that are not in registers"
    assert "\0" not in text


@pytest.mark.parametrize("kernel", CASES)
def test_a_power_costs_two_special_functions(kernel: TowerLrnKernel) -> None:
    """More, or a division, and they and not the memory would set the time."""
    text = ptx(kernel)
    roots = len(re.findall(r"\bsqrt\.approx", text))
    assert roots == len(re.findall(r"\brsqrt\.approx", text)) > 0
    assert not re.findall(r"\b(?:div|rcp|lg2|ex2|sqrt\.rn)\.\S*f32", text)


@pytest.mark.parametrize("scalar", ["float", "half"])
def test_a_power_by_its_logarithm_is_as_good_as_float32_is(scalar: Scalar) -> None:
    """With --use_fast_math it would be `lg2.approx`, whose error the exponent multiplies."""
    text = ptx(dataclasses.replace(PAPER, scalar=scalar, beta=0.6))
    assert "ex2.approx" in text
    assert not re.findall(r"\b(?:lg2\.approx|div)\.[\w.]*f32", text)


TIGHT = [case for case in CASES if str(case.id).startswith(("paper 1 fused", "paper 2 fused"))]


@pytest.mark.skipif(PTXAS is None, reason="ptxas is not installed: no register counts")
@pytest.mark.parametrize(
    ("kernel", "architecture"),
    [pytest.param(*case.values, 90, id=f"{case.id} 90") for case in CASES]
    + [
        pytest.param(*case.values, architecture, id=f"{case.id} {architecture}")
        for case in TIGHT
        for architecture in (80, 86, 89, 100, 120)
    ],
)
def test_as_many_blocks_fit_as_planned_and_nothing_spills(
    kernel: TowerLrnKernel, architecture: int, tmp_path: Path
) -> None:
    assert PTXAS is not None
    tmp_path.joinpath("kernel.ptx").write_bytes(compile_ptx(kernel, f"compute_{architecture}"))
    finished = subprocess.run(
        [PTXAS, f"-arch=sm_{architecture}", "-v", "kernel.ptx", "-o", "kernel.cubin"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    report = finished.stdout + finished.stderr
    assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in report
    (registers,) = map(int, re.findall(r"Used (\d+) registers", report))
    shared = sum(map(int, re.findall(r"(\d+) bytes smem", report)))
    assert shared <= SHARED_BYTES
    warps = -(-kernel.threads // 32)
    blocks = REGISTERS // (-(-registers // 8) * 8 * 32 * warps)
    assert blocks >= resident(kernel, architecture)


def resident(kernel: TowerLrnKernel, architecture: int) -> int:
    options = dict(option.split("=") for option in kernel.options(architecture))
    return int(options["-DRESIDENT"])


def test_half_has_a_block_less_where_the_compiler_would_spill() -> None:
    """Of conv1's. 256 images have 11.6 of its blocks for each of an H200's 132 multiprocessors."""
    assert [resident(PAPER, architecture) for architecture in (80, 86, 89, 90, 120)] == [
        *(3, 3, 3, 4, 4)
    ]


def test_a_newer_architecture_than_the_compilers_gets_the_newest_it_has() -> None:
    assert ".target sm_90" in compile_ptx(PAPER, "compute_90").decode()
    newest = max(kernel_module._called(nvrtc.nvrtcGetSupportedArchs))
    assert f".target sm_{newest}" in compile_ptx(PAPER, "compute_999").decode()


@pytest.mark.parametrize("architecture", ["compute_75", "compute_52"])
def test_a_gpu_that_is_too_old_is_refused(architecture: str) -> None:
    with pytest.raises(DeviceError, match=f'8.0 or later.*{architecture}.*lrn="native"'):
        compile_ptx(PAPER, architecture)


@pytest.mark.parametrize("architecture", ["sm_90", "compute_90a", "9.0", ""])
def test_an_architecture_is_written_as_the_compiler_writes_it(architecture: str) -> None:
    with pytest.raises(ValueError, match="expected one like 'compute_80'"):
        compile_ptx(PAPER, architecture)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 4}, "size is 4, expected an odd number"),
        ({"size": 0}, "size is 0, expected an odd number"),
        ({"size": 33}, "size is 33, expected an odd number, 1 to 31"),
        ({"towers": 5}, "towers is 5, expected a divisor of 96 channels"),
        ({"towers": 0}, "towers is 0, expected 1 or more"),
        ({"height": 2}, "side is 2, expected 3 px or more"),
        ({"width": 2}, "side is 2, expected 3 px or more"),
        ({"width": 385}, "width is 385, expected less: three rows"),
        ({"width": 0}, "width is 0, expected 1 or more"),
        ({"channels": 2**20}, "expected fewer than 2.31 elements"),
        ({"scalar": "double"}, "scalar is 'double', expected float or half"),
        ({"alpha": float("nan")}, "alpha is nan, expected a finite number"),
        ({"beta": float("inf")}, "beta is inf, expected a finite number"),
        ({"k": float("-inf")}, "k is -inf, expected a finite number"),
    ],
    ids=str,
)
def test_numbers_that_no_kernel_has_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(IncompatibleFileError, match=message):
        dataclasses.replace(PAPER, **change)


def test_a_map_without_pooling_may_be_of_any_size() -> None:
    kernel = dataclasses.replace(PAPER, fused=False, height=1, width=2000)
    assert kernel.output_shape() == (96, 1, 2000)
    assert kernel.blocks_per_image == 2 * 4  # towers; 2000 places in parts of up to 512


def test_conv1_of_a_tower_takes_three_blocks_and_conv2_one() -> None:
    assert (PAPER.blocks_per_image, PAPER.threads) == (6, 288)
    assert PAPER.output_shape() == (96, 27, 27)
    conv2 = dataclasses.replace(PAPER, channels=256, height=27, width=27)
    assert (conv2.blocks_per_image, conv2.threads) == (2, 192)
    # One tower of 256 channels is divided into two stretches of 128.
    assert dataclasses.replace(conv2, towers=1).blocks_per_image == 2
    assert "-DSTRETCH=128" in dataclasses.replace(conv2, towers=1).options()


def test_in_hwc8_a_block_has_whole_places_of_conv1_and_halves_of_conv2s() -> None:
    conv1 = Hwc8Kernel(**dataclasses.asdict(PAPER))
    conv2 = dataclasses.replace(conv1, channels=256, height=27, width=27)
    alone = dataclasses.replace(conv1, fused=False)
    # (pooled columns + 1) * units; parts * slabs; 96 channels of 3025 places in units of 8
    assert (conv1.threads, conv1.blocks_per_image) == (28 * 12, 3 * 1)
    assert (conv2.threads, conv2.blocks_per_image) == (14 * 16, 1 * 2)
    assert (alone.threads, alone.blocks_per_image) == (256, 142)


@pytest.mark.parametrize(
    "change", [{"towers": 8}, {"size": 19}, {"scalar": "float"}, {"channels": 40}], ids=str
)
def test_hwc8_is_for_halves_in_whole_units(change: dict[str, Any]) -> None:
    kernel = Hwc8Kernel(**dataclasses.asdict(PAPER))
    with pytest.raises(IncompatibleFileError, match=r"expected (half|linear; HWC8 needs towers)"):
        dataclasses.replace(kernel, **change)


@pytest.mark.parametrize("compiler", ["12.9", "13.0", "13.1"])
def test_a_compiler_up_to_the_drivers_cuda_is_taken(compiler: str) -> None:
    check_compiler(compiler, "13.1")


@pytest.mark.parametrize(("compiler", "driver"), [("13.2", "13.1"), ("13.10", "13.9")])
def test_a_compiler_newer_than_the_driver_is_refused(compiler: str, driver: str) -> None:
    with pytest.raises(DeviceError, match=f"CUDA {compiler}, newer than the CUDA {driver} of"):
        check_compiler(compiler, driver)


def test_compiling_on_a_gpu_machine_compares_with_its_driver(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kernel_module, "gpus", lambda: (SimpleNamespace(cuda_version="12.4"),))
    with pytest.raises(DeviceError, match=r"newer than the CUDA 12\.4 of.*; update the driver"):
        compile_ptx(PAPER)


def test_a_missing_compiler_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_found() -> None:
        raise RuntimeError("libnvrtc.so.13 not found")

    monkeypatch.setattr(nvrtc, "nvrtcVersion", not_found)
    with pytest.raises(MissingPackageError, match=r"nvidia-cuda-nvrtc.*alexnet-deploy\[tensorrt\]"):
        compile_ptx(PAPER)


def test_missing_bindings_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "alexnet_deploy.trt.kernel")
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(MissingPackageError, match=r"cuda-bindings.*alexnet-deploy\[tensorrt\]"):
        importlib.import_module("alexnet_deploy.trt.kernel")


def test_what_the_compiler_says_is_in_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_module, "_OPTIONS", ("--std=c++17", "-DPair=1+"))
    with pytest.raises(DeviceError, match=r"NVRTC 13\.\d+ does not compile(.|\n)*error: expected"):
        compile_ptx(PAPER)
