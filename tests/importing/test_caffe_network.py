"""What a Caffe file says of its network, and what is said of one that is no AlexNet."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alexnet_deploy.errors import IncompatibleFileError
from alexnet_deploy.model.spec import preset_spec
from tests.support.caffe_networks import (
    IS_NORM_FIRST,
    MEAN_FILE,
    WEIGHTS,
    blob,
    changed,
    deploy,
    in_old_format,
    layer,
    layers_of,
    old_blob,
    read,
    snapshot,
    stated,
    train_val,
    trained,
    weights,
    with_parameters,
    without,
)
from tests.support.caffe_writer import Fields


@pytest.mark.parametrize("is_old", [False, True])
@pytest.mark.parametrize("preset", IS_NORM_FIRST)
def test_a_snapshot_says_which_network_it_is(tmp_path: Path, preset: str, is_old: bool) -> None:
    """The files of 2014 have other field numbers, four-dimensional arrays and the same network."""
    net = train_val(layers_of(preset))
    model = snapshot(net, WEIGHTS, old_blob if is_old else blob)
    source = read(tmp_path, in_old_format(model) if is_old else model)
    spec, network = preset_spec(preset), stated(source)
    for field in ("input_size", "conv1_padding", "pool_padding", "groups", "lrn"):
        assert getattr(network, field) == getattr(spec, field), field
    assert network.mean is None
    assert network.std is None
    assert MEAN_FILE in source.notes[0]
    assert source.places == {name: name for name in spec.array_shapes()}
    for name, (weight, bias) in WEIGHTS.items():
        np.testing.assert_array_equal(source.arrays[f"{name}.weight"], weight)
        np.testing.assert_array_equal(source.arrays[f"{name}.bias"], bias)


@pytest.mark.parametrize("preset", IS_NORM_FIRST)
def test_a_prototxt_of_either_format_takes_the_place_of_what_the_model_says(
    tmp_path: Path, preset: str
) -> None:
    other = next(name for name in IS_NORM_FIRST if name != preset)
    net = train_val(layers_of(preset))
    for text in (net, in_old_format(net)):
        source = read(tmp_path, trained(layers_of(other)), text)
        assert stated(source).lrn == preset_spec(preset).lrn
        assert stated(source).input_size == 227


def test_layers_are_known_by_their_order_and_not_by_their_names(tmp_path: Path) -> None:
    layers = changed(layers_of(), "fc8", lambda _: layer("fc8_flickr", "InnerProduct", "fc7", "f"))
    arrays = WEIGHTS | {"fc8_flickr": WEIGHTS["fc8"]}
    source = read(tmp_path, snapshot(train_val(layers), arrays))
    assert source.places is not None
    assert source.places["fc8.weight"] == "fc8_flickr.weight"
    assert list(source.arrays)[-2:] == ["fc8_flickr.weight", "fc8_flickr.bias"]


def test_a_network_may_end_with_fc7(tmp_path: Path) -> None:
    source = read(tmp_path, trained(without(layers_of(), "fc8")))
    assert source.places is not None
    assert list(source.places)[-1] == "fc7.bias"
    cut = deploy(without(layers_of(), "fc8"))
    source = read(tmp_path, trained(), cut)
    assert "fc8.weight" not in source.arrays
    assert "fc8" in source.notes[0]


@pytest.mark.parametrize("type_", ["Flatten", "Reshape"])
def test_layers_that_split_drop_and_flatten_are_passed(tmp_path: Path, type_: str) -> None:
    layers = layers_of()
    split = layer("conv1_split", "Split", "conv1", "conv1_a", ("top", "conv1_b"))
    flat = layer("flat", type_, "pool5", "flat")
    layers.insert(2, split)
    layers = changed(layers, "norm1", lambda f: [*f[:2], ("bottom", "conv1_b"), *f[3:]])
    layers = changed(layers, "fc6", lambda f: [*f[:2], ("bottom", "flat"), *f[3:]])
    layers.insert([dict(fields)["name"] for fields in layers].index("fc6"), flat)
    assert stated(read(tmp_path, trained(layers))).lrn == preset_spec("caffe").lrn


def test_relu_may_follow_pooling_since_the_results_are_the_same(tmp_path: Path) -> None:
    layers = without(layers_of("caffenet"), "relu1")
    names = [dict(fields)["name"] for fields in layers]
    layers.insert(names.index("pool1") + 1, layer("relu1", "ReLU", "pool1", "pool1"))
    assert stated(read(tmp_path, trained(layers))).lrn == preset_spec("caffenet").lrn


def test_layers_for_training_alone_are_left_out(tmp_path: Path) -> None:
    noise = [*layer("noise", "Power", "pool5", "pool5"), ("include", [("phase", "TRAIN")])]
    only_here = [*layer("here", "ReLU", "fc7", "fc7"), ("include", [("stage", "deploy")])]
    elsewhere = [*layer("there", "Power", "fc7", "fc7"), ("exclude", [("stage", "deploy")])]
    layers = without(layers_of(), "relu7")
    names = [dict(fields)["name"] for fields in layers]
    layers[names.index("drop7") : names.index("drop7")] = [only_here, elsewhere]
    layers.insert(names.index("fc6"), noise)
    assert stated(read(tmp_path, trained(), train_val(layers))).input_size == 227


SHAPE = [("dim", (10, 3, 224, 224))]


@pytest.mark.parametrize(
    "inputs",
    [
        [("input", "data"), ("input_shape", SHAPE)],
        [("input", "data"), *(("input_dim", size) for size in (10, 3, 224, 224))],
        [
            (
                "layer",
                [
                    ("name", "data"),
                    ("type", "Input"),
                    ("top", "data"),
                    ("input_param", [("shape", SHAPE)]),
                ],
            )
        ],
    ],
)
def test_at_224_px_caffes_pooling_rounds_54_up_to_27(
    tmp_path: Path, inputs: list[tuple[str, Any]]
) -> None:
    """So the maps are 54, 27, 13 and 6 px; in the Model Zoo's files they are 54, 26, 12 and 6."""
    network = stated(read(tmp_path, trained(), deploy(layers_of(), *inputs)))
    assert (network.input_size, network.pool_padding) == (224, (1, 0, 0))
    own = stated(read(tmp_path, snapshot(deploy(layers_of(), *inputs), WEIGHTS)))
    assert own == network


def test_pooling_may_round_down(tmp_path: Path) -> None:
    layers = layers_of(pooling=[("round_mode", "FLOOR")])
    arrays = weights(side=5)
    model = snapshot(train_val(layers, [("crop_size", 224)]), arrays)
    network = stated(read(tmp_path, model))
    assert (network.input_size, network.pool_padding) == (224, (0, 0, 0))


@pytest.mark.parametrize(("pad", "size"), [(0, 227), (2, 224), (3, 224)])
def test_an_input_size_that_is_stated_nowhere_is_the_one_that_fits_fc6(
    tmp_path: Path, pad: int, size: int
) -> None:
    conv1 = [("num_output", 96), ("pad", pad), ("kernel_size", 11), ("stride", 4)]
    network = stated(read(tmp_path, trained(layers_of(conv1=conv1), [("mirror", "true")])))
    assert (network.input_size, network.conv1_padding) == (size, (pad,) * 4)


@pytest.mark.parametrize(
    ("transform", "mean", "std"),
    [
        ([("mean_value", 104), ("mean_value", 117), ("mean_value", 123.5)], (104, 117, 123.5), 1),
        ([("mean_value", 120)], (120, 120, 120), 1),
        ([], (0, 0, 0), 1),
        ([("scale", 0.00390625)], (0, 0, 0), 256),
        ([("scale", 0.5), ("mean_file", MEAN_FILE)], None, 2),
    ],
)
def test_what_is_subtracted_and_divided_by_is_that_of_the_layer_of_data(
    tmp_path: Path, transform: Fields, mean: tuple[float, float, float] | None, std: float
) -> None:
    network = stated(read(tmp_path, trained(transform=transform)))
    assert (network.mean, network.std) == (mean, (std, std, std))
    used = stated(read(tmp_path, trained(transform=transform), deploy(layers_of())))
    assert (used.mean, used.std) == (network.mean, network.std), "a deploy file states neither"


def test_before_there_was_a_transform_the_layer_of_data_itself_had_it(tmp_path: Path) -> None:
    data = [("name", "data"), ("type", "Data"), ("top", "data")]
    own = ("data_param", [("source", "x"), ("crop_size", 227), ("scale", 0.5)])
    net: Fields = [("layer", [*data, own]), *(("layer", fields) for fields in layers_of())]
    network = stated(read(tmp_path, in_old_format(snapshot(net, WEIGHTS))))
    assert (network.input_size, network.std) == (227, (2, 2, 2))


CONV, POOL, NORM = "convolution_param", "pooling_param", "lrn_param"


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("conv1", with_parameters(CONV, ("kernel_size", 7)), r"kernel_size is \(7, 7\).* is 11"),
        ("conv2", with_parameters(CONV, ("stride", 2)), r"conv2 .*stride is \(2, 2\).* is 1"),
        ("conv5", with_parameters(CONV, ("pad", 0)), r"pad is \(0, 0\), AlexNet's is 1"),
        ("conv1", with_parameters(CONV, ("pad_h", 2), ("pad_w", 1)), r"pad is \(2, 1\)"),
        ("conv3", with_parameters(CONV, ("dilation", 2)), r"dilation is \(2, 2\)"),
        ("pool1", with_parameters(POOL, ("pool", "AVE")), "pool is AVE, AlexNet's is MAX"),
        ("pool2", with_parameters(POOL, ("pad", 1)), r"pool2 \(Pooling\): its pad is \(1, 1\)"),
        ("pool5", with_parameters(POOL, ("global_pooling", "true")), "global_pooling is True"),
        ("norm1", with_parameters(NORM, ("norm_region", "WITHIN_CHANNEL")), "WITHIN_CHANNEL"),
        ("norm1", with_parameters(NORM, ("local_size", 4)), "norm1 .* size is 4, expected an odd"),
        ("norm2", with_parameters(NORM, ("alpha", 0.001)), r"norm1 .* and .*norm2 .* differ"),
        ("relu3", with_parameters("relu_param", ("negative_slope", 0.1)), "negative_slope is 0.1"),
        ("relu3", lambda _: layer("p", "PReLU", "conv3", "conv3"), r"p \(PReLU\) is none"),
        ("relu3", lambda _: layer("bn3", "BatchNorm", "conv3", "conv3"), r"bn3 \(BatchNorm\) is"),
        ("relu3", lambda _: layer("r", "Dropout", "conv3", "conv3"), "its layers are conv1 "),
        ("drop6", with_parameters("dropout_param", ("scale_train", "false")), "drop6 .*scales"),
        ("conv5", lambda _: layer("p", "Pooling", "conv4", "conv5"), "holds 4 convolutions and 3"),
        (
            "fc7",
            lambda _: layer("q", "ReLU", "fc6", "fc7"),
            "5 convolutions and 2 fully|layers are",
        ),
    ],
)
def test_another_network_is_named_with_what_is_different(
    tmp_path: Path, name: str, change: Callable[[Fields], Fields], message: str
) -> None:
    layers = changed(layers_of(), name, change)
    with pytest.raises(IncompatibleFileError, match=message) as raised:
        read(tmp_path, trained(layers))
    assert str(raised.value).startswith(f"{tmp_path / 'net.caffemodel'}: ")
    with pytest.raises(IncompatibleFileError, match=rf"net\.prototxt: .*(?:{message})"):
        read(tmp_path, trained(), train_val(layers))


def test_a_network_of_another_depth_is_counted(tmp_path: Path) -> None:
    more = [layer(f"more{index}", "Convolution", "conv5", "conv5") for index in range(8)]
    with pytest.raises(IncompatibleFileError, match=r"holds 13 convolutions and 3 .*has five"):
        read(tmp_path, trained([*layers_of()[:16], *more, *layers_of()[16:]]))


def test_layers_beside_the_chain_are_not_of_the_network(tmp_path: Path) -> None:
    """Two convolutions that read the same map, one of which leads nowhere."""
    layers = changed(layers_of(), "conv5", lambda f: [*f[:2], ("bottom", "conv3"), *f[3:]])
    with pytest.raises(IncompatibleFileError, match=r"its layers are conv1 .*AlexNet's are five"):
        read(tmp_path, trained(layers))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (lambda w, b: (w,), "fc6 .* has 1 arrays, expected a weight and a bias"),
        (lambda w, b: (w[..., None], b), r"fc6 .*\[6, 144, 1\] and \[6\], expected 2 dimensions"),
        (lambda w, b: (), "no layers with weights are called 'fc6'.* there are: conv1, conv2"),
        (lambda w, b: (w[:, 1:], b), "fc6 has 143 inputs, and not 227 px, .* gives as many"),
    ],
)
def test_arrays_that_do_not_fit_are_named(
    tmp_path: Path, arrays: Callable[..., Any], message: str
) -> None:
    with pytest.raises(IncompatibleFileError, match=message):
        read(tmp_path, snapshot(train_val(layers_of()), WEIGHTS | {"fc6": arrays(*WEIGHTS["fc6"])}))


def test_an_input_that_is_not_square_or_does_not_fit_is_refused(tmp_path: Path) -> None:
    wide = [("input_shape", [("dim", (1, 3, 227, 300))])]
    with pytest.raises(IncompatibleFileError, match="as many rows as columns"):
        read(tmp_path, trained(), deploy(layers_of(), *wide))
    small = [("input_shape", [("dim", (1, 3, 115, 115))])]
    with pytest.raises(IncompatibleFileError, match="fc6 has 144 inputs, and not 115 px"):
        read(tmp_path, trained(), deploy(layers_of(), *small))
