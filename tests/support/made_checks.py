"""Checks of tools/gpu_check.py that are made up, and what runs it with them."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from gpu_checks.session import ROOT

OUTCOMES = """
import atexit, os, signal, subprocess, sys, time
import pytest
pytestmark = pytest.mark.gpu("numpy", 0)

def test_passes(figures, photographs, tmp_path):
    figures |= {"photographs": photographs.name, "place": tmp_path / "model.engine"}

def test_fails(figures):
    figures["rate"] = 3.0
    assert figures["rate"] > 5, "too slow"

def test_raises():
    print("said before")
    raise ValueError("of its own")

def test_crashes():
    os.kill(os.getpid(), signal.SIGSEGV)

@pytest.mark.parametrize("precision", ["fp32"])
def test_skips(figures, precision):
    figures["built"] = True
    pytest.skip("not for this GPU")

@pytest.mark.gpu("nowhere", 0)
def test_lacks():
    raise AssertionError

def test_ends():
    print("the last word")
    os._exit(3)

@pytest.mark.timeout(2)
def test_hangs(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    with open(os.environ["XDG_CACHE_HOME"] + "-grandchild", "w") as note:
        note.write(str(child.pid))
    time.sleep(600)

def test_is_another_process():
    atexit.register(os.kill, os.getpid(), signal.SIGKILL)
"""

SLOW = """
import os, subprocess, sys, time
import pytest
pytestmark = pytest.mark.gpu("numpy", 0)

def test_passes(figures):
    figures["rate"] = 7.0

def test_waits():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    with open(os.environ["NOTE"], "w") as note:
        note.write(str(child.pid))
    time.sleep(600)

def test_never_begins():
    raise AssertionError
"""

IMPORTS = """
import importlib, subprocess, sys
import pytest

@pytest.mark.gpu("numpy", 0)
@pytest.mark.parametrize("module", ["tiny", "over", "pluggy"])
def test_imports(figures, module, given):
    values = f"import {module}; print(getattr({module}, 'VALUE', 'installed'))"
    found = subprocess.run([sys.executable, "-c", values], stdout=subprocess.PIPE, text=True)
    figures |= {"value": found.stdout.strip(), "given": given}
"""

_PROGRAM = """
import json, pathlib, sys
import gpu_check
from gpu_checks import machine
gpu_check.ROOT = pathlib.Path(sys.argv.pop(1))
gpu_check.FILES = json.loads(sys.argv.pop(1))
machine.describe = lambda: {"hardware": {"gpu": "NVIDIA Pretence"}, "versions": {}}
gpu_check.main()
"""


def start(
    folder: Path, checks: Mapping[str, str], *arguments: object, **variables: str
) -> "subprocess.Popen[str]":
    """Begin to run files of checks, given by their texts, on a machine that has a GPU.

    Wheels come first, but for a file named last.
    """
    for name, text in checks.items():
        (folder / f"test_{name}.py").write_text(text, "utf-8")
    files = json.dumps({f"test_{name}.py": name != "last" for name in checks})
    return subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(folder), files, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tools'}", **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(
    folder: Path, checks: Mapping[str, str], *arguments: object, **variables: str
) -> tuple[int, str, str]:
    """Run them; return the exit code, and what is printed and said on stderr."""
    process = start(folder, checks, *arguments, **variables)
    printed, said = process.communicate()
    return process.returncode, printed, said
