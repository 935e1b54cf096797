"""What import refuses, end to end: in one line, with its exit code, and nothing is written.

Networks have 8 outputs in place of 4096.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load, save, save_file

from alexnet_deploy.model.checkpoints import load_checkpoint
from tests.support.caffe_networks import layers_of, snapshot, train_val, weights, without
from tests.support.caffe_writer import binary
from tests.support.golden_files import light_bvlc_alexnet
from tests.support.import_command import SAID, refused, run
from tests.support.known_tables import published, use_few_outputs

Arrays = dict[str, NDArray[Any]]


@pytest.fixture(autouse=True)
def _few_outputs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_few_outputs(monkeypatch)
    monkeypatch.chdir(tmp_path)


def arrays() -> Arrays:
    """Return the arrays of that network."""
    return load(published())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; download it again"),
        (published()[:-100], "not a readable safetensors file"),
        (save({"a": np.zeros(3, np.int64)}), "is no AlexNet: it has 0 convolutions (none)"),
        (binary(train_val(layers_of())), "no layers with weights are called 'conv1'"),
    ],
)
def test_what_holds_no_network_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "alexnet.pth"
    path.write_bytes(content)
    assert message in refused(path)


def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "alexnet-owt-7be5be79.pth"
    path.write_bytes(published())
    message = refused(path, *SAID)
    assert "its name says 7be5be79; download it again" in message


def other_network(sizes: list[tuple[int, int, int]]) -> Arrays:
    """Return the convolutions of another network, (outputs, inputs, side) each, with biases."""
    found: Arrays = {}
    for number, (outputs, inputs, side) in enumerate(sizes):
        found[f"features.{number}.weight"] = np.zeros((outputs, inputs, side, side), np.float32)
        found[f"features.{number}.bias"] = np.zeros(outputs, np.float32)
    return found


def a_resnet() -> Arrays:
    return other_network([(4, 3, 7), *([(4, 4, 3)] * 16)])


def a_vgg() -> Arrays:
    return other_network([(4, 3, 3), *([(4, 4, 3)] * 12)])


def without_layer(layer: str) -> Callable[[], Arrays]:
    return lambda: {name: array for name, array in arrays().items() if layer not in name}


OTHERS = [
    (a_resnet, "17 convolutions (1 of 7x7 px, 16 of 3x3 px), AlexNet has five"),
    (a_vgg, "13 convolutions (13 of 3x3 px), AlexNet has five"),
    (without_layer("features.8."), "4 convolutions (1 of 11x11 px, 1 of 5x5 px, 2 of 3x3 px)"),
    (without_layer("classifier.4."), "expected fc6 [8, pool5], fc7 [8, 8]"),
    (without_layer("features.3.bias"), "4 convolutions with biases"),
]


@pytest.mark.parametrize(("content", "message"), OTHERS)
@pytest.mark.parametrize("form", ["safetensors", "torch"])
def test_another_network_is_refused(
    form: str, content: Callable[[], Arrays], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "net.pth"
    if form == "safetensors":
        save_file(content(), path)
    else:
        torch = pytest.importorskip("torch")
        torch.save({name: torch.from_numpy(a) for name, a in content().items()}, path)
    assert message in refused(path, *SAID)


def test_a_network_without_fc8_is_taken_for_its_vectors_if_that_is_meant(tmp_path: Path) -> None:
    save_file(without_layer("classifier.6.")(), tmp_path / "net.pth")
    assert "it has no fc8" in refused(tmp_path / "net.pth", *SAID)
    result = run("net.pth", *SAID, "--head", "none", "-o", "a.safetensors")
    assert result.exit_code == 0, result.output
    assert not load_checkpoint(Path("a.safetensors")).spec.has_head


@pytest.mark.parametrize("light", ["resnet50", "vgg19", "squeezenet"])
def test_another_network_of_onnx_is_refused(light: str) -> None:
    path = light_bvlc_alexnet().with_name(f"light_{light}.onnx")
    result = run(path)
    assert result.exit_code == 5, result.output
    assert "has a kernel of [" in result.stderr
    assert os.listdir() == []


@pytest.mark.parametrize(
    ("dropped", "message"),
    [
        ("r2", "its normalizations are"),
        ("r8", "where AlexNet has conv3"),
        ("r16", "where AlexNet has fc6"),
    ],
)
def test_an_onnx_file_without_a_layer_is_refused(
    dropped: str, message: str, tmp_path: Path
) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(light_bvlc_alexnet())
    (node,) = (node for node in model.graph.node if node.output[0] == dropped)
    for other in model.graph.node:
        other.input[:] = [node.input[0] if name == dropped else name for name in other.input]
    model.graph.node.remove(node)
    onnx.save(model, tmp_path / "net.onnx")
    assert message in refused(tmp_path / "net.onnx")


@pytest.mark.parametrize(
    ("dropped", "message"),
    [
        ("conv4", "holds 4 convolutions and 3 fully connected layers"),
        ("pool5", "its layers are fc6 (InnerProduct), relu6"),
        ("fc7", "its layers are relu7 (ReLU), fc8 (InnerProduct)"),
        ("fc8", "has no fc8, so it classifies nothing"),
    ],
)
def test_a_caffe_model_without_a_layer_is_refused(
    dropped: str, message: str, tmp_path: Path
) -> None:
    layers = without(layers_of(), dropped)
    path = tmp_path / "net.caffemodel"
    path.write_bytes(binary(snapshot(train_val(layers), weights(hidden=8))))
    assert message in refused(path)
