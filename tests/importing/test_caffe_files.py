"""Caffe's files: every form in which numbers come, mean images, and damage."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from alexnet_deploy.errors import IncompatibleFileError, UsageError
from alexnet_deploy.importing.caffe_files import is_caffe_model, read_caffe
from alexnet_deploy.importing.source import Source
from tests.support.caffe_networks import (
    IS_NORM_FIRST,
    WEIGHTS,
    blob,
    changed,
    data_layer,
    deploy,
    in_old_format,
    layers_of,
    old_blob,
    read,
    snapshot,
    stated,
    train_val,
    trained,
    weights,
    with_parameters,
)
from tests.support.caffe_writer import Fields, binary, prototxt


def image_of(size: int) -> NDArray[np.float32]:
    return np.random.default_rng(1).uniform(0, 255, (3, size, size)).astype(np.float32)


def with_mean(tmp_path: Path, content: bytes) -> Source:
    read(tmp_path, trained())
    path = tmp_path / "mean"
    path.write_bytes(content)
    return read_caffe(tmp_path / "net.caffemodel", mean_file=path)


def npy(tmp_path: Path, array: NDArray[Any]) -> bytes:
    np.save(tmp_path / "mean.npy", array)
    return (tmp_path / "mean.npy").read_bytes()


def test_a_mean_image_is_read_from_either_kind_of_file(tmp_path: Path) -> None:
    image = image_of(256)
    for content in (binary(old_blob(image), "blob"), npy(tmp_path, image.astype(np.float64))):
        source = with_mean(tmp_path, content)
        np.testing.assert_array_equal(source.mean_image, image)
        assert source.notes == ()


def test_a_mean_image_of_another_scale_is_told(tmp_path: Path) -> None:
    (note,) = with_mean(tmp_path, npy(tmp_path, image_of(256) / image_of(256).max())).notes
    assert "lies within 0..1" in note


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (binary(old_blob(image_of(8)[:1]), "blob"), r"float32 \[1, 8, 8\], expected"),
        (binary(old_blob(image_of(8)), "blob")[:-4], "damaged or no mean image"),
        (b"\x93NUMPY\x01\x00\x40\x00{'descr': (" + bytes(60), "damaged or no mean image"),
        (b"name: 'mean'", "damaged or no mean image"),
        (b"", "damaged or no mean image"),
    ],
)
def test_a_file_that_is_no_mean_image_is_refused(
    tmp_path: Path, content: bytes, message: str
) -> None:
    with pytest.raises(IncompatibleFileError, match=message):
        with_mean(tmp_path, content)


def half(array: NDArray[Any]) -> Fields:
    numbers = array.astype(np.float16)
    return [("shape", [("dim", array.shape)]), ("raw_data_type", "FLOAT16"), ("raw_data", numbers)]


def in_two_parts(array: NDArray[Any]) -> Fields:
    flat = array.reshape(-1)
    return [("data", flat[:3]), ("shape", [("dim", array.shape)]), ("data", flat[3:])]


@pytest.mark.parametrize(
    ("form", "kind"),
    [
        (lambda array: [("shape", [("dim", array.shape)]), ("unpacked_data", array)], np.float32),
        (
            lambda a: [
                *(("shape", [("unpacked_dim", n) for n in a.shape]) for _ in "1"),
                ("double_data", a.astype(np.float64)),
            ],
            np.float64,
        ),
        (lambda a: [*blob(a)[:1], ("unpacked_double_data", a.astype(np.float64))], np.float64),
        (half, np.float16),
        (in_two_parts, np.float32),
        (lambda array: [*blob(array), ("diff", array)], np.float32),
        (lambda array: blob(array.reshape((1,) * (4 - array.ndim) + array.shape)), np.float32),
    ],
)
def test_numbers_are_read_in_every_form(
    tmp_path: Path, form: Callable[[Any], Fields], kind: type
) -> None:
    source = read(tmp_path, snapshot(train_val(layers_of()), WEIGHTS, form))
    for name, (weight, bias) in WEIGHTS.items():
        for part, array in (("weight", weight), ("bias", bias)):
            found = source.arrays[f"{name}.{part}"]
            assert found.dtype == kind
            assert found.flags.aligned
            assert found.flags.c_contiguous
            np.testing.assert_array_equal(found, array.astype(kind))


def test_weights_that_are_stored_transposed_are_turned(tmp_path: Path) -> None:
    layers = changed(layers_of(), "fc6", with_parameters("inner_product_param", ("transpose", 1)))
    weight, bias = WEIGHTS["fc6"]
    arrays = WEIGHTS | {"fc6": (np.ascontiguousarray(weight.T), bias)}
    source = read(tmp_path, snapshot(train_val(layers), arrays))
    np.testing.assert_array_equal(source.arrays["fc6.weight"], weight)


def test_weights_alone_are_taken_in_their_order(tmp_path: Path) -> None:
    """As a program writes them that stores no network."""
    net: Fields = [
        ("layer", [item for item in fields if item[0] in ("name", "type")])
        for fields in layers_of()
    ]
    source = read(tmp_path, snapshot(net, WEIGHTS))
    assert source.stated is None
    assert source.places is not None
    assert source.places["fc8.bias"] == "fc8.bias"
    assert stated(read(tmp_path, snapshot(net, WEIGHTS), train_val(layers_of()))).input_size == 227


@pytest.mark.parametrize(
    "form",
    [
        lambda array: [("shape", [("dim", array.shape)]), ("data", array.reshape(-1)[1:])],
        lambda array: [("shape", [("dim", (-1, -array.size))]), ("data", array)],
        lambda array: [("shape", [("dim", array.shape)])],
        lambda array: [("data", array)],
        lambda array: [*half(array), ("raw_data_type", "INT")],
    ],
)
def test_an_array_that_does_not_match_its_shape_is_damage(
    tmp_path: Path, form: Callable[[Any], Fields]
) -> None:
    message = r"layer conv1 \(Convolution\): (an array of|its numbers are of type INT)"
    with pytest.raises(IncompatibleFileError, match=message):
        read(tmp_path, snapshot(train_val(layers_of()), WEIGHTS, form))


def test_the_format_of_2013_is_named_with_the_program_that_converts_it(tmp_path: Path) -> None:
    old = [("layer", [("name", "conv1"), ("type", "conv")]), ("bottom", "data"), ("top", "conv1")]
    with pytest.raises(IncompatibleFileError, match=r"2013.*upgrade_net_proto_binary"):
        read(tmp_path, [("layers", old)])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a readable Caffe model"),
        (b"PK\x03\x04 not a Caffe model", "not a readable Caffe model"),
        (b"\x0a\x07AlexNet", "it has no layers"),
        (binary(trained())[:5000], r"announces [\d,]+ bytes, [\d,]+ are left.*truncated"),
        (b"\xa2\x06\x02\x08\x01", "its name is a number"),
        (b"\x20\x01" * 300_000, "more than 200,000 fields"),
        (b"\x20" + b"\xff" * 20, "longer than 10 bytes"),
        (b"\x22\xd0\x0f" + bytes(2000), "its input_dim has 1,001 values"),
        (b"\x0a\x88\x27" + bytes(5000), "its name has 5,000 bytes"),
    ],
)
def test_a_file_that_is_no_caffe_model_is_refused(
    tmp_path: Path, content: bytes, message: str
) -> None:
    with pytest.raises(IncompatibleFileError, match=message) as raised:
        read(tmp_path, content)
    assert str(raised.value).startswith(f"{tmp_path / 'net.caffemodel'}: ")


def test_a_prototxt_that_is_none_is_refused(tmp_path: Path) -> None:
    read(tmp_path, trained())
    model = tmp_path / "net.caffemodel"
    with pytest.raises(IncompatibleFileError, match=r"net\.caffemodel: is not text"):
        read_caffe(model, model)
    with pytest.raises(IncompatibleFileError, match=r"net\.prototxt: .*its kernel_size is 'big'"):
        read(tmp_path, trained(), prototxt(train_val(layers_of())).replace("size: 11", "size: big"))
    with pytest.raises(IncompatibleFileError, match=r"net\.prototxt: .*line 1: '}', expected"):
        read(tmp_path, trained(), "layer { } }")
    with pytest.raises(UsageError, match="no such file; give a prototxt"):
        read_caffe(model, tmp_path / "none.prototxt")


SMALL = binary(snapshot(train_val(layers_of()), weights((2,) * 5, 1, 1)))
MANY = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def is_read_or_refused(path: Path, content: bytes) -> bool:
    is_caffe_model(content)
    path.write_bytes(content)
    try:
        return isinstance(read_caffe(path), Source)
    except IncompatibleFileError as error:
        return str(path) in str(error)


@MANY
@given(length=st.integers(0, len(SMALL)))
def test_a_truncated_file_is_refused_or_a_network(tmp_path: Path, length: int) -> None:
    assert is_read_or_refused(tmp_path / "a.caffemodel", SMALL[:length])


@MANY
@given(st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.integers(1, 255)), min_size=1))
def test_a_damaged_file_is_refused_or_a_network(
    tmp_path: Path, damage: list[tuple[int, int]]
) -> None:
    content = bytearray(SMALL)
    for place, bits in damage:
        content[place] ^= bits
    assert is_read_or_refused(tmp_path / "a.caffemodel", bytes(content))


@MANY
@given(st.binary(max_size=300))
def test_random_bytes_are_refused(tmp_path: Path, content: bytes) -> None:
    assert is_read_or_refused(tmp_path / "a.caffemodel", content)


@MANY
@given(length=st.integers(0, 1000), content=st.text(max_size=30))
def test_a_damaged_prototxt_is_refused_or_a_network(
    tmp_path: Path, length: int, content: str
) -> None:
    text = prototxt(train_val(layers_of()))
    place = length * len(text) // 1000
    (tmp_path / "a.caffemodel").write_bytes(SMALL)
    (tmp_path / "a.prototxt").write_text(text[:place] + content + text[place + 3 :], "utf-8")
    with suppress(IncompatibleFileError):
        read_caffe(tmp_path / "a.caffemodel", tmp_path / "a.prototxt")


@pytest.mark.parametrize("form", [blob, old_blob])
def test_a_caffe_model_is_known_by_its_first_kilobyte(form: Callable[[Any], Fields]) -> None:
    for preset in IS_NORM_FIRST:
        model = snapshot(train_val(layers_of(preset)), WEIGHTS, form)
        for net in (model, in_old_format(model), snapshot(deploy(layers_of()), WEIGHTS)):
            assert is_caffe_model(binary(net)[:1024])
            assert is_caffe_model(binary(net[1:])[:1024])


def test_other_files_are_not_taken_for_caffe_models() -> None:
    onnx = pytest.importorskip("onnx", reason="the other protobuf in the house")
    nodes = [onnx.helper.make_node("Relu", ["x"], ["y"])]
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph(nodes, "g", [value], [value])
    model = onnx.helper.make_model(graph, producer_name="pytorch")
    others = [
        model.SerializeToString(),
        graph.SerializeToString(),
        prototxt(train_val(layers_of())).encode(),
        binary(old_blob(image_of(256)), "blob"),
        binary(blob(image_of(256)), "blob"),
        # Caffe2's weights and TensorFlow's graphs
        b"\x0a\x07AlexNet"
        + 2 * b"\x12\x22\x12\x07conv1_w\x22\x0fGivenTensorFill\x2a\x06\x0a\x04\x73hap",
        b"\x0a\x0b\x0a\x01x\x12\x06Switch\x12\x04\x0a\x02\x0a\x00",
        b"\x12\x00\x00\x00\x00\x00\x00\x00" + b'{"a": 1}',
        b"\x0a\x01\x00\x00\x00\x00\x00\x00" + b'{"conv1.weight": {"dtype": "F32"}}' * 9,
        b"\x80\x02}q\x00X\x05\x00\x00\x00conv1",
        b"PK\x03\x04" + bytes(100),
        b"\x93NUMPY\x01\x00",
        b"",
    ]
    assert [is_caffe_model(content[:1024]) for content in others] == [False] * len(others)
    for suspicious in (data_layer("TRAIN", []), [("name", "x\n"), ("type", "x\n")]):
        is_caffe = is_caffe_model(binary([("layer", suspicious)]))
        assert is_caffe == ("\n" not in str(dict(suspicious)["name"]))
