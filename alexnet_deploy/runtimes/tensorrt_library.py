"""NVIDIA's two libraries, TensorRT and TensorRT-RTX: their versions and messages.

They run engines with the same API, so callers are written for either, as a `Library`.
"""

import ctypes
import importlib.util
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet_deploy.errors import DeviceError, Message, MissingPackageError
from alexnet_deploy.runtimes.engine_file import RUNTIME_NAMES, EngineRuntime
from alexnet_deploy.runtimes.gpu_driver import ON_THE_CPU, Gpu, current_gpu

# Before 11 the builder, not the file, decided the precision. Before 11.4 scalar plugin attributes
# break with NumPy 2.4.
_OLDEST_TENSORRT = (11, 4)
_OLDEST_CUDA = 13  # which TensorRT 11 and cuda-bindings are built with
_CUDA_ERROR = re.compile(r"catchCudaError.*\((cudaError (\d+): [^()]*)\)")
_NO_GPU = ("35", "100")  # cudaErrorInsufficientDriver, also if there is none; cudaErrorNoDevice
_CHECK_GPU = Message("check with nvidia-smi that the GPU responds and has free memory")


class Messages:
    """A library's latest errors: a failing call returns None and gives the reason only here."""

    def __init__(self, runtime: EngineRuntime) -> None:
        self._name = RUNTIME_NAMES[runtime]
        self._needs_gpu = runtime == "tensorrt"
        self._errors: deque[str] = deque(maxlen=5)
        self._warnings: deque[str] = deque(maxlen=5)

    def add(self, severity: str, text: str) -> None:
        """Keep a message if its severity, as the library names it, makes it a reason."""
        lines = {"INTERNAL_ERROR": self._errors, "ERROR": self._errors, "WARNING": self._warnings}
        text = without_noise(text, needs_gpu=self._needs_gpu)
        if severity in lines and text:
            lines[severity].append(text)

    def has_errors(self) -> bool:
        """Return whether there was an error since the last `take`."""
        return bool(self._errors)

    def take(self) -> str:
        """Return the errors since the last call, else the warnings, as one line, and clear them."""
        lines = dict.fromkeys(self._errors or self._warnings)
        self._errors.clear()
        self._warnings.clear()
        return " | ".join(lines) or f"{self._name} gave no reason"

    def warnings(self) -> str:
        """Return the warnings since the last call as one line, "" without any, and clear all."""
        lines = " | ".join(dict.fromkeys(self._warnings))
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

    def created(
        self, what: str, make: Callable[..., Any], *arguments: Any, remedy: Message = _CHECK_GPU
    ) -> Any:
        """Call what makes one of the library's objects.

        Where CUDA does not start, the bindings return an object with nothing behind it, which only
        the log tells: the next call on it is a segmentation fault. Or they raise a TypeError.

        Args:
            what: the object, for the error.
            make: a class or method of the library.
            arguments: those of `make`.
            remedy: what to do without the object.

        Raises:
            DeviceError: there is none, or making it was an error; with the library's reason.
        """
        self.messages.take()
        try:
            made = make(*arguments)
        except TypeError as error:
            if "returned nullptr" not in str(error):
                raise
            made = None
        if made is None or self.messages.has_errors():
            # To delete such an object, even at exit, is a segmentation fault, too: it stays.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(made))
            reason = self.messages.take()
            raise DeviceError(f"{self.name} cannot create {what} ({reason}); ", remedy)
        return made

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


def engine_gpu(without: str = ON_THE_CPU) -> Gpu:
    """Return the GPU that engines run on; call this first, before a library is loaded.

    Args:
        without: as for `gpu_driver.current_gpu`.

    Raises:
        DeviceError: as for `gpu_driver.current_gpu`, or neither library starts with its driver.
    """
    gpu = current_gpu(without)
    if int(gpu.cuda_version.split(".")[0]) < _OLDEST_CUDA:
        raise DeviceError(
            f"the driver of the GPU {gpu.name} is of CUDA {gpu.cuda_version}, an engine needs CUDA "
            f"{_OLDEST_CUDA}.0 or later; update the driver"
        )
    return gpu


def load_library(runtime: EngineRuntime) -> Library:
    """Import the library that builds and runs the engines of `runtime`, once.

    Raises:
        MissingPackageError: it is not installed.
    """
    if runtime not in _LOADED:
        module, messages = _imported(runtime), Messages(runtime)
        _LOADED[runtime] = Library(
            runtime=runtime, module=module, logger=_logger(module, messages), messages=messages
        )
    return _LOADED[runtime]


def without_noise(text: str, *, needs_gpu: bool = False) -> str:
    """Join the lines of a message; of one about a CUDA call, only CUDA's error is kept.

    Args:
        text: as the library logged it.
        needs_gpu: whether that there is none is a reason. TensorRT-RTX builds without one, and
            every error of its is then followed by that of CUDA.
    """
    lines = []
    for line in text.splitlines():
        cuda = _CUDA_ERROR.search(line)
        if cuda is None:
            lines.append(line.strip())
        elif needs_gpu or cuda[2] not in _NO_GPU:
            lines.append(cuda[1])
    return " ".join(filter(None, lines))


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
