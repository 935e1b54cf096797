"""ONNX Runtime as a machine with a GPU has it: the real library, the CPU in the GPU's place.

`PretendedGpu` is called with the real names and arguments and computes the real numbers; only
where it is told "cuda" it takes the CPU.
"""

import sys
from typing import Any

import onnxruntime
import pytest

from alexnet_deploy.runtimes import onnxruntime_cuda_runner, onnxruntime_session
from alexnet_deploy.runtimes.gpu_driver import Gpu
from alexnet_deploy.runtimes.onnxruntime_session import CPU, CUDA

FORBID_CPU = "session.disable_cpu_ep_fallback"


def pretend(monkeypatch: pytest.MonkeyPatch) -> "PretendedGpu":
    """Put a GPU into this machine, for the package, and return it."""
    pretended = PretendedGpu()
    monkeypatch.setattr(onnxruntime_session, "onnxruntime", pretended)
    found = Gpu(name="NVIDIA Pretence", compute_capability="9.0", cuda_version="13.0")
    monkeypatch.setattr(onnxruntime_cuda_runner, "current_gpu", lambda: found)
    return pretended


class PretendedOptions(onnxruntime.SessionOptions):  # type: ignore[misc]
    """Keeps what it is told; the CPU alone cannot be forbidden the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: dict[str, str] = {}
        self.dimensions: dict[str, int] = {}

    def add_session_config_entry(self, name: str, value: str) -> None:
        self.entries[name] = value
        if name != FORBID_CPU:
            super().add_session_config_entry(name, value)

    def add_free_dimension_override_by_name(self, name: str, size: int) -> None:
        self.dimensions[name] = size
        super().add_free_dimension_override_by_name(name, size)


class PretendedSession(onnxruntime.InferenceSession):  # type: ignore[misc]
    """A real session on the CPU that says that its nodes are on the GPU."""

    def __init__(self, gpu: "PretendedGpu", model: bytes, options: PretendedOptions) -> None:
        super().__init__(model, options, providers=[CPU], enable_fallback=0)
        self._gpu = gpu

    def get_provider_graph_assignment_info(self) -> list[Any]:
        return [
            PretendedPart(self._gpu, part.get_nodes())
            for part in super().get_provider_graph_assignment_info()
        ]

    def run_with_iobinding(self, iobinding: Any, run_options: Any = None) -> None:
        self._gpu.calls.append("run")
        if self._gpu.run_error is not None:
            raise self._gpu.run_error
        super().run_with_iobinding(iobinding, run_options)


class PretendedPart:
    def __init__(self, gpu: "PretendedGpu", nodes: list[Any]) -> None:
        self._nodes = nodes
        is_left = not gpu.starts or {node.name for node in nodes} & gpu.nodes_on_cpu
        self.ep_name = CPU if is_left else CUDA

    def get_nodes(self) -> list[Any]:
        return self._nodes


class PretendedGpu:
    """Stands for the module `onnxruntime` of a machine with a GPU; the rest is the real module.

    Attributes:
        calls: what was called, in order.
        missing: what its `preload_dlls` prints.
        starts: whether its CUDA provider can be created; without, sessions are on the CPU.
        nodes_on_cpu: nodes that its CUDA provider has no kernels for.
        obeys: whether it keeps to FORBID_CPU.
        run_error: what a run raises.
        Failure: what ONNX Runtime itself raises.
    """

    SessionOptions = PretendedOptions
    Failure: type[Exception] = onnxruntime.capi.onnxruntime_pybind11_state.Fail

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.missing = ""
        self.starts = True
        self.nodes_on_cpu: set[str] = set()
        self.obeys = True
        self.run_error: Exception | None = None
        self.sessions: list[tuple[dict[str, str], PretendedOptions]] = []
        self.OrtValue = self

    def __getattr__(self, name: str) -> Any:
        return getattr(onnxruntime, name)

    def get_available_providers(self) -> list[str]:
        return [CUDA, CPU]

    def set_default_logger_severity(self, severity: int) -> None:
        self.calls.append(f"severity {severity}")

    def preload_dlls(self) -> None:
        self.calls.append("preload")
        sys.stdout.write(self.missing)

    def InferenceSession(
        self,
        model: bytes,
        options: PretendedOptions,
        *,
        providers: list[tuple[str, dict[str, str]]],
        enable_fallback: int,
    ) -> Any:
        assert enable_fallback == 0
        ((provider, provider_options),) = providers
        self.calls.append(f"session on {provider}")
        if provider == CPU:
            return onnxruntime.InferenceSession(model, options, providers=[CPU], enable_fallback=0)
        self.sessions.append((provider_options, options))
        is_left = not self.starts or self.nodes_on_cpu
        if is_left and self.obeys and options.entries.get(FORBID_CPU) == "1":
            raise self.Failure("fallback to CPU EP has been explicitly disabled")
        return PretendedSession(self, model, options)

    def ortvalue_from_shape_and_type(
        self, shape: list[int], element_type: Any, device_type: str, device_id: int
    ) -> Any:
        assert (device_type, device_id) == ("cuda", 0)
        self.calls.append(f"memory {tuple(shape)}")
        return onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, element_type, "cpu", 0)
