"""Checks of tools/gpu_check.py that are made up, and what runs them in a test."""

import signal
from pathlib import Path
from typing import Any

import gpu_check
import pytest
from gpu_checks.check import Check, Result, Settings
from gpu_checks.process import run_check
from gpu_checks.surroundings import environment

FAKES = """
import atexit, importlib, json, os, signal, subprocess, sys, time
from alexnet_deploy.errors import MissingPackageError
from gpu_checks.check import Failed, Skipped

def look(settings):
    return {"versions": {"python": "3"}, "hardware": {"gpu": "NVIDIA Pretence"}}

def passes(settings, **arguments):
    has_scratch = settings.scratch.is_dir()
    return {"has_scratch": has_scratch, "photographs": settings.photographs} | arguments

def fails(settings):
    raise Failed("too slow", {"rate": 3.0})

def raises(settings):
    print("said before")
    raise ValueError("of its own")

def skips(settings):
    raise Skipped("not for this GPU", {"built": True})

def lacks(settings):
    import cupy_that_is_not_there

def lacks_an_optional_package(settings):
    raise ModuleNotFoundError("No module named 'cupy'", name="cupy")

def lacks_what_an_extra_brings(settings):
    raise MissingPackageError("tensorrt", "tensorrt", "building an engine")

def is_broken(settings):
    try:
        raise ImportError("libcudart.so.13: cannot open")
    except ImportError as error:
        raise MissingPackageError("tensorrt", "tensorrt", "building an engine") from error

def crashes(settings):
    os.kill(os.getpid(), signal.SIGSEGV)

def ends(settings):
    print("the last word")
    sys.stdout.flush()
    os._exit(3)

def crashes_at_its_end(settings):
    atexit.register(os.kill, os.getpid(), signal.SIGKILL)
    return {"rate": 7.0}

def hangs(settings):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (settings.scratch / "grandchild").write_text(str(child.pid))
    time.sleep(600)

def sleeps(settings, seconds):
    time.sleep(seconds)
    return {}

def reads(settings, path):
    written = json.load(open(path))
    return {"seen": [each["name"] for each in written["checks"]], "complete": written["complete"]}

def imports(settings, module):
    return {"value": importlib.import_module(module).VALUE}
"""


def pretend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the processes of checks find the module `fakes`; return a folder for a test."""
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "fakes.py").write_text(FAKES, "utf-8")
    monkeypatch.setenv("PYTHONPATH", str(modules))
    return tmp_path


def fake(
    function: str, limit_s: float = 60, *, wheels_first: bool = True, **arguments: Any
) -> Check:
    return Check(
        name=function,
        function=f"fakes:{function}",
        limit_s=limit_s,
        arguments=arguments,
        wheels_first=wheels_first,
    )


def run(check: Check, folder: Path, left_s: float = 60, **settings: Any) -> Result:
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    return run_check(
        check,
        Settings(scratch=scratch, **settings),
        environment(scratch, wheels_first=True),
        left_s,
    )


def run_main(monkeypatch: pytest.MonkeyPatch, checks: list[Check], *arguments: object) -> int:
    monkeypatch.setattr(gpu_check, "ENVIRONMENT", fake("look"))
    monkeypatch.setattr(gpu_check, "CHECKS", tuple(checks))
    monkeypatch.setattr("sys.argv", ["gpu_check.py", *map(str, arguments)])
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        with pytest.raises(SystemExit) as stop:
            gpu_check.main()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert isinstance(stop.value.code, int)
    return stop.value.code
