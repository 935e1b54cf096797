"""Packages that are none: what pip's records say, and what an import of them meets."""

import os
import subprocess
import sys
from pathlib import Path


def install(folder: Path, name: str, module: str = "onnxruntime", source: str = "") -> None:
    """Leave what pip leaves of a distribution.

    Args:
        folder: of packages.
        name: of the distribution.
        module: that it brings.
        source: of that module.
    """
    record = folder / f"{name.replace('-', '_')}-1.31.1.dist-info"
    record.mkdir(parents=True)
    (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.31.1\n")
    (folder / module).mkdir(exist_ok=True)
    (folder / module / "__init__.py").write_text(source)


def error_of_import(module: str, folder: Path, *, before: str = "") -> str:
    """Import a module of ours where `folder` comes first; return class and text of its error.

    Args:
        module: its name in the package.
        folder: of packages.
        before: statements to run in that process before.
    """
    program = f"""
import importlib, sys, types
from alexnet_deploy.errors import AlexNetDeployError
{before}
try:
    importlib.import_module("alexnet_deploy.{module}")
except AlexNetDeployError as error:
    print(type(error).__name__, error, sep=": ")
"""
    finished = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": str(folder)},
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.strip()
