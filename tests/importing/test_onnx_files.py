"""An AlexNet is read from whatever ONNX file holds it; any other network is named as such."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from alexnet_deploy.errors import IncompatibleFileError
from alexnet_deploy.graph.build import build_model
from alexnet_deploy.graph.model_file import write_model
from alexnet_deploy.importing.onnx_files import read_foreign_network, read_onnx
from alexnet_deploy.importing.source import Source, StatedNetwork
from alexnet_deploy.model.checkpoints import Checkpoint
from alexnet_deploy.model.spec import preset_spec
from tests.support.foreign_onnx import (
    ConvolutionalWriter,
    KerasWriter,
    NormalizingWriter,
    ZooWriter,
    node_that_makes,
    small_checkpoint,
    written,
)

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


def stated(checkpoint: Checkpoint, **changes: Any) -> StatedNetwork:
    spec = checkpoint.spec
    return dataclasses.replace(
        StatedNetwork(
            input_size=spec.input_size,
            conv1_padding=spec.conv1_padding,
            pool_padding=spec.pool_padding,
            groups=spec.groups,
            lrn=spec.lrn,
        ),
        **changes,
    )


def assert_holds(source: Source, checkpoint: Checkpoint) -> None:
    """Compare the arrays, each under its place."""
    assert source.places is not None
    assert list(source.places) == list(checkpoint.arrays)
    for place, name in source.places.items():
        np.testing.assert_array_equal(source.arrays[name], checkpoint.arrays[place], place)


@pytest.mark.parametrize("opset", [3, 6, 7, 8, 9, 12, 13, 20])
@pytest.mark.parametrize("preset", ["caffe", "caffenet"])
def test_the_model_zoos_files_are_read(opset: int, preset: str, tmp_path: Path) -> None:
    checkpoint = small_checkpoint(preset)
    network = read_foreign_network(written(ZooWriter(checkpoint, opset).model(), tmp_path))
    assert_holds(network.source, checkpoint)
    assert network.source.stated == stated(checkpoint)
    assert network.source.places is not None
    assert network.source.places["conv1.weight"] == "conv1_w_0"
    assert (network.interface.input_name, network.interface.batch, network.interface.pixels) == (
        "data_0",
        1,
        "normalized",
    )
    assert (network.interface.output_name, network.interface.layer) == ("prob_1", "probabilities")
    assert "onnx-caffe2" in network.source.container


def test_the_zoos_own_graph_is_the_preset_of_its_name() -> None:
    source = read_foreign_network(LIGHT / "light_bvlc_alexnet.onnx").source
    spec = preset_spec("caffe-224")
    assert source.stated == stated(Checkpoint(spec=spec, arrays={}))
    assert source.places is not None
    shapes = {place: source.arrays[name].shape for place, name in source.places.items()}
    assert shapes == spec.array_shapes()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet50", r"conv1, has a kernel of \[7, 7\], expected \[11, 11\]"),
        ("vgg19", r"'n0' \(Conv\) after images.* has a kernel of \[3, 3\]"),
        ("squeezenet", r"has a kernel of \[3, 3\]"),
        ("zfnet512", r"has a kernel of \[7, 7\]"),
    ],
)
def test_another_network_is_told_by_its_first_other_layer(name: str, message: str) -> None:
    with pytest.raises(IncompatibleFileError, match=message):
        read_foreign_network(LIGHT / f"light_{name}.onnx")


def test_weights_that_are_turned_and_channels_that_are_last_are_put_in_place(
    tmp_path: Path,
) -> None:
    checkpoint = small_checkpoint()
    writer = KerasWriter(checkpoint, 13)
    network = read_foreign_network(written(writer.model(writer.image()), tmp_path))
    assert_holds(network.source, checkpoint)
    assert network.source.stated == stated(checkpoint)
    assert (network.interface.channels_last, network.interface.batch) == (True, None)


def test_fully_connected_layers_may_be_convolutions(tmp_path: Path) -> None:
    checkpoint = small_checkpoint()
    network = read_foreign_network(written(ConvolutionalWriter(checkpoint).model(), tmp_path))
    assert_holds(network.source, checkpoint)
    assert network.interface.layer == "probabilities"


def test_a_network_without_a_head_is_read(tmp_path: Path) -> None:
    checkpoint = small_checkpoint(num_classes=0)
    network = read_foreign_network(written(ZooWriter(checkpoint).model(), tmp_path))
    assert_holds(network.source, checkpoint)
    assert (network.interface.layer, network.interface.output_name) == ("fc7", "fc7_3")


@pytest.mark.parametrize(
    ("attributes", "side", "padding"),
    [
        ({}, 83, None),
        ({"ceil_mode": 1}, 83, 1),
        ({"ceil_mode": 1}, 99, 0),
        ({"auto_pad": "SAME_UPPER"}, 83, 1),
        ({"auto_pad": "VALID"}, 99, 0),
        ({"pads": [0, 0, 1, 1]}, 83, 1),
        ({"pads": [0, 0, 1, 1]}, 99, 0),
    ],
)
def test_a_pooling_is_padded_where_that_gives_it_a_window(
    attributes: dict[str, Any], side: int, padding: int | None, tmp_path: Path
) -> None:
    """pool2 is 4 x 4 at 83 px, 5 x 5 at 99 px: only the former has room for another window."""
    checkpoint = small_checkpoint(input_size=side, pool_padding=(0, 0, padding or 0))
    model = ZooWriter(checkpoint, 11).model()
    node = node_that_makes(model, "pool5_1")
    kept = [one for one in node.attribute if one.name != "pads"]
    del node.attribute[:]
    node.attribute.extend(kept)
    node.attribute.extend(helper.make_attribute(*item) for item in attributes.items())
    assert read_foreign_network(written(model, tmp_path)).source.stated == stated(checkpoint)


def test_padding_may_be_a_node_of_its_own(tmp_path: Path) -> None:
    checkpoint = small_checkpoint("paper", input_size=80, lrn=None)
    model = ZooWriter(checkpoint, 11).model()
    convolution = model.graph.node[0]
    pads = next(one for one in convolution.attribute if one.name == "pads")
    pads.ints[:] = [0, 0, 0, 0]
    amounts = numpy_helper.from_array(np.array([0, 0, 0, 0, 0, 0, 3, 3], np.int64), "amounts")
    model.graph.initializer.append(amounts)
    convolution.input[0] = "padded"
    model.graph.node.insert(0, helper.make_node("Pad", ["data_0", "amounts"], ["padded"]))
    assert read_foreign_network(written(model, tmp_path)).source.stated == stated(checkpoint)


@pytest.mark.parametrize(
    ("kind", "kept"),
    [
        (TensorProto.FLOAT16, np.float16),
        (TensorProto.BFLOAT16, np.float32),
        (TensorProto.DOUBLE, np.float64),
    ],
)
def test_narrow_and_wide_numbers_are_read(kind: int, kept: type, tmp_path: Path) -> None:
    model = ZooWriter(small_checkpoint(), 13).model()
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            array = numpy_helper.to_array(tensor)
            narrow = array.astype(helper.tensor_dtype_to_np_dtype(kind))
            tensor.CopyFrom(numpy_helper.from_array(narrow, tensor.name))
    source = read_foreign_network(written(model, tmp_path)).source
    assert source.arrays["conv1_w_0"].dtype == kept
    expected = small_checkpoint().arrays["conv1.weight"]
    np.testing.assert_allclose(source.arrays["conv1_w_0"], expected, rtol=2**-8)


MEAN = (123.68, 116.779, 103.939)
UNIT_MEAN, UNIT_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TORCH_MEAN = (123.675, 116.28, 103.53)
TORCH_STD = (58.395, 57.12, 57.375)


def planes(numbers: tuple[float, ...]) -> np.ndarray:
    return np.array(numbers).reshape(3, 1, 1)


@pytest.mark.parametrize(
    ("operations", "kind", "mean", "std", "pixels"),
    [
        ([("Cast", None), ("Sub", MEAN), ("Transpose", None)], "bytes", MEAN, (1, 1, 1), "grey"),
        ([("Sub", planes(MEAN))], "maps", MEAN, (1, 1, 1), "grey levels"),
        ([("Add", -planes(MEAN))], "maps", MEAN, (1, 1, 1), "grey levels"),
        ([("Sub", planes(UNIT_MEAN)), ("Div", planes(UNIT_STD))], "maps", "torch", "", "0..1"),
        (
            [("Div", 255), ("Sub", planes(UNIT_MEAN)), ("Div", planes(UNIT_STD))],
            *("maps", "torch", "", "grey levels"),
        ),
        ([("Mul", 1 / 127.5), ("Sub", 1)], "maps", (127.5,) * 3, (127.5,) * 3, "grey levels"),
        ([("Cast", None), ("Transpose", None)], "bytes", (0, 0, 0), (1, 1, 1), "grey levels"),
    ],
)
def test_what_the_graph_does_to_pixels_is_stated(
    operations: list[tuple[str, Any]], kind: str, mean: Any, std: Any, pixels: str, tmp_path: Path
) -> None:
    checkpoint = small_checkpoint()
    writer = NormalizingWriter(checkpoint, 13)
    writer.operations = tuple(operations)
    element = TensorProto.UINT8 if kind == "bytes" else TensorProto.FLOAT
    side = checkpoint.spec.input_size
    shape: list[str | int | None] = ["N", 3, side, side]
    if kind == "bytes":
        shape = ["N", side, side, 3]
    image = helper.make_tensor_value_info("data_0", element, shape)
    network = read_foreign_network(written(writer.model(image), tmp_path))
    given = network.source.stated
    assert given is not None
    expected = (TORCH_MEAN, TORCH_STD) if mean == "torch" else (mean, std)
    assert given.mean == pytest.approx(expected[0], rel=1e-6)
    assert given.std == pytest.approx(expected[1], rel=1e-6)
    assert network.interface.pixels.startswith(pixels)


def test_a_mean_image_in_the_graph_is_read(tmp_path: Path) -> None:
    image = np.random.default_rng(1).uniform(90, 130, (3, 83, 83)).astype(np.float32)
    writer = NormalizingWriter(small_checkpoint(), 13)
    writer.operations = (("Sub", image),)
    source = read_foreign_network(written(writer.model(), tmp_path)).source
    assert source.stated is not None
    assert source.mean_image is not None
    np.testing.assert_allclose(source.mean_image, image, rtol=1e-6)
    assert source.stated.mean == pytest.approx(tuple(image.mean((1, 2))))


@pytest.mark.parametrize("side", [224, 227])
def test_a_size_that_is_open_is_found_by_what_fits(side: int, tmp_path: Path) -> None:
    checkpoint = small_checkpoint(input_size=side, pool_padding=(0, 0, 0))
    image = helper.make_tensor_value_info("data_0", TensorProto.FLOAT, ["N", 3, "H", "W"])
    source = read_foreign_network(written(ZooWriter(checkpoint).model(image), tmp_path)).source
    assert source.stated == stated(checkpoint)
    assert f"{side} px" in source.notes[0]


@pytest.mark.parametrize("preset", ["paper", "caffenet", "torchvision"])
def test_a_file_of_ours_is_read_by_its_metadata_and_its_graph_says_the_same(
    preset: str, tmp_path: Path
) -> None:
    checkpoint = small_checkpoint(preset, input_size=99, pool_padding=(0, 0, 0))
    path = tmp_path / "ours.onnx"
    write_model(build_model(checkpoint, ("probabilities", "fc7")), path)
    own = read_onnx(path)
    assert isinstance(own, Checkpoint)
    assert (own.spec, own.identity) == (checkpoint.spec, checkpoint.identity)
    by_graph = read_foreign_network(path)
    given, wanted = by_graph.source.stated, checkpoint.spec.preprocessing
    assert given is not None
    assert given.mean == pytest.approx(wanted.mean)
    assert given.std == pytest.approx(wanted.std)
    assert given == stated(checkpoint, mean=given.mean, std=given.std)
    assert_holds(by_graph.source, checkpoint)
    assert (by_graph.interface.output_name, by_graph.interface.pixels) == (
        "probabilities",
        "grey levels",
    )


def test_a_file_may_have_any_name(tmp_path: Path) -> None:
    path = written(ZooWriter(small_checkpoint()).model(), tmp_path).rename(tmp_path / "net.pt")
    assert read_foreign_network(path).source.stated == stated(small_checkpoint())


def test_one_array_may_serve_two_layers(tmp_path: Path) -> None:
    model = ZooWriter(small_checkpoint()).model()
    node_that_makes(model, "fc7_1").input[2] = "fc6_b_0"
    source = read_foreign_network(written(model, tmp_path)).source
    assert source.places is not None
    assert source.places["fc6.bias"] == source.places["fc7.bias"] == "fc6_b_0"


def test_zeros_stand_for_a_bias_that_is_not_there(tmp_path: Path) -> None:
    model = ZooWriter(small_checkpoint(), 13).model()
    for name in ("conv3_1", "fc8_1"):
        del node_that_makes(model, name).input[2]
    source = read_foreign_network(written(model, tmp_path)).source
    assert source.places is not None
    for layer in ("conv3", "fc8"):
        assert not source.arrays[source.places[f"{layer}.bias"]].any()
    assert source.notes[-1] == "fc8 has no bias; zeros stand for it"


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [(0, None, None), (0, 6, "cuts off at 0.0 and 6.0"), (-1, None, "cuts off at -1.0")],
)
def test_a_clip_at_zero_is_a_relu(
    low: float, high: float | None, message: str | None, tmp_path: Path
) -> None:
    model = ZooWriter(small_checkpoint(), 6).model()
    node = node_that_makes(model, "conv2_2")
    node.op_type = "Clip"
    bounds = {"min": float(low)} | ({} if high is None else {"max": float(high)})
    node.attribute.extend(helper.make_attribute(*bound) for bound in bounds.items())
    path = written(model, tmp_path)
    if message is None:
        assert read_foreign_network(path).source.stated == stated(small_checkpoint())
    else:
        with pytest.raises(IncompatibleFileError, match=message):
            read_foreign_network(path)
