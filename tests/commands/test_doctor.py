"""`doctor` on machines where something is missing or broken; and what is said there."""

import json
import subprocess
import sys
from typing import Any

import pytest

from alexnet_deploy import doctor
from alexnet_deploy.doctor import Finding, examine
from alexnet_deploy.export import opening
from alexnet_deploy.runtimes import onnxruntime_distributions
from alexnet_deploy.runtimes.base import RunnerOptions
from tests.support.fake_runner import FakeRunner
from tests.support.trt_stub.fake_driver import FakeDriver

pytest_plugins = ["tests.support.trt_stub.fixtures"]

OWNERS = {
    "safetensors": ("model.checkpoints",),
    "onnx": (
        *("graph.model_file", "graph.build", "graph.lowering"),
        *("graph.casting", "graph.quantization", "graph.plugin_nodes"),
    ),
    "openvino": ("runtimes.openvino_runner",),
    "onnxruntime": ("runtimes.onnxruntime_runner",),
    "torch": ("model.torch_files",),
    "faiss": ("index.faiss_library",),
    "pyarrow": ("inference.parquet_files",),
}
DISTRIBUTIONS = {"faiss": "faiss-cpu"}
"""Those that are not called as what they install."""
WITHOUT = "import json, sys; sys.modules.update(dict.fromkeys(json.loads(sys.argv[1])));"
RUN_DOCTOR = "from alexnet_deploy.cli import main; sys.argv[1:] = ['doctor', '--json']; main()"


def run_without(libraries: list[str], program: str) -> "subprocess.CompletedProcess[str]":
    """Run a program in a process where importing these libraries fails."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT + program, json.dumps(libraries)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("library", OWNERS)
def test_a_module_whose_library_is_missing_says_how_to_install_it(library: str) -> None:
    names = [f"alexnet_deploy.{module}" for module in OWNERS[library]]
    program = f"""
import importlib
from alexnet_deploy.errors import MissingPackageError
for name in {names}:
    try:
        importlib.import_module(name)
    except MissingPackageError as error:
        print(error)
"""
    finished = run_without([library], program)
    assert finished.returncode == 0, finished.stderr
    lines = finished.stdout.splitlines()
    assert len(lines) == len(names)
    package = DISTRIBUTIONS.get(library, library)
    assert all(f"needs the package {package}, which is not" in line for line in lines)


def test_a_base_install_is_told_what_is_missing() -> None:
    """The extras are optional: with none of them doctor works, and says no to every runtime."""
    finished = run_without(["safetensors", "onnx", "openvino", "onnxruntime"], RUN_DOCTOR)
    assert finished.returncode == 1, finished.stderr
    findings = {one["name"]: one for one in json.loads(finished.stdout)["findings"]}
    runtimes = [one for one in findings.values() if one["is_runtime"]]
    assert len(runtimes) == 3
    for finding in runtimes:
        assert finding["works"] is False
        assert "pip install 'alexnet-deploy[cpu]'" in finding["detail"]
    for library in ("safetensors", "onnx", "openvino", "onnxruntime"):
        assert findings[library]["works"] is False
        assert findings[library]["detail"].startswith("not installed")
    assert findings["cache"]["works"] is True


def test_onnx_runtime_alone_is_enough() -> None:
    """As [onnxruntime] installs it: OpenVINO is not tried, and no fault."""
    finished = run_without(["openvino"], RUN_DOCTOR)
    assert finished.returncode == 0, finished.stderr
    findings = {one["name"]: one for one in json.loads(finished.stdout)["findings"]}
    assert [name for name, one in findings.items() if one["is_runtime"]] == ["onnxruntime cpu fp32"]
    assert findings["openvino"]["works"] is None
    assert False not in [one["works"] for one in findings.values()]


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        (RuntimeError("no such instruction"), "RuntimeError: no such instruction"),
        (OSError(8, "Exec format error"), "OSError: [Errno 8] Exec format error"),
        (KeyError("CPU"), "KeyError: 'CPU'"),
    ],
)
def test_a_runtime_may_raise_what_it_likes(
    monkeypatch: pytest.MonkeyPatch, error: Exception, detail: str
) -> None:
    def broken(*_: Any) -> None:
        raise error

    monkeypatch.setattr(opening, "open_runner_of", broken)
    runtimes = [finding for finding in examine() if finding.is_runtime]
    assert [finding.works for finding in runtimes] == [False] * 3
    assert {finding.detail for finding in runtimes} == {detail}


def test_a_package_that_is_there_and_broken_is_told_from_one_that_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from alexnet_deploy.errors import MissingPackageError

    def broken(*_: Any) -> None:
        cause = ImportError("libtbb.so.12: cannot open shared object file")
        raise MissingPackageError("openvino", "cpu", "running a model") from cause

    monkeypatch.setattr(opening, "open_runner_of", broken)
    runtimes = [finding for finding in examine() if finding.is_runtime]
    assert runtimes
    assert all("(libtbb.so.12: cannot open" in finding.detail for finding in runtimes)


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[RunnerOptions]:
    """Let onnxruntime-gpu be installed, and all runners run; return what is asked of them."""
    asked: list[RunnerOptions] = []

    def open_runner_of(_: object, options: RunnerOptions) -> FakeRunner:
        asked.append(options)
        return FakeRunner(options)

    monkeypatch.setattr(opening, "open_runner_of", open_runner_of)
    monkeypatch.setattr(doctor, "is_installed_for_gpu", lambda: True)
    monkeypatch.setattr(
        "alexnet_deploy.installed.version_of", lambda name: "1.31" if name[-4:] == "-gpu" else ""
    )
    return asked


@pytest.mark.parametrize("has_openvino", [True, False])
def test_the_build_for_gpus_is_tried_on_one_and_openvino_is_left_to_choice(
    monkeypatch: pytest.MonkeyPatch, tried: list[RunnerOptions], has_openvino: bool
) -> None:
    monkeypatch.setattr(
        "alexnet_deploy.installed.has_module", lambda name: has_openvino or name != "openvino"
    )
    findings = {finding.name: finding for finding in examine()}
    runtimes = ["onnxruntime cpu fp32", "onnxruntime cuda fp32", "onnxruntime cuda fp16"]
    if has_openvino:
        runtimes = ["openvino cpu fp32", "openvino cpu bf16", *runtimes]
    assert [name for name, finding in findings.items() if finding.is_runtime] == runtimes
    assert [f"{one.runtime} {one.device} {one.precision}" for one in tried] == runtimes
    assert findings["onnxruntime-gpu"].detail == "1.31, for the runtime ONNX Runtime"
    openvino = findings["openvino"]
    assert openvino.works is (True if has_openvino else None)
    if not has_openvino:
        assert openvino.detail.endswith("for the runtime OpenVINO: pip install openvino")


@pytest.mark.usefixtures("tried")
def test_no_remedy_puts_the_build_for_cpus_over_that_for_gpus(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("alexnet_deploy.installed.has_module", lambda name: False)
    findings = {finding.name: finding for finding in examine()}
    assert [name for name, finding in findings.items() if "[cpu]" in finding.detail] == []
    for name in ("safetensors", "onnx", "onnxruntime-gpu", "faiss-gpu"):
        assert findings[name].detail.endswith(": pip install 'alexnet-deploy[gpu]'")


def test_faiss_is_called_by_the_build_that_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alexnet_deploy.installed.has_module", lambda name: True)
    for installed in ("faiss-cpu", "faiss-gpu"):
        monkeypatch.setattr(
            "alexnet_deploy.installed.version_of", lambda name, one=installed: "9" * (name == one)
        )
        for for_gpu in (False, True):
            found = {finding.name: finding for finding in doctor._packages(for_gpu=for_gpu)}
            assert found[installed].detail == "9, for search"
            assert len([name for name in found if "faiss" in name]) == 1


@pytest.mark.parametrize(("works", "code"), [(True, 0), (False, 1), (None, 1)])
def test_the_exit_code_is_that_of_the_runtimes(
    monkeypatch: pytest.MonkeyPatch, works: bool | None, code: int
) -> None:
    from click.testing import CliRunner

    from alexnet_deploy.commands.doctor import doctor as command

    findings = [
        Finding(name="a cpu cache", works=True, detail="in\nthe way"),
        Finding(name="new runtime", works=works, detail="", is_runtime=True),
    ]
    monkeypatch.setattr(doctor, "examine", lambda: iter(findings))
    result = CliRunner().invoke(command, [])
    assert result.exit_code == code
    assert "in\\nthe way" in result.stdout
    assert len(result.stdout.splitlines()) == 2


def test_the_gpu_is_named_with_what_it_can(driver: FakeDriver) -> None:
    driver.gpus.append(("NVIDIA GeForce RTX 4090", 8, 9))
    finding = doctor._nvidia()
    assert finding.works is True
    assert finding.detail == (
        "NVIDIA Fake 100, compute capability 9.0, driver for CUDA 13.2; "
        "NVIDIA GeForce RTX 4090, compute capability 8.9, driver for CUDA 13.2"
    )


def test_without_a_gpu_the_reason_is_only_information(driver: FakeDriver) -> None:
    driver.failures["cuInit"] = 803
    finding = doctor._nvidia()
    assert finding.works is None
    assert "cuInit fails with CUDA error 803" in finding.detail


def test_distributions_installed_over_each_other_are_a_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    both = ("onnxruntime", "onnxruntime-gpu")
    monkeypatch.setattr(onnxruntime_distributions, "overwritten_distributions", lambda: both)
    for for_gpu in (False, True):
        findings = list(doctor._packages(for_gpu=for_gpu))
        (finding,) = [one for one in findings if one.name.startswith("onnxruntime")]
        assert finding.works is False
        assert "pip uninstall onnxruntime onnxruntime-gpu" in finding.detail
