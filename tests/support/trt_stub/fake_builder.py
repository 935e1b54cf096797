"""A builder of TensorRT over dolls of its classes, which a test leads to what it wants to see.

The dolls take what the real classes take. The parser of the dolls makes of each node what the test
says, and the built engine lists its layers as TensorRT's inspector does.
"""

import json
import weakref
from typing import Any

from alexnet_deploy.runtimes.batch_profile import BatchProfile
from alexnet_deploy.runtimes.tensorrt_library import load_library
from tests.support.trt_stub.dolls import Doll, doll, maker
from tests.support.trt_stub.models import plugin_model, plugin_node

FILE = plugin_model(plugin_node("TowerLRN", "norm1"), plugin_node("ReluTowerLRNPool", "pool2"))
PROFILE = BatchProfile(min=1, opt=8, max=32)
PLAN = b"the plan"


class FakeTensorRt:
    """A TensorRT that parses `FILE` and builds PLAN of it, unless a test changes that."""

    def __init__(self, trt: Any) -> None:
        self.trt, self.parser_class = trt, trt.OnnxParser
        self.journal: list[str] = []
        plugin = trt.LayerType.PLUGIN_V3
        self.layers = {"pixels": trt.LayerType.SHUFFLE, "norm1": plugin, "pool2": plugin}
        self.built = [
            {"Name": "images to norm1 reformat", "LayerType": "Reformat"},
            {"Name": "norm1", "LayerType": "PluginV3", "PluginType": "TowerLRN"},
            {"Name": "pool2", "LayerType": "PluginV3", "PluginType": "ReluTowerLRNPool"},
        ]
        self.inputs = [self.tensor("images", trt.DataType.UINT8, (-1, 224, 224, 3))]
        self.outputs = [self.tensor("fc7", trt.DataType.FLOAT, (-1, 4096))]
        self.onnx = b""
        self.parser_answers: dict[str, Any] = {"parse": self._parse}
        self.plan = PLAN
        cache = self.doll(trt.ITimingCache, serialize=lambda: b"earlier timings, new timings")
        self.config = self.doll(trt.IBuilderConfig, create_timing_cache=lambda content: cache)
        self.profile = self.doll(trt.IOptimizationProfile)
        self.network = self.doll(
            trt.INetworkDefinition,
            num_layers=len(self.layers),
            get_layer=self._layer,
            num_inputs=1,
            get_input=lambda index: self.inputs[index],
            num_outputs=1,
            get_output=lambda index: self.outputs[index],
        )
        self.builder = self.doll(
            trt.Builder,
            create_network=lambda flags: self.network,
            create_builder_config=lambda: self.config,
            create_optimization_profile=lambda: self.profile,
            build_serialized_network=self._build,
        )
        inspector = self.doll(
            trt.EngineInspector,
            get_engine_information=lambda format: self._listed(),
        )
        self.engine = self.doll(trt.ICudaEngine, create_engine_inspector=lambda: inspector)
        self.runtime = self.doll(trt.Runtime, deserialize_cuda_engine=lambda plan: self.engine)

    def doll(self, real: Any, **answers: Any) -> Doll:
        return doll(real, self.journal, **answers)

    def tensor(self, name: str, dtype: Any, shape: tuple[int, ...]) -> Doll:
        return self.doll(self.trt.ITensor, name=name, dtype=dtype, shape=self.trt.Dims(shape))

    def new_parser(self, network: Any, logger: Any) -> Doll:
        """Stand for the class; nothing but the builder's caller keeps this parser alive."""
        parser = self.doll(self.parser_class, **self.parser_answers)
        self.parser = weakref.ref(parser)
        return maker(self.parser_class, parser)(network, logger)

    def _parse(self, content: bytes) -> bool:
        self.onnx = content
        return True

    def _layer(self, index: int) -> Doll:
        name, kind = list(self.layers.items())[index]
        tensor = self.tensor("x", self.trt.DataType.HALF, (-1, 96, 55, 55))
        return self.doll(
            self.trt.ILayer, name=name, type=kind, num_inputs=1, get_input=lambda index: tensor
        )

    def _build(self, network: Any, config: Any) -> bytes | None:
        assert network is self.network
        assert config is self.config
        assert self.parser() is not None, "the network points into the parser"
        return self.plan

    def _listed(self) -> str:
        """Return the layers as TensorRT does: with control characters as they are."""
        return json.dumps({"Layers": self.built}).replace("\\u001f", "\x1f")


def errors(fake: FakeTensorRt, text: str) -> None:
    log = load_library("tensorrt").logger
    log.log(fake.trt.ILogger.Severity.ERROR, text)
