"""NVIDIA's Triton on this machine's CPU: a real repository, the real protocol, no server of theirs.

It loads a repository as Triton does, by its configurations alone, and answers the client of
NVIDIA over gRPC. The Python backend's utilities have the names and signatures of the real ones.
"""

import importlib.util
import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import grpc
import numpy as np
from google.protobuf import json_format, text_format
from numpy.typing import NDArray
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc
from tritonclient.utils import (
    deserialize_bytes_tensor,
    serialize_byte_tensor,
    triton_to_np_dtype,
)

Tensors = Mapping[str, NDArray[Any]]


class InferenceError(Exception):
    """What a client is told."""


class Tensor:
    def __init__(self, name: str, array: NDArray[Any]) -> None:
        self._name, self._array = name, array

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> NDArray[Any]:
        return self._array


class TritonError(Exception):
    INTERNAL, INVALID_ARG = 1, 3

    def __init__(self, message: str, code: int = INTERNAL) -> None:
        self._message, self._code = message, code

    def message(self) -> str:
        return self._message

    def code(self) -> int:
        return self._code


class InferenceRequest:
    def __init__(self, inputs: Sequence[Tensor]) -> None:
        self._inputs = inputs

    def inputs(self) -> Sequence[Tensor]:
        return self._inputs


class InferenceResponse:
    def __init__(
        self, output_tensors: Sequence[Tensor] = (), error: TritonError | None = None
    ) -> None:
        self._output_tensors, self._error = output_tensors, error

    def output_tensors(self) -> Sequence[Tensor]:
        return self._output_tensors

    def has_error(self) -> bool:
        return self._error is not None

    def error(self) -> TritonError:
        assert self._error is not None
        return self._error


def get_input_tensor_by_name(request: InferenceRequest, name: str) -> Tensor | None:
    return next((tensor for tensor in request.inputs() if tensor.name() == name), None)


def backend_utils() -> ModuleType:
    """Return the module `triton_python_backend_utils`."""
    module = ModuleType("triton_python_backend_utils")
    for one in (Tensor, TritonError, InferenceRequest, InferenceResponse):
        setattr(module, one.__name__, one)
    module.get_input_tensor_by_name = get_input_tensor_by_name  # type: ignore[attr-defined]
    module.TritonModelException = type("TritonModelException", (Exception,), {})  # type: ignore[attr-defined]
    return module


def read_config(model: Path) -> Any:
    """Parse a model's configuration by NVIDIA's own schema."""
    text = (model / "config.pbtxt").read_text("utf-8")
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    assert config.name == model.name, "Triton refuses another name"
    return config


def kind_of(tensor: Any) -> str:
    """Return the data type of a configuration's tensor, such as "FP32"."""
    return str(model_config_pb2.DataType.Name(tensor.data_type).removeprefix("TYPE_"))


class PythonModel:
    """A `model.py`, loaded as in a process that has the backend's utilities."""

    def __init__(self, model: Path) -> None:
        found = importlib.util.spec_from_file_location("model", model / "1" / "model.py")
        assert found is not None
        assert found.loader is not None
        module = importlib.util.module_from_spec(found)
        with mock.patch.dict(sys.modules, triton_python_backend_utils=backend_utils()):
            sys.modules.pop("alexnet_deploy.export.triton_preprocessing", None)
            found.loader.exec_module(module)
        config = json_format.MessageToJson(read_config(model), preserving_proto_field_name=True)
        self._model = module.TritonPythonModel()
        self._model.initialize({"model_config": config, "model_name": model.name})

    def execute(self, *requests: Tensors) -> list[InferenceResponse]:
        """Answer requests that Triton has batched."""
        responses: list[InferenceResponse] = self._model.execute(
            [InferenceRequest([Tensor(*item) for item in one.items()]) for one in requests]
        )
        assert len(responses) == len(requests)
        return responses


class PretendedTriton(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Serves every model of a repository."""

    def __init__(self, repository: Path) -> None:
        from onnxruntime import InferenceSession

        self._models = {model.name: model for model in repository.iterdir()}
        self.configs = {name: read_config(model) for name, model in self._models.items()}
        self._backends: dict[str, Any] = {}
        for name, config in self.configs.items():
            if config.backend == "python":
                self._backends[name] = PythonModel(self._models[name])
            elif config.backend == "onnxruntime":
                file = self._models[name] / "1" / "model.onnx"
                self._backends[name] = InferenceSession(file)

    def infer(self, name: str, inputs: Tensors) -> Tensors:
        """Run a model on a batch.

        Raises:
            InferenceError: the inputs are not those of its configuration, or it refuses them.
        """
        config = self.configs[name]
        _check(config.input, inputs, config.max_batch_size)
        if config.platform == "ensemble":
            outputs = self._run_ensemble(config, inputs)
        elif config.backend == "python":
            (response,) = self._backends[name].execute(inputs)
            if response.has_error():
                raise InferenceError(response.error().message())
            outputs = {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors()}
        else:
            names = [tensor.name for tensor in config.output]
            outputs = dict(zip(names, self._backends[name].run(names, inputs), strict=True))
        _check(config.output, outputs, config.max_batch_size)
        return outputs

    def _run_ensemble(self, config: Any, inputs: Tensors) -> Tensors:
        tensors = dict(inputs)
        for step in config.ensemble_scheduling.step:
            given = {own: tensors[name] for own, name in step.input_map.items()}
            made = self.infer(step.model_name, given)
            tensors |= {name: made[own] for own, name in step.output_map.items()}
        return {tensor.name: tensors[tensor.name] for tensor in config.output}

    def ModelInfer(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Answer a client, with the likeliest classes where it asks for so many."""
        inputs = {
            tensor.name: _array(tensor, raw)
            for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True)
        }
        try:
            found = self.infer(request.model_name, inputs)
        except InferenceError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        response = service_pb2.ModelInferResponse(model_name=request.model_name)
        for wanted in request.outputs:
            array, datatype = found[wanted.name], "FP32"
            if count := wanted.parameters["classification"].int64_param:
                labels = self._labels(request.model_name, wanted.name)
                array, datatype = _classes(array, count, labels), "BYTES"
            tensor = response.outputs.add(name=wanted.name, datatype=datatype)
            tensor.shape.extend(array.shape)
            raw = serialize_byte_tensor(array).item() if datatype == "BYTES" else array.tobytes()
            response.raw_output_contents.append(raw)
        return response

    def _labels(self, model: str, output: str) -> list[str]:
        (config,) = [tensor for tensor in self.configs[model].output if tensor.name == output]
        path: Path = self._models[model] / config.label_filename
        return path.read_text("utf-8").split("\n")


@contextmanager
def serving(repository: Path) -> Iterator[str]:
    """Serve a repository; yield the address."""
    with ThreadPoolExecutor(2) as threads:
        server = grpc.server(threads)
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(
            PretendedTriton(repository), server
        )
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait()


def _check(configs: Any, tensors: Tensors, max_batch: int) -> None:
    """Refuse tensors that are not those of a configuration, as Triton does."""
    assert tensors.keys() == {config.name for config in configs}
    for config in configs:
        array = tensors[config.name]
        kind = kind_of(config)
        expected = np.dtype(triton_to_np_dtype("BYTES" if kind == "STRING" else kind))
        is_one = array.dtype == expected and array.shape[1:] == tuple(config.dims)
        if not (is_one and 1 <= len(array) <= max_batch):
            raise InferenceError(f"{config.name}: unexpected {array.shape} of {array.dtype}")


def _array(tensor: Any, raw: bytes) -> NDArray[Any]:
    if tensor.datatype == "BYTES":
        return np.asarray(deserialize_bytes_tensor(raw)).reshape(tensor.shape)
    return np.frombuffer(raw, triton_to_np_dtype(tensor.datatype)).reshape(tensor.shape)


def _classes(array: NDArray[Any], count: int, labels: Sequence[str]) -> NDArray[np.object_]:
    """Return `value:index:label` of the likeliest of each row, as the extension says."""
    rows = np.empty((len(array), count), object)
    for row, number in itertools.product(range(len(array)), range(count)):
        index = int(np.argsort(-array[row])[number])
        rows[row, number] = f"{array[row, index]:f}:{index}:{labels[index]}".encode()
    return rows
