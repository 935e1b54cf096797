"""`export --trt` on every machine: which library builds, what is verified, what is written.

Libraries and GPU are pretended; engines are run by ONNX Runtime on the CPU, plugins by the local
functions behind them.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from alexnet_deploy.choices import FILE_PRECISIONS, FilePrecision
from alexnet_deploy.cli import cli
from alexnet_deploy.errors import UsageError
from alexnet_deploy.export import engine
from alexnet_deploy.export.engine import EngineRequest, choose_runtime
from alexnet_deploy.files.private_folders import own_folder
from alexnet_deploy.model.default import bundled_checkpoint
from alexnet_deploy.runtimes.batch_profile import BatchProfile
from alexnet_deploy.runtimes.engine_file import NOT_VERIFIED, read_engine, sidecar_path
from tests.support.trt_stub.fake_driver import FakeDriver
from tests.support.trt_stub.machines import RTX, TENSORRT, Machine, export, operators

pytest_plugins = ["tests.support.trt_stub.fixtures", "tests.support.trt_stub.machine_fixtures"]

# The five machines of the table.


@pytest.mark.parametrize("precision", FILE_PRECISIONS)
def test_with_tensorrt_and_no_gpu_the_way_without_one_is_named_at_once(
    trt: Any,
    driver: FakeDriver,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    precision: FilePrecision,
) -> None:
    """With the real builder, over TensorRT's real classes; int8 would calibrate first."""
    pytest.importorskip("cuda.bindings", reason="CUDA's API comes with: pip install cuda-bindings")
    monkeypatch.setattr("alexnet_deploy.installed.has_module", lambda name: name == TENSORRT)
    monkeypatch.setattr(engine, "build_file", lambda *_, **__: pytest.fail("it works"))
    driver.gpus = []
    result = export("--trt", "--precision", precision)
    assert result.exit_code == 1
    assert "(the driver reports none)" in result.stderr
    is_rtx_one = precision in ("fp32", "fp16")
    assert ("--rtx, which builds without a GPU" in result.stderr) == is_rtx_one
    assert [*folder.iterdir()] == []


@pytest.mark.parametrize("packages", [{RTX}, {TENSORRT, RTX}])
def test_with_tensorrt_rtx_and_no_gpu_the_engine_is_built_and_not_verified(
    machine: Machine, quick: list[str], folder: Path, packages: set[str]
) -> None:
    machine.packages, machine.driver.gpus = packages, []
    result = export("--rtx", "-o", "m.engine")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("m.engine: ")
    library = "TensorRT-RTX 1.7.1.116, its own layer normalizes"
    assert result.stdout.endswith(f" MB, {library}, {NOT_VERIFIED}\n")
    assert result.stderr == (
        "not verified here: no NVIDIA GPU that this process may use (the driver reports none); "
        "check nvidia-smi and CUDA_VISIBLE_DEVICES; without a GPU verify it where it "
        f"is to run\n{NOT_VERIFIED}; where it is to run: alexnet-deploy verify m.engine\n"
    )
    record = read_engine(folder / "m.engine").record
    assert (record.runtime, record.lrn, record.report) == ("tensorrt-rtx", "native", None)
    assert json.loads(sidecar_path(folder / "m.engine").read_text())["status"] == NOT_VERIFIED
    assert operators(machine.builds[0][1]) == []
    assert quick == []


def test_with_both_tensorrt_is_taken_unless_the_other_is_asked_for(machine: Machine) -> None:
    machine.packages = {TENSORRT, RTX}
    assert choose_runtime(rtx=False) == "tensorrt"
    assert choose_runtime(rtx=True) == "tensorrt-rtx"


def test_tensorrt_rtx_does_not_stand_in_for_tensorrt(machine: Machine, folder: Path) -> None:
    machine.packages = {RTX}
    result = export("--trt")
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: TensorRT is not installed here, TensorRT-RTX is; its engines are others, for "
        "GeForce and RTX GPUs: build one with --rtx, or install TensorRT with: pip install "
        "'alexnet-deploy[tensorrt]'\n"
    )
    assert machine.builds == []
    assert [*folder.iterdir()] == []


@pytest.mark.parametrize(
    ("flag", "packages", "extra"),
    [("--trt", set(), "tensorrt"), ("--rtx", set(), "rtx"), ("--rtx", {TENSORRT}, "rtx")],
)
def test_without_the_library_its_install_line_is_named(
    machine: Machine, folder: Path, flag: str, packages: set[str], extra: str
) -> None:
    machine.packages = packages
    result = export(flag)
    assert result.exit_code == 1
    assert result.stderr.endswith(f"pip install 'alexnet-deploy[{extra}]'\n")
    assert [*folder.iterdir()] == []


def test_without_verification_nothing_is_verified_and_no_command_is_named(
    machine: Machine, quick: list[str], folder: Path
) -> None:
    result = export("--trt", "-o", "m.engine", "--no-verify")
    assert result.exit_code == 0
    library = "TensorRT 11.4.0.106, our plugin normalizes"
    assert result.stdout.endswith(f" MB, {library}, not verified, as asked\n")
    assert result.stderr == ""
    assert quick == []
    assert read_engine(folder / "m.engine").record.status == NOT_VERIFIED


def test_as_json_the_report_is_that_of_the_sidecar(
    machine: Machine, quick: list[str], folder: Path
) -> None:
    told = json.loads(export("--trt", "-o", "m.engine", "--json").stdout)
    record = read_engine(folder / "m.engine").record
    assert told == {
        "file": "m.engine",
        "identity": record.identity,
        "runtime": "tensorrt",
        "runtime_version": "11.4.0.106",
        "lrn": "plugin",
        "status": "verified",
        "report": record.report,
    }
    machine.packages, machine.driver.gpus = {RTX}, []
    result = export("--rtx", "-o", "m.engine", "--json")
    told = json.loads(result.stdout)
    assert (told["runtime"], told["runtime_version"]) == ("tensorrt-rtx", "1.7.1.116")
    assert (told["lrn"], told["report"]) == ("native", None)
    assert NOT_VERIFIED in result.stderr


# What was asked for.


def test_every_option_reaches_the_builder(machine: Machine, quick: list[str], folder: Path) -> None:
    flags = "--precision fp16 --lrn native --min-batch 2 --opt-batch 8 --max-batch 16 --layer fc6"
    assert export("--trt", "-o", "m.engine", *flags.split()).exit_code == 0
    ((_, model, profile, _),) = machine.builds
    assert (model.precision, model.outputs(), operators(model)) == ("fp16", ("fc6",), [])
    assert profile == BatchProfile(min=2, opt=8, max=16)


@pytest.mark.parametrize(
    ("flags", "versions", "hardware", "lrn"),
    [
        ([], False, "none", "plugin"),
        (["--version-compatible"], True, "none", "plugin"),
        (["--hardware-compatible", "same-compute-capability"], False, None, "plugin"),
        (["--hardware-compatible", "ampere-plus", "--version-compatible"], True, None, "native"),
    ],
)
def test_what_an_engine_is_to_be_compatible_with_is_built_and_recorded(
    machine: Machine,
    quick: list[str],
    folder: Path,
    flags: list[str],
    versions: bool,
    hardware: str | None,
    lrn: str,
) -> None:
    """Our kernel is compiled for the GPU at hand, so it is not for all."""
    assert export("--trt", "-o", "m.engine", *flags).exit_code == 0
    record = read_engine(folder / "m.engine").record
    assert record.version_compatible == versions
    assert record.hardware_compatibility == (hardware or flags[1])
    assert record.lrn == lrn


def test_an_engine_that_does_not_show_our_plugin_is_written_and_says_so(
    machine: Machine, quick: list[str], folder: Path
) -> None:
    machine.shows_plugins = False
    result = export("--trt", "-o", "m.engine")
    assert result.exit_code == 0
    assert result.stderr.count('the record says lrn "unknown"') == 1
    assert result.stdout.endswith("TensorRT 11.4.0.106, what normalizes is unknown\n")
    assert read_engine(folder / "m.engine").record.lrn == "unknown"
    assert "what normalizes is unknown" in CliRunner().invoke(cli, ["info", "m.engine"]).stdout


def test_a_build_has_the_timings_of_those_before_on_this_gpu(
    machine: Machine, quick: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))

    def build() -> bytes:
        assert export("--trt", "-o", "m.engine").exit_code == 0
        return machine.timings[-1]

    assert (build(), build()) == (b"", b"new, ")
    machine.driver.gpus = [("NVIDIA Other", 9, 0)]
    assert build() == b""
    machine.version = "11.5.0.1"
    assert build() == b""
    machine.driver.gpus, machine.version = [("NVIDIA Fake 100", 9, 0)], "11.4.0.106"
    assert build() == b"new, new, "
    (kept, *_) = sorted(
        own_folder("cache").glob("*.timings"), key=lambda path: -path.stat().st_size
    )
    kept.write_bytes(kept.read_bytes()[:-1] + b"?")
    assert build() == b""


def test_timings_that_cannot_be_kept_are_no_reason_to_fail(
    machine: Machine, quick: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    own_folder("cache").write_bytes(b"not a folder")
    result = export("--trt", "-o", "m.engine")
    assert result.exit_code == 0
    assert "the next build must time its kernels again: " in result.stderr


@pytest.mark.parametrize(
    ("checkpoint", "against"),
    [
        ([], ""),
        (["ckpt.safetensors"], " --against ckpt.safetensors"),
    ],
)
def test_the_verify_command_that_is_printed_is_understood(
    machine: Machine, quick: list[str], folder: Path, checkpoint: list[str], against: str
) -> None:
    """Here it fails for want of a GPU, after it has read the engine and the checkpoint."""
    shutil.copy(bundled_checkpoint(), "ckpt.safetensors")
    machine.packages, machine.driver.gpus = {RTX}, []
    result = export(*checkpoint, "--rtx", "-o", "m.engine", "--max-batch", "8")
    command = result.stderr.rpartition("where it is to run: ")[2].rstrip()
    assert command == f"alexnet-deploy verify m.engine{against}"
    verified = CliRunner().invoke(cli, command.split()[1:])
    assert verified.exit_code == 1, verified.output
    assert "GPU" in verified.stderr


def test_the_json_says_why_there_is_no_report(
    machine: Machine, quick: list[str], folder: Path
) -> None:
    machine.packages, machine.driver.gpus = {RTX}, []
    told = json.loads(export("--rtx", "-o", "m.engine", "--json").stdout)
    assert (told["status"], told["report"]) == (NOT_VERIFIED, None)
    told = json.loads(export("--rtx", "-o", "m.engine", "--json", "--no-verify").stdout)
    assert told["status"] == "not verified, as asked"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trt", "--compute-capability", "8.9"], "leave it out, or build with --rtx"),
        (["--trt", "--rtx"], "--trt and --rtx: build engines of two libraries; choose one"),
        (["--rtx", "--version-compatible"], "--version-compatible: is for TensorRT; an engine of"),
        (
            ["--rtx", "--hardware-compatible", "ampere-plus"],
            "--hardware-compatible ampere-plus: is for TensorRT; an engine of",
        ),
        (["--version-compatible"], "--version-compatible: is for engines; add --trt"),
        (["--hardware-compatible", "ampere-plus"], "--hardware-compatible: is for engines; add"),
        (
            ["--trt", "--lrn", "plugin", "--hardware-compatible", "ampere-plus"],
            "--lrn plugin: our kernel is compiled for the GPU at hand, and --hardware-compatible",
        ),
        (["--rtx", "--lrn", "plugin"], "--lrn plugin: TensorRT-RTX has no plugins"),
        (["--rtx", "--precision", "int8"], "TensorRT-RTX engines are built in fp32 and fp16"),
        (["--lrn", "native"], "--lrn: is for engines; add --trt"),
        (["--max-batch", "4"], "--max-batch: is for engines; add --trt"),
        (["--compute-capability", "8.9"], "--compute-capability: is for engines; add --rtx"),
        (["--trt", "--runtime", "openvino"], "--runtime: is for ONNX files"),
        (["--trt", "--threads", "2"], "--threads: is for ONNX files"),
        (["--trt", "-o", "m.onnx"], "an engine's name ends in .engine"),
        (["--trt", "--verify-on", "photos", "--no-verify"], "--verify-on and --no-verify: mean"),
        (["--trt", "--layer", "fc9"], "layer 'fc9' does not exist"),
        (["--trt", "--min-batch", "9", "--max-batch", "8"], "expected min <= opt <= max"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_built(
    machine: Machine, folder: Path, arguments: list[str], message: str
) -> None:
    machine.packages = {TENSORRT, RTX}
    result = export(*arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert machine.builds == []
    assert [*folder.iterdir()] == []


def test_a_place_that_cannot_be_written_shows_before_anything_is_built(
    machine: Machine, folder: Path
) -> None:
    result = export("--trt", "-o", "nowhere/m.engine")
    assert result.exit_code == 1
    assert "create its folder first" in result.stderr
    assert machine.builds == []


def test_a_request_is_checked_when_it_is_made() -> None:
    with pytest.raises(UsageError, match="compute_capabilities: "):
        EngineRequest(runtime="tensorrt", compute_capabilities=("9.0",))
    with pytest.raises(UsageError, match='lrn="plugin"'):
        EngineRequest(runtime="tensorrt-rtx", lrn="plugin")


def test_the_real_tensorrt_rtx_builds_the_bundled_checkpoint(
    driver: FakeDriver, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="pip install 'alexnet-deploy[rtx]'")
    driver.gpus = []
    result = export("--rtx", "-o", "m.engine", "--compute-capability", "8.9", "--precision", "fp16")
    assert result.exit_code == 0, result.output
    assert NOT_VERIFIED in result.stderr
    file = read_engine(folder / "m.engine")
    assert file.record.compute_capabilities == ("8.9",)
    assert len(file.plan) > 10_000_000  # 11 MB of weights
