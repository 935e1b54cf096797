"""What `export --trt` verifies, where it cannot, and what it leaves on the disk then.

Libraries and GPU are pretended; engines are run by ONNX Runtime on the CPU, plugins by the local
functions behind them.
"""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from alexnet_deploy.choices import FilePrecision
from alexnet_deploy.graph.model_file import ModelFile
from alexnet_deploy.graph.report import Check, Report
from alexnet_deploy.photographs.samples import varied_samples
from alexnet_deploy.runtimes.batch_profile import BatchProfile
from alexnet_deploy.runtimes.engine_file import NOT_VERIFIED, read_engine
from alexnet_deploy.verification import engine
from tests.support.trt_stub.machines import RTX, Machine, export, operators

pytest_plugins = ["tests.support.trt_stub.fixtures", "tests.support.trt_stub.machine_fixtures"]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_with_tensorrt_and_a_gpu_an_engine_with_the_plugin_is_verified(
    machine: Machine,
    folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
    precision: FilePrecision,
) -> None:
    """All of it, with nothing left out but TensorRT and the GPU; no CPU here runs bf16."""
    photographs = tmp_path_factory.mktemp("photographs")
    for path in varied_samples()[:2]:
        shutil.copy(path, photographs)
    flags = ["--calibrate", str(photographs)] if precision == "int8" else []
    result = export("--trt", "--verify-on", str(photographs), "--precision", precision, *flags)
    assert result.exit_code == 0, result.output
    file = read_engine(folder / "caltech101.engine")
    assert (file.record.runtime, file.record.lrn) == ("tensorrt", "plugin")
    assert file.record.precision == precision
    assert file.record.status == "verified"
    assert file.record.report is not None
    names = [check["name"] for check in file.record.report["checks"]]
    assert {"identity", "FC7 cosine, lowest (mean)", "pool2 amplified, relative error"} <= {*names}
    assert all(name in result.stdout for name in names)
    assert "pool1 amplified, the same at tower edges" in names
    assert "batches of 1, largest error of a layer" in names
    assert result.stdout.splitlines()[-1].endswith(
        " MB, TensorRT 11.4.0.106, our plugin normalizes"
    )
    (whole, copy) = machine.builds
    assert operators(whole[1]) == operators(copy[1]) == ["ReluTowerLRNPool"] * 2
    assert (whole[2], copy[2]) == (BatchProfile(), BatchProfile(min=2, opt=2, max=2))
    # The ranges of int8 are those of photographs that nobody amplified.
    assert whole[1].precision == precision
    assert copy[1].precision == ("fp32" if precision == "int8" else precision)


@pytest.mark.parametrize(
    ("capability", "obstacle", "reason"),
    [
        ("", "", ""),
        ("9.0", "", ""),
        ("", "UNSUPPORTED_CC", "cannot run here (UNSUPPORTED_CC)"),
        ("", "OLD_CUDA_DRIVER", "cannot run here (OLD_CUDA_DRIVER)"),
        ("8.9", "", "it is for compute capability 8.9, and NVIDIA Fake 100 has 9.0"),
    ],
)
def test_with_tensorrt_rtx_an_engine_is_verified_on_a_gpu_that_it_runs_on(
    machine: Machine,
    quick: list[str],
    folder: Path,
    capability: str,
    obstacle: str,
    reason: str,
) -> None:
    """And where it does not run, the reason is said."""
    machine.packages, machine.obstacle = {RTX}, obstacle
    verified = not reason
    chosen = ["--compute-capability", capability] if capability else []
    result = export("--rtx", "-o", "m.engine", *chosen)
    assert result.exit_code == 0, result.output
    assert machine.builds[0][3] == ((capability,) if capability else ())
    assert quick == (["photographs", "amplified"] if verified else [])
    status = read_engine(folder / "m.engine").record.status
    assert status == ("verified" if verified else NOT_VERIFIED)
    assert (NOT_VERIFIED in result.stderr) is not verified
    told = [line for line in result.stderr.splitlines() if line.startswith("not verified here: ")]
    assert told == ([f"not verified here: {reason}"] if reason else [])


def test_a_driver_that_fails_is_the_reason_that_is_said(
    machine: Machine, quick: list[str], folder: Path
) -> None:
    machine.packages = {RTX}
    machine.driver.failures["cuInit"] = 803
    result = export("--rtx", "-o", "m.engine")
    assert result.exit_code == 0, result.output
    assert "not verified here: no NVIDIA GPU that this process may use (cuInit fails" in (
        result.stderr
    )
    assert quick == []


def reversed_classes(model: ModelFile) -> ModelFile:
    arrays = dict(model.arrays) | {"fc8.bias": model.arrays["fc8.bias"][::-1] + 1}
    return dataclasses.replace(model, arrays=arrays)


def one_tower(model: ModelFile) -> ModelFile:
    """Let the plugin's windows reach across the towers."""
    graph = onnx.ModelProto()
    graph.CopyFrom(model.graph)
    for node in graph.graph.node:
        for attribute in node.attribute:
            if attribute.name == "towers":
                attribute.i = 1
    return dataclasses.replace(model, graph=graph)


@pytest.mark.parametrize(
    ("change", "named", "num_builds"),
    [
        (reversed_classes, "probabilities, largest error", 1),
        (one_tower, "pool1 amplified, the same at tower edges", 2),
    ],
)
def test_an_engine_that_fails_is_not_written(
    machine: Machine,
    folder: Path,
    change: Callable[[ModelFile], ModelFile],
    named: str,
    num_builds: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "alexnet_deploy.photographs.samples.varied_samples", lambda: varied_samples()[:2]
    )
    machine.change = change
    result = export("--trt", "-o", "m.engine", "--max-batch", "2")
    assert result.exit_code == 4
    failed = [line for line in result.stdout.splitlines() if line.endswith("FAILED")]
    assert any(line.startswith(named) for line in failed)
    assert named in result.stderr
    assert [*folder.iterdir()] == []
    assert len(machine.builds) == num_builds


def test_an_earlier_engine_stays_when_the_new_one_fails(
    machine: Machine, quick: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert export("--trt", "-o", "m.engine").exit_code == 0
    before = {path: path.read_bytes() for path in folder.iterdir()}
    failing = Report(
        checks=(Check(name="fc7", measured="1", allowed="0", passed=False),),
        runs="x",
        against="f" * 64,
        num_photographs=1,
    )
    monkeypatch.setattr(engine, "verify_engine", lambda *_: failing)
    assert export("--trt", "-o", "m.engine").exit_code == 4
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert quick == ["photographs", "amplified"]
