"""The builder where CUDA does not start: NVIDIA's library then returns a null pointer.

The stubs always do; only what TensorRT would log is ours.
"""

import ast
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import alexnet_deploy
from alexnet_deploy.errors import DeviceError
from alexnet_deploy.runtimes.batch_profile import BatchProfile
from tests.support.trt_stub.models import plugin_model

pytest.importorskip("cuda.bindings", reason="CUDA's API comes with: pip install cuda-bindings")
pytest_plugins = ["tests.support.trt_stub.fixtures"]

PACKAGE = Path(alexnet_deploy.__file__).parent


@pytest.fixture
def build(trt: Any, driver: Any) -> Callable[[], object]:
    builder = importlib.import_module("alexnet_deploy.trt.builder")
    return lambda: builder.build_plan(plugin_model(), BatchProfile())


def test_without_a_builder_tensorrts_reason_is_the_error(
    trt: Any, build: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def builder(logger: Any, real: Any = trt.Builder) -> Any:
        logger.log(trt.ILogger.Severity.ERROR, "createInferBuilder: Error Code 6")
        return real(logger)

    monkeypatch.setattr(trt, "Builder", builder)
    with pytest.raises(
        DeviceError, match=r"^TensorRT cannot create a builder \(createInferBuilder: .* 6\); check"
    ):
        build()


def test_an_old_driver_builds_nothing(driver: Any, build: Callable[[], object]) -> None:
    driver.version = 12080
    with pytest.raises(DeviceError, match=r"engine is for: the driver of .* CUDA 12\.8.*; update"):
        build()


def test_no_object_of_a_library_is_made_without_a_look_at_its_log() -> None:
    made = 0
    for path in [*PACKAGE.glob("runtimes/*.py"), *PACKAGE.glob("trt/*.py")]:
        text = path.read_text("utf-8")
        for node in ast.walk(ast.parse(text)) if "tensorrt_library" in text else ():
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func).rpartition(".")[2]
                is_maker = name in ("Runtime", "Builder", "OnnxParser") or name[:7] == "create_"
                assert not is_maker, f"{path}: {ast.unparse(node)}"
                made += name == "created"
    assert made > 0
