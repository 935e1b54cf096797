"""`doctor` on machines where something is missing or broken; and what is said there."""

import json
import subprocess
import sys
from typing import Any

import pytest

from alexnet_deploy import doctor
from alexnet_deploy.doctor import Finding, examine
from alexnet_deploy.engines import factory

OWNERS = {
    "safetensors": ("checkpoints",),
    "onnx": ("model_file", "onnx_graph", "lowering"),
    "openvino": ("engines.openvino_engine",),
    "onnxruntime": ("engines.onnxruntime_engine",),
    "torch": ("torch_files",),
    "pyarrow": ("parquet_files",),
}
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
    assert all(f"needs the package {library}, which is not" in line for line in lines)


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
    assert findings["cache"]["works"] is None


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

    monkeypatch.setattr(factory, "open_engine", broken)
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

    monkeypatch.setattr(factory, "open_engine", broken)
    runtimes = [finding for finding in examine() if finding.is_runtime]
    assert all("(libtbb.so.12: cannot open" in finding.detail for finding in runtimes)


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
