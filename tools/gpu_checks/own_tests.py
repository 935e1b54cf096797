"""The tests marked as needing a GPU."""

import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from xml.etree import ElementTree

from alexnet_deploy import installed
from gpu_checks.check import ROOT, Figures, Settings, Skipped, require

FILES = {
    "tests/runtimes/test_cuda_memory.py": "cuda",
    "tests/runtimes/test_onnxruntime_cuda_runner.py": "onnxruntime",
    "tests/training/test_exchange.py": "torch",
}
"""Files with such tests, and the module that each requires."""


def run(settings: Settings) -> Figures:
    """Run them; return how many passed, and why the others were skipped.

    Raises:
        Failed: one failed.
        Skipped: pytest or everything that they test is not installed, or all were skipped.
    """
    files = [name for name, module in FILES.items() if installed.has_module(module)]
    if not files or not installed.has_module("pytest"):
        raise Skipped(f"needs pytest, and one of {', '.join(FILES.values())}")
    xml = settings.scratch / "tests.xml"
    finished = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-m", "gpu", f"--junitxml={xml}"),
            *("-p", "no:cacheprovider"),
            *("-W", "default"),  # installed versions may emit warnings unknown to the test suite
            *files,
        ],
        cwd=ROOT,
        check=False,
    )
    require(xml.exists(), f"pytest ended with exit code {finished.returncode}: see above", {})
    figures = counts(ElementTree.parse(xml).iter("testcase"))
    figures["not_run"] = {
        name: f"needs {module}" for name, module in FILES.items() if name not in files
    }
    require(not figures["failed"], f"{len(figures['failed'])} tests failed", figures)
    if not figures["passed"]:
        raise Skipped(f"all tests were: {'; '.join(figures['skipped'])}", figures)
    return figures


def counts(cases: Iterable[ElementTree.Element]) -> Figures:
    """Return `passed`, a number; `failed`, names; `skipped`, numbers by reason."""
    figures: Figures = {"passed": 0, "failed": [], "skipped": Counter()}
    for case in cases:
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            figures["failed"].append(f"{case.get('classname')}::{case.get('name')}")
        elif skipped is not None:
            figures["skipped"][skipped.get("message", "")] += 1
        else:
            figures["passed"] += 1
    return figures
