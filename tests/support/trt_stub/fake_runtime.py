"""An engine of TensorRT or TensorRT-RTX, and a library that runs it on the memory of `FakeCuda`."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.model.spec import preset_spec
from alexnet_deploy.runtimes.base import RunnerOptions
from alexnet_deploy.runtimes.batch_profile import BatchProfile
from alexnet_deploy.runtimes.engine_file import EngineFile, EngineRecord
from alexnet_deploy.runtimes.tensorrt_library import Library
from tests.support.trt_stub.dolls import Doll, doll

Open = Callable[..., Any]
"""What opens an engine: with `OPTIONS` or others, and with fields of its record changed."""
SPEC = preset_spec("paper", num_classes=7)
FILE = EngineFile(
    record=EngineRecord(
        runtime="tensorrt",
        runtime_version="11.4.0.106",
        cuda_version="13.0",
        gpu_name="NVIDIA Fake 100",
        compute_capabilities=("9.0",),
        profile=BatchProfile(min=2, opt=2, max=4),
        precision="fp32",
        outputs=("probabilities", "fc7", "pool5"),
        lrn="plugin",
        plugin_sha256="0" * 64,
        spec=SPEC,
        identity="f" * 64,
        checkpoint="f" * 64,
    ),
    plan=b"plan",
    source="m.engine",
)
PORTABLE = dataclasses.replace(
    FILE.record,
    runtime="tensorrt-rtx",
    cuda_version=None,
    gpu_name=None,
    compute_capabilities=(),
    lrn="native",
    plugin_sha256=None,
)
OPTIONS = RunnerOptions(batch_size=2, outputs=("fc7", "probabilities"))


def computed(images: NDArray[np.uint8], name: str) -> NDArray[np.float32]:
    """Return what the context of the doll makes of a batch."""
    shape = SPEC.layer_shapes()[name]
    means = images.reshape(len(images), -1).mean(axis=1, dtype=np.float32)
    numbers = np.arange(np.prod(shape), dtype=np.float32) + len(name)
    result: NDArray[np.float32] = np.multiply.outer(means, numbers.reshape(shape))
    return result


class FakeRuntime:
    """A library that loads one engine; `tensors` and `profile` are what that says of itself."""

    def __init__(self, library: Library, cuda: Any) -> None:
        self.library, self.trt, self.cuda = library, library.module, cuda
        self.is_rtx = library.runtime == "tensorrt-rtx"
        trt = self.trt
        self.journal: list[str] = []
        self.addresses: dict[str, int] = {}
        self.input_shape: tuple[int, ...] = ()
        modes, layers = trt.TensorIOMode, SPEC.layer_shapes()
        self.tensors = {"images": (modes.INPUT, trt.DataType.UINT8, (-1, 224, 224, 3))} | {
            name: (modes.OUTPUT, trt.DataType.FLOAT, (-1, *layers[name]))
            for name in FILE.record.outputs
        }
        self.profile = [(batch, 224, 224, 3) for batch in (2, 2, 4)]
        self.context = self.doll(
            trt.IExecutionContext,
            set_input_shape=self._set_input_shape,
            set_tensor_address=self._set_tensor_address,
            execute_async_v3=self._execute,
        )
        self.engine = self.doll(
            trt.ICudaEngine,
            num_io_tensors=len(self.tensors),
            get_tensor_name=lambda index: list(self.tensors)[index],
            get_tensor_mode=lambda name: self.tensors[name][0],
            get_tensor_dtype=lambda name: self.tensors[name][1],
            get_tensor_shape=lambda name: trt.Dims(self.tensors[name][2]),
            get_tensor_profile_shape=lambda name, index: [trt.Dims(s) for s in self.profile],
            create_execution_context=lambda: self.context,
        )
        self.runtime = self.doll(trt.Runtime, deserialize_cuda_engine=lambda plan: self.engine)
        if self.is_rtx:
            self.config = self.doll(trt.IRuntimeConfig)
            self.engine.answers["create_runtime_config"] = lambda: self.config
            self.engine.answers["create_execution_context"] = lambda config: self.context
            self.validity: tuple[Any, int] = (trt.EngineValidity.VALID, 0)
            self.runtime.answers["get_engine_validity"] = lambda plan: self.validity

    def doll(self, real: Any, **answers: Any) -> Doll:
        return doll(real, self.journal, **answers)

    def _set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert name == "images"
        self.input_shape = shape
        return True

    def _set_tensor_address(self, name: str, address: int) -> bool:
        assert name in self.tensors
        self.addresses[name] = address
        return True

    def _execute(self, stream: int) -> bool:
        assert stream in self.cuda.streams
        self.cuda.submit(self._compute)
        return True

    def _compute(self) -> None:
        assert self.addresses.keys() == self.tensors.keys(), "every tensor needs a place"
        count = int(np.prod(self.input_shape))
        place = self.cuda.bytes_at(self.addresses["images"], count, "device")
        images = np.frombuffer(place, np.uint8).reshape(self.input_shape)
        for name in FILE.record.outputs:
            result = computed(images, name)
            place = self.cuda.bytes_at(self.addresses[name], result.nbytes, "device")
            np.frombuffer(place, np.float32)[:] = result.ravel()
