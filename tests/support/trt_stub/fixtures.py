"""Fixtures over the stub, taken by a test module with `pytest_plugins`.

Outside of a test that asks for them no `tensorrt` can be imported, so that all other tests see a
machine without it.
"""

import ctypes
import importlib
import importlib.util
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from tests.support.trt_stub.elf_stub import LIBRARIES, tensorrt_stub

WHEEL = "tensorrt_cu13_bindings"
_MODULES = ("tensorrt", "tensorrt_bindings", "tensorrt_libs")
_USERS = ("trt.plugin", "trt.builder")
"""Our modules that import tensorrt at their top: made anew for every test."""

# What NVIDIA's front-end package holds, which cannot be installed without its libraries.
_FRONT_END = {
    "tensorrt/__init__.py": "from tensorrt_bindings import *\n"
    "from tensorrt_bindings import __version__\n",
    "tensorrt/plugin/__init__.py": "from tensorrt_bindings.plugin import *\n",
}


@pytest.fixture(scope="session")
def trt_modules(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModuleType]:
    """Import the real bindings over stubs, once; they are out of `sys.modules` again."""
    if importlib.util.find_spec("tensorrt_bindings") is None:
        pytest.skip(f"the API of TensorRT is not here; get it with: pip install {WHEEL}")
    if _is_real():
        pytest.skip("TensorRT itself is here, and stubs must not stand in its way: make gpu-check")
    folder = tmp_path_factory.mktemp("tensorrt")
    for name, text in _FRONT_END.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, "utf-8")
    for soname in LIBRARIES:
        (folder / soname).write_bytes(tensorrt_stub(soname))
        # The loader takes what is loaded already for what the bindings need by that name.
        ctypes.CDLL(str(folder / soname))
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "\s" in NVIDIA's docstrings, where not compiled yet
        patch.syspath_prepend(str(folder))
        importlib.import_module("tensorrt.plugin")
        names = [name for name in sys.modules if name.split(".")[0] in _MODULES]
        return {name: sys.modules.pop(name) for name in names}


@pytest.fixture
def trt(trt_modules: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return `tensorrt`, in which no plugin is registered, with a registry of ours."""
    for name, module in trt_modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    from tensorrt_bindings.plugin import _lib, _tensor

    from tests.support.trt_stub import fakes

    tensorrt, quick = trt_modules["tensorrt"], trt_modules["tensorrt.plugin"]
    registry = fakes.Registry()
    monkeypatch.setattr(tensorrt, "get_plugin_registry", lambda: registry)
    monkeypatch.setattr(_lib, "QDP_REGISTRY", {})
    monkeypatch.setattr(_lib, "QDP_CREATORS", {})
    operators = _lib._Op()
    for module in (_lib, quick, trt_modules["tensorrt_bindings.plugin"]):
        monkeypatch.setattr(module, "op", operators)
    monkeypatch.setattr(_tensor.SymIntExpr, "_exprBuilder", None)  # a failed build leaves it set
    monkeypatch.setattr(_tensor, "SymExprImpl", fakes.KeptExpression)
    _forget_users()
    yield tensorrt
    _forget_users()


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put a `FakeDriver` with one GPU in the place of NVIDIA's, and return it."""
    from alexnet_deploy.runtimes import gpu_driver
    from tests.support.trt_stub.fake_driver import FakeDriver

    fake = FakeDriver()
    monkeypatch.setattr(gpu_driver, "_load", lambda: fake)
    return fake


@pytest.fixture
def cuda(driver: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put a `FakeCuda` in the place of NVIDIA's runtime on that GPU, and return it."""
    pytest.importorskip("cuda.bindings.runtime", reason="the API of CUDA is not here")
    from alexnet_deploy.runtimes import cuda_memory
    from tests.support.trt_stub.fake_cuda import FakeCuda

    fake = FakeCuda()
    monkeypatch.setattr(cuda_memory, "cudart", fake)
    return fake


def _is_real() -> bool:
    if importlib.util.find_spec("tensorrt_libs") is not None:
        return True
    try:
        ctypes.CDLL(LIBRARIES[0])
    except OSError:
        return False
    return True


def _forget_users() -> None:
    from alexnet_deploy.runtimes import tensorrt_library

    tensorrt_library._LOADED.pop("tensorrt", None)
    for name in _USERS:
        module = sys.modules.pop(f"alexnet_deploy.{name}", None)
        package, _, attribute = f"alexnet_deploy.{name}".rpartition(".")
        if module is not None:
            delattr(sys.modules[package], attribute)
