"""Collecting the tests stays light: a runtime is loaded by the test that runs it."""

import subprocess
import sys
from pathlib import Path

HEAVY = ("faiss", "onnxruntime", "openvino", "tensorrt", "tensorrt_rtx")
COLLECT = """
import sys, pytest
code = pytest.main(["--collect-only", "-qq", "--assert=plain", "-p", "no:cacheprovider"])
print(int(code), *sorted(sys.modules.keys() & set(sys.argv[1:])))
"""


def test_collecting_the_tests_loads_no_runtime() -> None:
    done = subprocess.run(
        [sys.executable, "-c", COLLECT, *HEAVY],
        cwd=Path(__file__).resolve().parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "0", done.stdout + done.stderr
