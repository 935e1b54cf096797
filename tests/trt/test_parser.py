"""The graphs of the TensorRT builder through a real NVIDIA parser: that of TensorRT-RTX.

It runs without a GPU, and has no plugins: of a node of ours it takes the local function, which the
builder must notice.
"""

import importlib
from functools import cache
from typing import Any

import pytest

from alexnet_deploy.choices import FILE_PRECISIONS, FilePrecision
from alexnet_deploy.errors import IncompatibleFileError
from alexnet_deploy.export.onnx import build_file
from alexnet_deploy.graph.model_file import ModelFile
from alexnet_deploy.graph.plugin_nodes import DOMAIN, with_plugins
from alexnet_deploy.photographs.samples import varied_samples
from alexnet_deploy.runtimes.tensorrt_library import load_library
from tests.support.networks import random_checkpoint

pytest.importorskip("cuda.bindings", reason="CUDA's API comes with: pip install cuda-bindings")

pytest_plugins = ["tests.support.trt_stub.fixtures"]

OUTPUTS = ("probabilities", "fc7")
# The type that a convolution computes in; int8's inputs are dequantized before it.
TYPES = {"fp32": "FLOAT", "fp16": "HALF", "bf16": "BF16", "int8": "FLOAT"}


@cache
def graph(precision: FilePrecision) -> ModelFile:
    return build_file(random_checkpoint("paper"), OUTPUTS, precision, varied_samples()[:1])


@pytest.fixture(autouse=True)
def rtx_builder(monkeypatch: pytest.MonkeyPatch) -> Any:
    """TensorRT-RTX's builder, whose parser takes all precisions; it is used with two."""
    pytest.importorskip("tensorrt_rtx", reason="pip install 'alexnet-deploy[rtx]'")
    rtx_builder = importlib.import_module("alexnet_deploy.trt.rtx_builder")
    monkeypatch.setattr(rtx_builder, "ENGINE_PRECISIONS", {"tensorrt-rtx": FILE_PRECISIONS})
    return rtx_builder


@pytest.fixture
def builder(trt: Any) -> Any:
    """TensorRT's builder; it has its own enumerations, whose names are those of TensorRT-RTX."""
    return importlib.import_module("alexnet_deploy.trt.builder")


@pytest.mark.parametrize("precision", FILE_PRECISIONS)
@pytest.mark.parametrize("has_plugins", [False, True])
def test_a_graph_is_taken_with_its_inputs_outputs_and_types(
    builder: Any, rtx_builder: Any, precision: FilePrecision, has_plugins: bool
) -> None:
    file = with_plugins(graph(precision)) if has_plugins else graph(precision)
    network = rtx_builder._Network(file).definition
    builder._check_tensors(network, file)
    layers = rtx_builder.describe_network(file).layers
    types = [layer.outputs[0].dtype for layer in layers if layer.type == "CONVOLUTION"]
    assert types == [TYPES[precision]] * 5
    lrn = [layer.outputs[0].dtype for layer in layers if layer.type == "LRN"]
    assert lrn == ["FLOAT"] * 2
    assert any(layer.type == "QUANTIZE" for layer in layers) == (precision == "int8")


def test_the_builder_reads_it_with_that_parser(builder: Any, rtx_builder: Any) -> None:
    """Its own call, and its own words for what the parser refuses."""
    log = load_library("tensorrt-rtx").logger
    rtx = rtx_builder.trt
    maker = rtx.Builder(log)
    network, other = maker.create_network(0), maker.create_network(0)
    builder._parse(rtx.OnnxParser(network, log), with_plugins(graph("fp16")))
    assert network.num_layers > 25
    file = build_file(random_checkpoint("paper"), OUTPUTS, "fp32")
    (node,) = (node for node in file.graph.graph.node if node.name == "norm1_lrn")
    node.op_type = "Frobnicate"
    with pytest.raises(IncompatibleFileError, match="node 'norm1_lrn', operator Frobnicate: "):
        builder._parse(rtx.OnnxParser(other, log), file)


@pytest.mark.parametrize("precision", FILE_PRECISIONS)
def test_a_network_of_the_local_functions_is_refused(
    builder: Any, rtx_builder: Any, precision: FilePrecision
) -> None:
    """What a parser that does not find the plugins makes of our nodes, which computes as well."""
    file = with_plugins(graph(precision))
    network = rtx_builder._Network(file)
    first = next(node for node in file.graph.graph.node if node.domain == DOMAIN)
    with pytest.raises(
        IncompatibleFileError, match=f"no layer of its name of node '{first.name}', operator "
    ):
        builder._check_plugin_layers(network.definition, file)
    builder._check_plugin_layers(
        rtx_builder._Network(graph(precision)).definition, graph(precision)
    )
