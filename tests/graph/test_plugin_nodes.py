"""Normalization as nodes of TensorRT's plugins: where they stand and what they compute."""

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import helper

from alexnet_deploy.choices import FilePrecision
from alexnet_deploy.graph.build import build_model
from alexnet_deploy.graph.casting import cast_model
from alexnet_deploy.graph.model_file import ModelFile
from alexnet_deploy.graph.plugin_nodes import DOMAIN, FUSED_OP, NORM_OP, with_plugins
from alexnet_deploy.model.checkpoints import Checkpoint
from alexnet_deploy.model.reference import Reference
from alexnet_deploy.model.spec import LrnSpec
from tests.support.networks import noise, random_checkpoint, relative_error
from tests.support.plain_session import plain_session


def built(checkpoint: Checkpoint, precision: FilePrecision, *outputs: str) -> ModelFile:
    file = build_model(checkpoint, outputs)
    return file if precision not in ("fp16", "bf16") else cast_model(file, precision)


def plugins(file: ModelFile) -> dict[str, str]:
    """Return the operator of each node of ours, by its output."""
    nodes = file.graph.graph.node
    return {node.output[0]: node.op_type for node in nodes if node.domain == DOMAIN}


@pytest.mark.parametrize(
    ("preset", "precision", "outputs", "expected"),
    [
        ("paper", "fp32", ("fc7",), {"pool1": FUSED_OP, "pool2": FUSED_OP}),
        ("caffe", "fp32", ("fc7",), {"pool1": FUSED_OP, "pool2": FUSED_OP}),
        ("paper", "fp16", ("fc7",), {"pool1_fp16": FUSED_OP, "pool2_fp16": FUSED_OP}),
        # Normalized after pooling: nothing to fuse with.
        ("caffenet", "fp32", ("fc7",), {"norm1": NORM_OP, "norm2": NORM_OP}),
        ("caffenet", "fp16", ("fc7",), {"norm1_fp16": NORM_OP, "norm2_fp16": NORM_OP}),
        # The kernel is not written for bfloat16.
        ("paper", "bf16", ("fc7",), {"norm1": NORM_OP, "norm2": NORM_OP}),
        ("torchvision", "fp32", ("fc7",), {}),
        ("paper", "fp32", ("conv1_pre", "fc7"), {"pool1": FUSED_OP, "pool2": FUSED_OP}),
        ("paper", "fp16", ("conv1_pre",), {"pool1_fp16": FUSED_OP, "pool2_fp16": FUSED_OP}),
        # What lies between is asked for.
        ("paper", "fp32", ("conv1", "fc7"), {"norm1": NORM_OP, "pool2": FUSED_OP}),
        ("paper", "fp16", ("conv1", "fc7"), {"norm1_fp16": NORM_OP, "pool2_fp16": FUSED_OP}),
        ("paper", "fp32", ("norm2", "pool1"), {"pool1": FUSED_OP, "norm2": NORM_OP}),
        ("paper", "fp16", ("norm2", "pool1"), {"pool1_fp16": FUSED_OP, "norm2_fp16": NORM_OP}),
    ],
)
def test_every_normalization_is_one_node_fused_where_nothing_reads_between(
    preset: str, precision: FilePrecision, outputs: tuple[str, ...], expected: dict[str, str]
) -> None:
    file = with_plugins(built(random_checkpoint(preset), precision, *outputs))
    onnx.checker.check_model(file.to_bytes(), full_check=True)
    assert plugins(file) == expected
    operators = {node.op_type for node in file.graph.graph.node}
    assert not operators & {"LRN", "Reshape"}
    assert file.outputs() == outputs


def test_float16_goes_through_the_plugin_without_a_cast() -> None:
    file = with_plugins(built(random_checkpoint("paper"), "fp16", "probabilities"))
    casts = [node.output[0] for node in file.graph.graph.node if node.op_type == "Cast"]
    assert casts == ["images_float", "input_fp16", "logits"]


@pytest.mark.parametrize("preset", ["paper", "caffe", "caffenet"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("fused", [True, False])
def test_a_reader_without_plugins_computes_the_same(
    preset: str, precision: FilePrecision, fused: bool
) -> None:
    """By the local functions; what they give is read by pool2 and conv3."""
    checkpoint = random_checkpoint(preset)
    outputs = ("pool2", "conv3")
    file = with_plugins(built(checkpoint, precision, *outputs), fused=fused)
    session = plain_session(file.to_bytes())
    images = noise(checkpoint.spec, 2)
    expected = Reference(checkpoint).run(images)
    tolerance = 1e-5 if precision == "fp32" else 3e-3  # 1e-6, and 2^-11 a rounding
    for name, value in zip(outputs, session.run(list(outputs), {"images": images}), strict=True):
        assert relative_error(value, expected[name].astype(np.float64)) < tolerance, name


def test_a_node_says_all_that_the_plugin_and_the_function_need() -> None:
    lrn = LrnSpec(size=7, alpha=3e-4, beta=0.6, k=1.5, towers=4, position="before_pool")
    base = random_checkpoint("paper")
    checkpoint = dataclasses.replace(base, spec=dataclasses.replace(base.spec, lrn=lrn))
    file = with_plugins(built(checkpoint, "fp32", "fc7"))
    (first, _) = (node for node in file.graph.graph.node if node.domain == DOMAIN)
    said = {each.name: helper.get_attribute_value(each) for each in first.attribute}
    numbers = {"size": 7, "alpha": np.float32(3e-4), "beta": np.float32(0.6), "bias": 1.5}
    assert said == numbers | {
        "towers": 4,
        "plugin_namespace": DOMAIN.encode(),
        "plugin_version": b"1",
        "aot": 1,
    }
    for function in file.graph.functions:
        assert function.domain == DOMAIN
        assert set(function.attribute) == set(said)
    assert {function.name for function in file.graph.functions} == {NORM_OP, FUSED_OP}


def test_another_pool_or_another_reader_is_not_fused() -> None:
    checkpoint = random_checkpoint("paper")
    file = built(checkpoint, "fp32", "fc7")
    (pool,) = (node for node in file.graph.graph.node if node.name == "pool1")
    pool.attribute.append(helper.make_attribute("ceil_mode", 1))
    assert plugins(with_plugins(file)) == {"norm1": NORM_OP, "pool2": FUSED_OP}
    file = built(checkpoint, "fp32", "fc7")
    file.graph.graph.node.append(helper.make_node("Neg", ["conv2"], ["negative"], name="negative"))
    assert plugins(with_plugins(file)) == {"pool1": FUSED_OP, "norm2": NORM_OP}
