"""Fixtures of tests about `export --trt`; see `machines`."""

import os
import sys
from pathlib import Path

import pytest

# All that take names of engine_verification, which must not find those of `quick` there.
from alexnet_deploy import installed
from alexnet_deploy.graph.report import Check, Report
from alexnet_deploy.runtimes.base import RunnerOptions
from alexnet_deploy.runtimes.engine_file import EngineFile
from alexnet_deploy.runtimes.gpu_driver import current_gpu
from alexnet_deploy.verification import engine as engine_verification
from alexnet_deploy.verification import file as verify_file  # noqa: F401
from tests.support.cpu_plans import CpuPlan
from tests.support.trt_stub.fake_driver import FakeDriver
from tests.support.trt_stub.machines import RTX, TENSORRT, Machine


@pytest.fixture
def machine(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine with TensorRT and a GPU, until a test changes it."""
    machine = Machine(driver)
    for name in ("trt.builder", "trt.rtx_builder", "runtimes.rtx_plan"):
        monkeypatch.setitem(sys.modules, f"alexnet_deploy.{name}", machine)
    has_module = installed.has_module
    monkeypatch.setattr(
        installed,
        "has_module",
        lambda name: name in machine.packages if name in (TENSORRT, RTX) else has_module(name),
    )
    monkeypatch.setattr(engine_verification, "open_engine_file", _open_engine_file)
    return machine


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let every verification pass unseen; return which were made."""
    made: list[str] = []

    def verify_engine(*_: object) -> Report:
        made.append("photographs")
        return Report(checks=(), runs="x", against="f" * 64, num_photographs=1)

    def amplified_checks(*_: object) -> list[Check]:
        made.append("amplified")
        return []

    monkeypatch.setattr(engine_verification, "verify_engine", verify_engine)
    monkeypatch.setattr(engine_verification, "amplified_checks", amplified_checks)
    return made


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, empty."""
    monkeypatch.setattr(os, "fsync", lambda _: None)  # on a busy disk it takes a second
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _open_engine_file(file: EngineFile, options: RunnerOptions) -> CpuPlan:
    current_gpu()
    return CpuPlan(file, options)
