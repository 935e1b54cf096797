"""NVIDIA's two libraries, TensorRT and TensorRT-RTX: their versions, and what they say.

They have one API to run engines with, so who runs one is written for a `Library`, whichever it is.
"""

from collections import deque
from dataclasses import dataclass
from typing import Any

from alexnet_deploy.errors import DeviceError, MissingPackageError
from alexnet_deploy.runtimes.engine_file import RUNTIME_NAMES, EngineRuntime

# Before 11 the builder, not the file, decided on the precision. Before 11.4 a plugin's scalar
# attributes break with NumPy 2.4.
_OLDEST_TENSORRT = (11, 4)


class Messages:
    """A library's latest errors: a call that fails returns None and says why here only."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._errors: deque[str] = deque(maxlen=5)
        self._warnings: deque[str] = deque(maxlen=5)

    def add(self, severity: str, text: str) -> None:
        """Keep a message if its severity, by the library's name of it, makes it a reason."""
        lines = {"INTERNAL_ERROR": self._errors, "ERROR": self._errors, "WARNING": self._warnings}
        text = without_noise(text)
        if severity in lines and text:
            lines[severity].append(text)

    def take(self) -> str:
        """Return the errors since the last time as one line, and forget them; else the warnings."""
        lines = [*(self._errors or self._warnings)]
        self._errors.clear()
        self._warnings.clear()
        return " | ".join(lines) or f"{self._name} gave no reason"


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """One of the two, imported.

    Attributes:
        runtime: as engine files name it.
        module: the Python package.
        logger: to be given to the library wherever it takes one. There is one for the process, as
            the library goes on using the first that it ever gets.
        messages: what the logger keeps.
    """

    runtime: EngineRuntime
    module: Any
    logger: Any
    messages: Messages

    @property
    def name(self) -> str:
        """Return its name for people."""
        return RUNTIME_NAMES[self.runtime]

    def version(self) -> str:
        """Return its whole version.

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
        """Return what TensorRT-RTX builds for: its own names of it by NVIDIA's, SM89 by "8.9"."""
        numbers = {
            name.removeprefix("SM"): member
            for name, member in self.module.ComputeCapability.__members__.items()
            if name.startswith("SM")
        }
        ordered = sorted(numbers, key=int)
        return {f"{number[:-1]}.{number[-1]}": numbers[number] for number in ordered}


_LOADED: dict[EngineRuntime, Library] = {}


def load_library(runtime: EngineRuntime) -> Library:
    """Import the library that builds and runs the engines of `runtime`; the same one every time.

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
    """Join the lines of a message, but for what every error says where there is no driver."""
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
    """Return an object of the library's own kind that passes on what it is told."""

    class Logger(module.ILogger):  # type: ignore[misc]  # the extension's class is Any
        def log(self, severity: Any, text: str) -> None:
            """Take one message; the library calls this, from any thread."""
            messages.add(severity.name, text)

    return Logger()
