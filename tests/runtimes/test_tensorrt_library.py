"""What is said of TensorRT and TensorRT-RTX, and what they say: versions, absence, messages."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from alexnet_deploy.errors import DeviceError, Message, MissingPackageError
from alexnet_deploy.runtimes.engine_file import EngineRuntime
from alexnet_deploy.runtimes.tensorrt_library import Library, engine_gpu, load_library
from tests.support.trt_stub.fake_driver import FakeDriver
from tests.support.waiting import PATIENCE_S

pytest_plugins = ["tests.support.trt_stub.fixtures"]


@pytest.fixture(params=["tensorrt", "tensorrt-rtx"])
def library(request: pytest.FixtureRequest) -> Library:
    """Each of the two, where it is installed."""
    runtime: EngineRuntime = request.param
    if runtime == "tensorrt":
        request.getfixturevalue("trt")
    else:
        pytest.importorskip("tensorrt_rtx", reason="pip install 'alexnet-deploy[rtx]'")
    found = load_library(runtime)
    found.messages.take()
    return found


def test_a_library_is_loaded_once_for_it_keeps_its_first_logger(library: Library) -> None:
    assert load_library(library.runtime) is library
    assert isinstance(library.logger, library.module.ILogger)
    assert library.name == {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}[library.runtime]


@pytest.mark.parametrize("version", ["11.4.0.106", "11.10.0.1", "12.0.1"])
def test_tensorrt_from_11_4_on_is_taken(
    trt: Any, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr(trt, "__version__", version)
    assert load_library("tensorrt").version() == version


@pytest.mark.parametrize("version", ["11.3.2.9", "11.0.0.1", "10.16.0.72", "8.6.1"])
def test_an_older_tensorrt_is_refused_with_the_install_line(
    trt: Any, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr(trt, "__version__", version)
    with pytest.raises(
        DeviceError,
        match=rf"TensorRT {version} is installed, expected 11\.4 or later; .*\[tensorrt\]'$",
    ):
        load_library("tensorrt").version()


def test_tensorrt_rtx_counts_its_versions_by_itself() -> None:
    rtx = pytest.importorskip("tensorrt_rtx", reason="pip install 'alexnet-deploy[rtx]'")
    assert load_library("tensorrt-rtx").version() == rtx.__version__
    assert int(rtx.__version__.split(".")[0]) < 11


def test_only_the_last_errors_are_kept_and_once(library: Library) -> None:
    log, kinds = library.logger, library.module.ILogger.Severity
    nothing = f"{library.name} gave no reason"
    assert library.messages.take() == nothing
    log.log(kinds.WARNING, "by the way")
    for number in range(8):
        log.log(kinds.ERROR, f"error {number}\n")
        log.log(kinds.INFO, "chatter")
    log.log(kinds.INTERNAL_ERROR, "the last one")
    assert library.messages.take() == "error 4 | error 5 | error 6 | error 7 | the last one"
    assert library.messages.take() == nothing


def test_a_warning_is_the_reason_where_there_is_no_error(library: Library) -> None:
    library.logger.log(library.module.ILogger.Severity.WARNING, "no room\nfor it")
    assert library.messages.take() == "no room for it"


def cuda_error(text: str) -> str:
    """Return what both libraries log beside an error if a call of CUDA failed."""
    return (
        "[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (In catchCudaError at "
        f"/_src/common/dispatch/checkMacros.cpp:250 ({text}))"
    )


NO_DRIVER = "cudaError 35: CUDA driver version is insufficient for CUDA runtime version"


def test_the_missing_driver_is_a_reason_to_the_library_that_needs_one(library: Library) -> None:
    """TensorRT-RTX builds without one, and then says so after each of its errors."""
    error = library.module.ILogger.Severity.ERROR
    library.logger.log(error, f"window is 4\n{cuda_error(NO_DRIVER)}\n")
    library.logger.log(error, cuda_error(NO_DRIVER))
    is_rtx = library.runtime == "tensorrt-rtx"
    said = "window is 4" if is_rtx else f"window is 4 {NO_DRIVER} | {NO_DRIVER}"
    assert library.messages.take() == said
    library.logger.log(error, cuda_error(NO_DRIVER))
    assert library.messages.has_errors() != is_rtx


def test_what_cuda_says_is_the_reason_and_is_said_once(library: Library) -> None:
    error = library.module.ILogger.Severity.ERROR
    library.logger.log(error, "createInferRuntime: Error Code 6\n")
    for _ in range(3):
        library.logger.log(error, cuda_error("cudaError 2: out of memory"))
    library.logger.log(error, "[catchCudaError] in words of another version")
    assert library.messages.take() == (
        "createInferRuntime: Error Code 6 | cudaError 2: out of memory | "
        "[catchCudaError] in words of another version"
    )


def test_what_was_not_made_is_an_error_with_the_reason_that_was_logged(library: Library) -> None:
    """A class of the bindings makes an object even then, with nothing behind it."""
    error = library.module.ILogger.Severity.ERROR
    made = object()

    def fail(result: object, text: str) -> object:
        library.logger.log(error, text)
        return result

    library.logger.log(error, "of something before")
    assert library.created("a runtime", lambda: made) is made
    for result in (None, made):
        with pytest.raises(
            DeviceError, match=rf"^{library.name} cannot create a runtime \(no memory\); check "
        ):
            library.created("a runtime", fail, result, "no memory")
    with pytest.raises(DeviceError, match=r"a network \(\S+ gave no reason\); less$"):
        library.created("a network", lambda: None, remedy=Message("less"))
    with pytest.raises(TypeError, match="incompatible constructor arguments"):
        library.created("a runtime", library.module.Runtime, "our own mistake")


def test_a_driver_of_cuda_12_computes_no_engine(driver: FakeDriver) -> None:
    driver.version = 12090
    with pytest.raises(DeviceError) as caught:
        engine_gpu()
    assert str(caught.value) == (
        "the driver of the GPU NVIDIA Fake 100 is of CUDA 12.9, an engine needs CUDA 13.0 or "
        "later; update the driver"
    )
    for driver.version in (13000, 14010):
        assert engine_gpu().name == "NVIDIA Fake 100"


@pytest.mark.parametrize(
    ("runtime", "module", "extra"),
    [("tensorrt", "tensorrt", "tensorrt"), ("tensorrt-rtx", "tensorrt_rtx", "rtx")],
)
def test_a_library_that_is_missing_names_its_install_line(
    monkeypatch: pytest.MonkeyPatch, runtime: EngineRuntime, module: str, extra: str
) -> None:
    from alexnet_deploy.runtimes import tensorrt_library as library_module

    monkeypatch.setattr(library_module, "_LOADED", {})
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingPackageError, match=rf"{runtime}, .*'alexnet-deploy\[{extra}\]'"):
        load_library(runtime)


def test_of_tensorrt_rtx_the_gpus_are_named_as_nvidia_names_them() -> None:
    pytest.importorskip("tensorrt_rtx", reason="pip install 'alexnet-deploy[rtx]'")
    capabilities = load_library("tensorrt-rtx").compute_capabilities()
    assert {"7.5", "8.6", "8.9", "12.0"} <= capabilities.keys()
    assert capabilities["8.9"].name == "SM89"


# What of TensorRT 10 matters here; its versions differ in the package `tensorrt.plugin`.
TENSORRT_10 = """
__version__ = "10.3.0"
class ILogger: ...
class Logger(ILogger): ...
class DataType:
    FLOAT = HALF = None
"""
QUICK_WITHOUT_AOT = """
class TensorDesc: ...
class Tensor: ...
class AutoTuneCombination: ...
def register(name): return lambda function: function
impl = autotune = register
"""


@pytest.mark.parametrize("quick", [None, QUICK_WITHOUT_AOT], ids=["no plugin", "no aot_impl"])
def test_a_tensorrt_10_that_lacks_what_we_use_is_refused_for_its_version(
    tmp_path: Path, quick: str | None
) -> None:
    pytest.importorskip("cuda.bindings", reason="CUDA's API comes with: pip install cuda-bindings")
    (tmp_path / "tensorrt").mkdir()
    (tmp_path / "tensorrt" / "__init__.py").write_text(TENSORRT_10, "utf-8")
    if quick is not None:
        (tmp_path / "tensorrt" / "plugin.py").write_text(quick, "utf-8")
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from alexnet_deploy.errors import AlexNetDeployError
try:
    import alexnet_deploy.trt.builder
except AlexNetDeployError as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=PATIENCE_S
    )
    assert done.stdout.startswith(
        "DeviceError TensorRT 10.3.0 is installed, expected 11.4 or later"
    )


@pytest.mark.parametrize("missing", ["tensorrt", "cuda"])
def test_the_builder_without_a_package_names_the_install_line(missing: str) -> None:
    code = f"""
import sys
sys.modules[{missing!r}] = None
from alexnet_deploy.errors import MissingPackageError
try:
    import alexnet_deploy.trt.builder
except MissingPackageError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=PATIENCE_S
    )
    assert "pip install 'alexnet-deploy[tensorrt]'" in done.stdout
