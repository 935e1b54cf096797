"""Exported files, and the graphs of the TensorRT builder, through the parser of TensorRT-RTX.

It runs without a GPU, and has no plugins: of a node of ours it takes the local function, which the
builder must notice.
"""

import importlib
from functools import cache
from pathlib import Path
from typing import Any

import onnx
import pytest

from alexnet_deploy.choices import FILE_PRECISIONS, FilePrecision
from alexnet_deploy.errors import IncompatibleFileError
from alexnet_deploy.export.onnx import build_file, export_onnx
from alexnet_deploy.graph.build import OPSETS
from alexnet_deploy.graph.model_file import ModelFile
from alexnet_deploy.graph.plugin_nodes import DOMAIN, with_plugins
from alexnet_deploy.model.spec import PRESET_NAMES
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


class PlainTensorRt:
    """A file in NVIDIA's hands alone, as in those of trtexec, Polygraphy, or Triton."""

    def __init__(self, trt: Any) -> None:
        class Logger(trt.ILogger):  # type: ignore[misc]  # the extension's class is Any
            def log(self, severity: Any, text: str) -> None:
                """Stay quiet: without a driver each call complains of that."""

        self.trt, self.logger = trt, Logger()
        self.builder = trt.Builder(self.logger)

    def refused(self, path: Path) -> list[str]:
        """Parse a file into `network`; return what the parser has against it."""
        self.network = self.builder.create_network(0)
        parser = self.trt.OnnxParser(self.network, self.logger)
        if parser.parse_from_file(str(path)):
            return []
        return [parser.get_error(index).desc() for index in range(parser.num_errors)]

    def inputs(self) -> list[tuple[str, str, tuple[int, ...]]]:
        return [self._tensor(self.network.get_input(i)) for i in range(self.network.num_inputs)]

    def outputs(self) -> list[tuple[str, str, tuple[int, ...]]]:
        return [self._tensor(self.network.get_output(i)) for i in range(self.network.num_outputs)]

    def plan(self, size: int) -> Any:
        """Build what was parsed, for compute capability 8.9 and batches of up to 8."""
        config = self.builder.create_builder_config()
        config.num_compute_capabilities = 1
        config.set_compute_capability(self.trt.ComputeCapability.SM89, 0)
        profile = self.builder.create_optimization_profile()
        profile.set_shape("images", *((batch, size, size, 3) for batch in (1, 8, 8)))
        config.add_optimization_profile(profile)
        return self.builder.build_serialized_network(self.network, config)

    @staticmethod
    def _tensor(tensor: Any) -> tuple[str, str, tuple[int, ...]]:
        return tensor.name, tensor.dtype.name, tuple(tensor.shape)


@pytest.fixture
def plain(rtx_builder: Any) -> PlainTensorRt:
    return PlainTensorRt(rtx_builder.trt)


def exported(path: Path, preset: str, precision: FilePrecision, **changed: Any) -> Path:
    options = {"outputs": OUTPUTS, "calibrate_on": varied_samples()[:1], **changed}
    checkpoint = random_checkpoint(preset)
    export_onnx(checkpoint, path, precision=precision, photographs=None, **options)
    return path


@pytest.mark.parametrize("precision", FILE_PRECISIONS)
@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_an_exported_file_is_read_by_others(
    plain: PlainTensorRt, tmp_path: Path, preset: str, precision: FilePrecision
) -> None:
    """Of each network: with two towers or one, with normalization or without, of either order."""
    assert plain.refused(exported(tmp_path / "m.onnx", preset, precision)) == []
    size = random_checkpoint(preset).spec.input_size
    assert plain.inputs() == [("images", "UINT8", (-1, size, size, 3))]
    assert plain.outputs() == [
        ("probabilities", "FLOAT", (-1, 11)),
        ("fc7", "FLOAT", (-1, 4096)),
    ]


@pytest.mark.parametrize("precision", FILE_PRECISIONS)
def test_what_others_read_they_can_build(
    plain: PlainTensorRt, tmp_path: Path, precision: FilePrecision
) -> None:
    """In bf16 and int8, too, which this package builds with TensorRT alone."""
    plain.refused(exported(tmp_path / "m.onnx", "paper", precision))
    assert plain.plan(size=224) is not None


@pytest.mark.parametrize("opset", OPSETS)
def test_so_is_one_of_older_operators_with_every_layer(
    plain: PlainTensorRt, tmp_path: Path, opset: int
) -> None:
    spec = random_checkpoint("paper").spec
    path = exported(tmp_path / "m.onnx", "paper", "fp32", opset=opset, outputs=("all",))
    assert plain.refused(path) == []
    names = {name for name, _, _ in plain.outputs()}
    assert names == spec.layer_shapes().keys()


def test_bytes_that_are_transposed_before_they_are_cast_are_not(
    plain: PlainTensorRt, tmp_path: Path
) -> None:
    """The parser takes bytes at a network's edge and in a Cast alone, so the Cast goes first."""
    path = exported(tmp_path / "m.onnx", "paper", "fp32")
    model = onnx.load(path)
    cast, transpose = model.graph.node[:2]
    assert (cast.op_type, transpose.op_type) == ("Cast", "Transpose")
    cast.input[0], transpose.input[0] = transpose.output[0], cast.input[0]
    (reader,) = (node for node in model.graph.node[2:] if transpose.output[0] in node.input)
    reader.input[list(reader.input).index(transpose.output[0])] = cast.output[0]
    nodes = [transpose, cast, *model.graph.node[2:]]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, path)
    assert any("UINT8" in reason.upper() for reason in plain.refused(path))


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
        builder._compiled_plugins(network.definition, file)
    builder._compiled_plugins(rtx_builder._Network(graph(precision)).definition, graph(precision))
