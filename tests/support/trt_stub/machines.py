"""A machine for `export`, with libraries and a GPU as a test wants them, where nothing is real."""

from collections.abc import Callable
from typing import Any

from click.testing import CliRunner, Result

from alexnet_deploy.choices import FilePrecision
from alexnet_deploy.cli import cli
from alexnet_deploy.errors import DeviceError
from alexnet_deploy.graph.model_file import ModelFile
from alexnet_deploy.runtimes.batch_profile import BatchProfile
from alexnet_deploy.runtimes.engine_file import EngineFile, EngineRuntime
from alexnet_deploy.runtimes.gpu_driver import Gpu, current_gpu
from tests.support.cpu_plans import built
from tests.support.trt_stub.fake_driver import FakeDriver

TENSORRT, RTX = "tensorrt", "tensorrt_rtx"


class Machine:
    """What is installed, which GPU there is, and what was built.

    Attributes:
        builds: what each build was asked for: library, model, profile, compute capabilities.
        timings: what each build of TensorRT was given of those before.
        version: of TensorRT.
        shows_plugins: whether its list of the built layers does.
        change: what the builder makes of a model before it builds it.
        obstacle: what TensorRT-RTX has against the GPU; "" for nothing.
    """

    def __init__(self, driver: FakeDriver) -> None:
        self.driver = driver
        self.packages: set[str] = {TENSORRT}
        self.builds: list[tuple[EngineRuntime, ModelFile, BatchProfile, tuple[str, ...]]] = []
        self.change: Callable[[ModelFile], ModelFile] = lambda model: model
        self.obstacle = ""
        self.timings: list[bytes] = []
        self.version = "11.4.0.106"
        self.shows_plugins = True

    def builder_gpu(self, precision: FilePrecision) -> Gpu:
        return current_gpu()

    def timings_key(self, gpu: Gpu) -> str:
        return f"{self.version} {gpu}"

    def build_engine(
        self,
        model: ModelFile,
        profile: BatchProfile,
        *,
        timings: bytearray,
        **changed: Any,
    ) -> EngineFile:
        self.builds.append(("tensorrt", model, profile, ()))
        self.timings.append(bytes(timings))
        timings += b"new, "
        if not self.shows_plugins:
            changed["lrn"] = "unknown"
        return built(self.change(model), profile, **changed)

    def build_rtx_engine(
        self, model: ModelFile, profile: BatchProfile, capabilities: tuple[str, ...]
    ) -> EngineFile:
        self.builds.append(("tensorrt-rtx", model, profile, capabilities))
        return built(self.change(model), profile, "tensorrt-rtx", compute_capabilities=capabilities)

    def check_plan(self, plan: bytes, source: str) -> None:
        assert self.driver.gpus, "without a GPU the library need not be asked"
        if self.obstacle:
            raise DeviceError(f"cannot run here ({self.obstacle})")


def export(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["export", *arguments])


def operators(model: ModelFile) -> list[str]:
    return [node.op_type for node in model.graph.graph.node if node.domain == "alexnet"]
