"""NVIDIA's own libraries where CUDA does not start: TensorRT's lean runtime, and TensorRT-RTX.

The driver is a small library of ours, which they load as theirs. Each test is a process of its own:
both load a driver once, and a segmentation fault would end the tests.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.trt_stub.elf_stub import driver_stub
from tests.support.waiting import PATIENCE_S

TOO_OLD = "cudaError 35: CUDA driver version is insufficient for CUDA runtime version"
NOT_STARTED = "cudaError 36: API call is not supported in the installed CUDA driver"
FULL = "cudaError 2: out of memory"
OPEN = """
import dataclasses
import sys
import tensorrt_lean_bindings
sys.modules["tensorrt"] = tensorrt_lean_bindings
from alexnet_deploy.errors import AlexNetDeployError
from alexnet_deploy.runtimes import gpu_driver
from alexnet_deploy.runtimes.factory import open_engine_file
from tests.support.trt_stub.fake_driver import FakeDriver
from tests.support.trt_stub.fake_runtime import FILE, OPTIONS
PREPARE
gpu = gpu_driver.current_gpu()
here = {"gpu_name": gpu.name, "compute_capabilities": (gpu.compute_capability,)}
record = dataclasses.replace(FILE.record, **here)
try:
    open_engine_file(dataclasses.replace(FILE, record=record), OPTIONS)
except AlexNetDeployError as error:
    print(type(error).__name__, error)
"""
BUILD = """
from alexnet_deploy.errors import AlexNetDeployError
from alexnet_deploy.graph.build import build_model
from alexnet_deploy.runtimes.batch_profile import BatchProfile
from alexnet_deploy.runtimes.rtx_plan import check_plan
from alexnet_deploy.trt.rtx_builder import build_rtx_plan
from tests.support.networks import random_checkpoint
file = build_model(random_checkpoint("paper"), ("fc7",))
plan = build_rtx_plan(file, BatchProfile(opt=1, max=1), ("8.9",))
try:
    check_plan(plan, "a.engine")
except AlexNetDeployError as error:
    print(type(error).__name__, error)
"""


def child(folder: Path, code: str, version: int, cu_init: int = 0) -> str:
    """Run code over a driver and return what it prints."""
    (folder / "libcuda.so.1").write_bytes(driver_stub(version, cu_init))
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
        env=os.environ | {"LD_LIBRARY_PATH": str(folder), "PYTHONPATH": ":".join(sys.path)},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture
def _lean() -> None:
    pytest.importorskip("cuda.bindings", reason="CUDA's API comes with: pip install cuda-bindings")
    pytest.importorskip("tensorrt_lean_bindings", reason="TensorRT's lean runtime is not here")


@pytest.mark.usefixtures("_lean")
def test_an_old_driver_is_refused_before_tensorrt_is_loaded(tmp_path: Path) -> None:
    code = OPEN.replace("PREPARE", "sys.modules['tensorrt'] = None")
    assert child(tmp_path, code, 12080).startswith(
        "DeviceError the driver of the GPU GPU is of CUDA 12.8, an engine needs CUDA 13.0 or later"
    )


@pytest.mark.usefixtures("_lean")
@pytest.mark.parametrize(
    ("prepare", "cu_init", "reason"),
    [
        ("", 0, NOT_STARTED),
        ("gpu_driver._load = FakeDriver", 2, FULL),  # that only CUDA of the two finds full
    ],
)
def test_where_cuda_does_not_start_an_engine_is_an_error_with_cudas_reason(
    tmp_path: Path, prepare: str, cu_init: int, reason: str
) -> None:
    code = OPEN.replace("PREPARE", prepare)
    said = child(tmp_path, code, 13020, cu_init)
    assert said.startswith("DeviceError TensorRT cannot create a runtime (createInferRuntime: ")
    assert said.endswith(
        f" | {reason}); check with nvidia-smi that the GPU responds and has free memory\n"
    )
    assert said.count("cudaError") == 1


@pytest.mark.parametrize(("version", "reason"), [(12080, TOO_OLD), (13020, NOT_STARTED)])
def test_tensorrt_rtx_builds_though_cuda_does_not_start_and_says_why_it_cannot_run(
    tmp_path: Path, version: int, reason: str
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="pip install 'alexnet-deploy[rtx]'")
    said = child(tmp_path, BUILD, version)
    assert said.startswith("DeviceError a.engine: cannot run here (")
    assert reason in said
