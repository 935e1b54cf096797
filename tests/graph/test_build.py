"""The exported file: valid, standard, readable by anyone, and what it says about itself."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from alexnet_deploy.errors import IncompatibleFileError
from alexnet_deploy.graph.build import build_model
from alexnet_deploy.graph.interface import GRAPH_VERSION
from alexnet_deploy.graph.model_file import ModelFile, write_model
from alexnet_deploy.graph.reading import read_model
from alexnet_deploy.model.reference import Reference
from alexnet_deploy.model.spec import PRESET_NAMES
from tests.support.networks import noise, random_checkpoint, relative_error
from tests.support.plain_session import plain_session

OUTPUTS = ("probabilities", "fc7")


@pytest.fixture(scope="module")
def paper() -> ModelFile:
    return build_model(random_checkpoint("paper"), OUTPUTS)


@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_the_file_passes_the_full_check_with_standard_operators_only(preset: str) -> None:
    model = onnx.load_model_from_string(build_model(random_checkpoint(preset), OUTPUTS).to_bytes())
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version == 10
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 20)]
    assert {node.domain for node in model.graph.node} == {""}
    assert len(model.graph.node) <= 32  # two more for each factored layer


def test_input_is_uint8_with_free_batch_and_outputs_are_float32(paper: ModelFile) -> None:
    graph = onnx.load_model_from_string(paper.to_bytes()).graph

    def signature(value: onnx.ValueInfoProto) -> tuple[str, int, list[int | str]]:
        tensor = value.type.tensor_type
        dims = [dim.dim_param or dim.dim_value for dim in tensor.shape.dim]
        return value.name, tensor.elem_type, dims

    assert [signature(value) for value in graph.input] == [
        ("images", TensorProto.UINT8, ["N", 224, 224, 3])
    ]
    assert [signature(value) for value in graph.output] == [
        ("probabilities", TensorProto.FLOAT, ["N", 11]),
        ("fc7", TensorProto.FLOAT, ["N", 4096]),
    ]


@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_plain_onnxruntime_computes_the_reference_from_the_file_alone(preset: str) -> None:
    checkpoint = random_checkpoint(preset)
    layers = ("logits", "fc7", "norm1")[: 2 if preset == "torchvision" else 3]
    session = plain_session(build_model(checkpoint, layers).to_bytes())
    images = noise(checkpoint.spec, 2)
    expected = Reference(checkpoint, np.float64).run(images)
    for count in (1, 2):  # the batch is free
        actual = session.run(None, {"images": images[:count]})
        for name, value in zip(layers, actual, strict=True):
            assert relative_error(value, expected[name][:count]) < 1e-5  # float32 rounding: 1e-6


def test_our_writer_and_protobufs_give_the_same_model(paper: ModelFile) -> None:
    parsed = onnx.load_model_from_string(paper.to_bytes())
    assert onnx.load_model_from_string(parsed.SerializeToString()) == parsed
    arrays = {
        tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in parsed.graph.initializer
    }
    assert list(arrays) == list(paper.arrays)
    for name, array in paper.arrays.items():
        np.testing.assert_array_equal(arrays[name], array)
        assert arrays[name].dtype == array.dtype


def test_a_written_file_reads_back_whole(paper: ModelFile, tmp_path: Path) -> None:
    report = {"passed": True, "checks": [], "runs": "x", "against": "a"}
    report |= {"num_photographs": 1, "skipped": ["a.jpg: empty"]}
    write_model(dataclasses.replace(paper, report=report), tmp_path / "a.onnx")
    file = read_model(tmp_path / "a.onnx")
    assert file.spec == paper.spec
    assert file.spec.labels[3] == "label 3"
    assert file.identity == random_checkpoint("paper").identity
    assert file.report == report
    assert paper.report is None
    assert file.is_unchanged()
    weights = file.weights()
    for name, array in random_checkpoint("paper").arrays.items():
        np.testing.assert_array_equal(weights.arrays[name], array)


def test_a_mean_image_goes_into_the_graph_and_comes_back() -> None:
    from alexnet_deploy.model.checkpoints import Checkpoint

    checkpoint = random_checkpoint("paper")
    image = np.random.default_rng(0).uniform(0, 255, (3, 256, 256)).astype(np.float32)
    arrays = dict(checkpoint.arrays) | {"mean_image": image}
    with_mean = Checkpoint(spec=checkpoint.spec, arrays=arrays)
    file = build_model(with_mean, ("logits",))
    session = plain_session(file.to_bytes())
    images = noise(checkpoint.spec, 1)
    (logits,) = session.run(None, {"images": images})
    expected = Reference(with_mean, np.float64).run(images)["logits"]
    assert relative_error(logits, expected) < 1e-5
    again = Reference(file.weights(), np.float64).run(images)["logits"]
    np.testing.assert_allclose(again, expected, rtol=1e-12)


def test_changed_weights_are_noticed(paper: ModelFile, tmp_path: Path) -> None:
    arrays = dict(paper.arrays)
    arrays["conv3.weight"] = arrays["conv3.weight"].copy()
    arrays["conv3.weight"][0, 0, 0, 0] += 1
    sealed = dataclasses.replace(paper, content_sha256=paper.computed_sha256())
    assert sealed.is_unchanged()
    assert not dataclasses.replace(sealed, arrays=arrays).is_unchanged()


def test_a_file_of_another_program_is_refused_with_the_command_to_run(tmp_path: Path) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([node], "g", value[:1], value[1:])
    onnx.save(helper.make_model(graph, producer_name="pytorch"), tmp_path / "a.onnx")
    with pytest.raises(IncompatibleFileError, match=r"producer is pytorch.*alexnet-deploy import"):
        read_model(tmp_path / "a.onnx")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_refused(paper: ModelFile, tmp_path: Path, share: float) -> None:
    whole = paper.to_bytes()
    path = tmp_path / "a.onnx"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(IncompatibleFileError, match=r"a\.onnx"):
        read_model(path)


# Nodes, inputs and outputs of each preset's graph in the present version.
GRAPHS = {
    "paper": "18699a90ed1b67c8",
    "torchvision": "dc2a25e8312fc7df",
    "caffe": "0f5a8d410f998de6",
    "caffenet": "f1d2500db2933046",
    "caffe-224": "32c87ac05995a54d",
    "caffenet-224": "0819039e8bee86be",
    "ungrouped": "aa5d616b6aab2b7b",
}


@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_a_changed_graph_has_a_new_version(preset: str) -> None:
    """Cached exports are found by GRAPH_VERSION: raise it, then write the new digest here."""
    file = build_model(random_checkpoint(preset, factored=True), OUTPUTS)
    digest = hashlib.sha256(file.graph.graph.SerializeToString(deterministic=True)).hexdigest()
    assert (GRAPH_VERSION, digest[:16]) == (2, GRAPHS[preset])
