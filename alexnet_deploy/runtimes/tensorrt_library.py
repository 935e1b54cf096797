"""NVIDIA's two libraries, TensorRT and TensorRT-RTX: their versions and messages.

They run engines with the same API, so callers are written for either, as a `Library`.
"""

import importlib.util
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet_deploy.errors import DeviceError, MissingPackageError
from alexnet_deploy.runtimes.engine_file import RUNTIME_NAMES, EngineRuntime

# Before 11 the builder, not the file, decided the precision. Before 11.4 scalar plugin attributes
# break with NumPy 2.4.
_OLDEST_TENSORRT = (11, 4)


class Messages:
    """A library's latest errors: a failing call returns None and gives the reason only here."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._errors: deque[str] = deque(maxlen=5)
        self._warnings: deque[str] = deque(maxlen=5)

    def add(self, severity: str, text: str) -> None:
        """Keep a message if its severity, as the library names it, makes it a reason."""
        lines = {"INTERNAL_ERROR": self._errors, "ERROR": self._errors, "WARNING": self._warnings}
        text = without_noise(text)
        if severity in lines and text:
            lines[severity].append(text)

    def take(self) -> str:
        """Return the errors since the last call, else the warnings, as one line, and clear them."""
        lines = [*(self._errors or self._warnings)]
        self._errors.clear()
        self._warnings.clear()
        return " | ".join(lines) or f"{self._name} gave no reason"

    def warnings(self) -> str:
        """Return the warnings since the last call as one line, "" without any, and clear all."""
        lines = " | ".join(self._warnings)
        self.take()
        return lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """One of the two, imported.

    Attributes:
        runtime: its name in engine files.
        module: the Python package.
        logger: to be passed wherever the library takes one. One per process, since the library
            keeps using the first that it gets.
        messages: the messages that the logger keeps.
    """

    runtime: EngineRuntime
    module: Any
    logger: Any
    messages: Messages

    @property
    def name(self) -> str:
        """Return its display name."""
        return RUNTIME_NAMES[self.runtime]

    def version(self) -> str:
        """Return its full version.

        Raises:
            DeviceError: a TensorRT that is too old.
        """
        version = str(self.module.__version__)
        major, minor = _OLDEST_TENSORRT
        if self.runtime == "tensorrt" and tuple(map(int, version.split(".")[:2])) < (major, minor):
            raise DeviceError(
                f"TensorRT {version} is installed, expected {major}.{minor} or later; "
                "install it with: pip install 'alexnet-deploy[tensorrt]'"
            )
        return version

    def compute_capabilities(self) -> dict[str, Any]:
        """Return TensorRT-RTX's build targets by compute capability, as SM89 by "8.9"."""
        numbers = {
            name.removeprefix("SM"): member
            for name, member in self.module.ComputeCapability.__members__.items()
            if name.startswith("SM")
        }
        ordered = sorted(numbers, key=int)
        return {f"{number[:-1]}.{number[-1]}": numbers[number] for number in ordered}


def lean_runtime(version: str) -> Path:
    """Return the library of `LEAN_PACKAGE`, which later versions run plans of `version` with."""
    found = importlib.util.find_spec("tensorrt_lean_libs")
    assert found is not None, "see check_machine"
    assert found.origin is not None, "it is a package"
    return Path(found.origin).with_name(f"libnvinfer_lean.so.{version.split('.')[0]}")


_LOADED: dict[EngineRuntime, Library] = {}


def load_library(runtime: EngineRuntime) -> Library:
    """Import the library that builds and runs the engines of `runtime`, once.

    Raises:
        MissingPackageError: it is not installed.
    """
    if runtime not in _LOADED:
        module, messages = _imported(runtime), Messages(RUNTIME_NAMES[runtime])
        _LOADED[runtime] = Library(
            runtime=runtime, module=module, logger=_logger(module, messages), messages=messages
        )
    return _LOADED[runtime]


def without_noise(text: str) -> str:
    """Join the lines of a message, dropping those that every error has without a driver."""
    lines = [line.strip() for line in text.splitlines() if "catchCudaError" not in line]
    return " ".join(line for line in lines if line)


def _imported(runtime: EngineRuntime) -> Any:
    purpose = f"building or running a {RUNTIME_NAMES[runtime]} engine"
    if runtime == "tensorrt":
        try:
            import tensorrt
        except ImportError as error:
            raise MissingPackageError("tensorrt", "tensorrt", purpose) from error
        return tensorrt
    try:
        import tensorrt_rtx
    except ImportError as error:
        raise MissingPackageError("tensorrt-rtx", "rtx", purpose) from error
    return tensorrt_rtx


def _logger(module: Any, messages: Messages) -> Any:
    """Return an instance of the library's logger class that forwards its messages."""

    class Logger(module.ILogger):  # type: ignore[misc]  # the extension's class is Any
        def log(self, severity: Any, text: str) -> None:
            """Record one message; called by the library, from any thread."""
            messages.add(severity.name, text)

    return Logger()
