"""A prepared network: whichever of its layers are chosen, it is the graph lowered for them."""

import hashlib
import platform

import onnx
import pytest

from alexnet_deploy.choices import Device, FilePrecision, Runtime
from alexnet_deploy.graph.build import build_model
from alexnet_deploy.graph.casting import cast_model
from alexnet_deploy.graph.lowering import banded_convolution, split_towers
from alexnet_deploy.graph.model_file import ModelFile
from alexnet_deploy.graph.quantization import quantize_model, quantized_tensors
from alexnet_deploy.graph.unsigned_int8 import unsigned_activations
from alexnet_deploy.model.spec import PRESET_NAMES
from alexnet_deploy.runtimes import prepared, processor
from alexnet_deploy.runtimes.prepared import LOWERING_VERSION, prepare
from alexnet_deploy.runtimes.processor import saturates_int8
from tests.support.networks import random_checkpoint

TARGETS: tuple[tuple[Runtime, Device], ...] = (
    ("openvino", "cpu"),
    ("onnxruntime", "cpu"),
    ("onnxruntime", "cuda"),
)


def exported(preset: str, precision: FilePrecision) -> ModelFile:
    file = build_model(random_checkpoint(preset), ("probabilities",))
    if precision in ("fp16", "bf16"):
        return cast_model(file, precision)
    if precision == "int8":
        return quantize_model(file, dict.fromkeys(quantized_tensors(file), 1.0))
    return file


def lowered(file: ModelFile, runtime: Runtime, device: Device) -> ModelFile:
    if runtime == "openvino" and file.precision in ("fp32", "bf16"):
        return split_towers(file)
    if runtime == "openvino" and file.precision == "int8":
        file = unsigned_activations(file, narrow_sums=saturates_int8())
    return banded_convolution(file) if device == "cpu" else file


def nodes(graph: onnx.GraphProto) -> list[bytes]:
    return sorted(node.SerializeToString() for node in graph.node)


@pytest.mark.parametrize("preset", PRESET_NAMES)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
@pytest.mark.parametrize(("runtime", "device"), TARGETS)
def test_it_is_the_graph_lowered_for_the_layers_that_are_chosen(
    preset: str, precision: FilePrecision, runtime: Runtime, device: Device
) -> None:
    file = exported(preset, precision)
    network = prepare(file, runtime, device)
    layers = tuple(file.spec.layer_shapes())
    for outputs in (*((layer,) for layer in layers), ("fc7", "conv1", "logits"), layers):
        actual = onnx.load_model_from_string(network.to_bytes(outputs))
        expected = lowered(file.with_outputs(outputs), runtime, device)
        assert actual.graph.output == expected.graph.graph.output
        assert nodes(actual.graph) == nodes(expected.graph.graph), outputs
        arrays = {array.name: array.dims for array in actual.graph.initializer}
        assert arrays == {name: list(array.shape) for name, array in expected.arrays.items()}
    onnx.checker.check_model(actual)


@pytest.mark.parametrize(
    ("machine", "flags", "saturates"),
    [
        ("x86_64", "avx2 avx512f", True),
        ("x86_64", "avx2 avx_vnni", False),
        ("x86_64", "", True),
        ("aarch64", "", False),
    ],
)
def test_sums_are_narrow_on_x86_unless_it_is_said_to_have_vnni(
    machine: str, flags: str, saturates: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "processor_fields", lambda: {"flags": flags})
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert saturates_int8() is saturates


# Nodes and outputs of the networks that follow from one preset's model file, in this version.
NETWORKS = {
    ("openvino", "cpu", "fp32"): "c6e3d80899776e80",
    ("openvino", "cpu", "int8"): "0ef6a42be95365e6",
    ("onnxruntime", "cpu", "fp32"): "911601618986a603",
    ("onnxruntime", "cuda", "fp16"): "aff52f5b3a3792c3",
}


@pytest.mark.parametrize(("runtime", "device", "precision"), NETWORKS)
def test_a_changed_lowering_has_a_new_version(
    runtime: Runtime,
    device: Device,
    precision: FilePrecision,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Cached networks are found by LOWERING_VERSION: raise it, then write the new digest here."""
    monkeypatch.setattr(prepared, "saturates_int8", lambda: True)
    network = prepare(exported("paper", precision), runtime, device)
    graph = onnx.load_model_from_string(network.to_bytes(tuple(network.layers))).graph
    for array in graph.initializer:
        array.ClearField("raw_data")
    digest = hashlib.sha256(graph.SerializeToString(deterministic=True)).hexdigest()
    assert (LOWERING_VERSION, digest[:16]) == (3, NETWORKS[runtime, device, precision])
