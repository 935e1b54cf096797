"""Which array is which, whatever a file calls them."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alexnet_deploy.errors import IncompatibleFileError
from alexnet_deploy.importing.matching import Match, find_network
from alexnet_deploy.importing.source import Array
from alexnet_deploy.model.spec import PRESET_NAMES, preset_spec

LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
TORCHVISION = (
    *("features.0", "features.3", "features.6", "features.8", "features.10"),
    *("classifier.1", "classifier.4", "classifier.6"),
)
CADENE = (*(f"_{name}" for name in TORCHVISION[:5]), "linear0", "linear1", "last_linear")


def network(preset: str = "torchvision", num_classes: int = 11) -> dict[str, Array]:
    """Return arrays under the paper's names that take no memory: one number, shown many times."""
    spec = preset_spec(preset, num_classes=num_classes)
    return {
        name: np.broadcast_to(np.float32(number), shape)
        for number, (name, shape) in enumerate(spec.array_shapes().items())
    }


def renamed(arrays: dict[str, Array], names: tuple[str, ...], wrap: str = "{}") -> dict[str, Array]:
    """Return the arrays with other names of their layers."""
    new = dict(zip(LAYERS, names, strict=False))
    return {
        wrap.format(f"{new[name.split('.')[0]]}.{name.split('.')[1]}"): array
        for name, array in arrays.items()
    }


def places(names: tuple[str, ...], wrap: str = "{}") -> dict[str, str]:
    """Return what `find_network` should find."""
    parts = ("weight", "bias")
    return {
        f"{layer}.{part}": wrap.format(f"{name}.{part}")
        for layer, name in zip(LAYERS, names, strict=False)
        for part in parts
    }


@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_every_preset_is_found_by_its_shapes(preset: str) -> None:
    found = find_network(network(preset), "x")
    assert found == Match(places=places(LAYERS), unused=())


@pytest.mark.parametrize("names", [TORCHVISION, CADENE], ids=["torchvision", "Cadene"])
@pytest.mark.parametrize(
    "wrap",
    [
        *("{}", "module.{}", "_orig_mod.{}", "model.{}", "net.{}", "backbone.{}", "encoder.{}"),
        "state_dict.module.model._orig_mod.{}",
    ],
)
def test_wrappers_and_other_libraries_names_do_not_matter(
    names: tuple[str, ...], wrap: str
) -> None:
    assert find_network(renamed(network(), names, wrap), "x").places == places(names, wrap)


def test_a_wrapper_around_a_part_of_the_keys_does_not_matter() -> None:
    """As in the ImageNet example of PyTorch, which spreads the convolutions only."""
    arrays = renamed(network(), TORCHVISION, "module.{}")
    half = {key.replace("features.", "features.module."): array for key, array in arrays.items()}
    assert find_network(half, "x").places["conv5.bias"] == "module.features.module.10.bias"


def test_a_head_elsewhere_is_found() -> None:
    arrays = renamed(network(), TORCHVISION, "backbone.{}")
    head = {
        f"head.0.{part}": arrays.pop(f"backbone.classifier.6.{part}") for part in ("weight", "bias")
    }
    found = find_network(arrays | head, "x")
    assert found.places["fc8.weight"] == "head.0.weight"


@given(order=st.permutations(range(16)))
def test_the_order_of_the_arrays_does_not_matter(order: list[int]) -> None:
    arrays = list(renamed(network(), TORCHVISION).items())
    assert find_network(dict(arrays[index] for index in order), "x").places == places(TORCHVISION)


def test_4096_classes_are_told_from_fc7_by_the_order_of_the_names() -> None:
    arrays = renamed(network(num_classes=4096), TORCHVISION)
    assert find_network(arrays, "x").places == places(TORCHVISION)


def test_a_name_may_hold_a_number_of_any_length() -> None:
    arrays = renamed(network(), TORCHVISION)
    many = "9" * 5000
    assert many in find_network(arrays | {many: np.zeros(3, np.float32)}, "x").unused


def test_a_fully_connected_layer_may_be_stored_as_a_convolution() -> None:
    arrays = network("caffe")
    shapes = {"fc6.weight": (4096, 256, 6, 6), "fc7.weight": (4096, 4096, 1, 1)}
    arrays |= {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
    assert find_network(arrays, "x").places == places(LAYERS)


@pytest.mark.parametrize(
    ("weight", "bias"),
    [("{}_w_0", "{}_b_0"), ("{}/kernel", "{}/bias"), ("{}", "{}_bias"), ("{}.w", "{}.b")],
)
def test_biases_are_found_beside_their_weights(weight: str, bias: str) -> None:
    forms = {"weight": weight, "bias": bias}
    arrays = {
        forms[name.split(".")[1]].format(name.split(".")[0]): array
        for name, array in network("caffe").items()
    }
    assert find_network(arrays, "x").places["fc8.bias"] == bias.format("fc8")


def test_what_is_no_weight_of_the_network_is_left_over_and_named() -> None:
    others: dict[str, Array] = {
        "epoch": np.zeros((), np.float32),
        "centres.weight": np.zeros((11, 4096), np.float32),
        "optimizer.state.0.exp_avg": np.zeros((64, 3, 11, 11), np.float32),
        "features.1.num_batches_tracked": np.zeros((), np.int64),
    }
    found = find_network(renamed(network(), TORCHVISION) | others, "x")
    assert found == Match(places=places(TORCHVISION), unused=tuple(others))


def test_of_two_networks_one_is_chosen_by_its_key() -> None:
    arrays = renamed(network(), TORCHVISION, "model.{}") | renamed(
        network(), TORCHVISION, "model_ema.module.{}"
    )
    with pytest.raises(IncompatibleFileError, match=r"2 networks, model, model_ema\.module; .*key"):
        find_network(arrays, "x")
    found = find_network(arrays, "x", key="model_ema")
    assert found.places["conv1.weight"] == "model_ema.module.features.0.weight"
    assert len(found.unused) == 16


def test_without_a_head_fc7_is_the_last() -> None:
    arrays = network()
    headless = {name: array for name, array in arrays.items() if "fc8" not in name}
    with pytest.raises(IncompatibleFileError, match=r'no fc8; .*import it with head="none"'):
        find_network(headless, "x")
    expected = {name: name for name in headless}
    assert find_network(headless, "x", has_head=False).places == expected
    assert find_network(arrays, "x", has_head=False).places == expected


def resnet() -> dict[str, Array]:
    sizes = [(64, 3, 7), *itertools.repeat((64, 64, 3), 16)]
    return {
        f"layer{number}.weight": np.broadcast_to(np.float32(0), (out, into, size, size))
        for number, (out, into, size) in enumerate(sizes)
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: resnet(), r"17 convolutions \(1 of 7x7 px, 16 of 3x3"),
        (lambda a: a | {f"x.{k}": v for k, v in a.items() if "conv4" in k}, "6 convolutions"),
        (lambda a: {k: v for k, v in a.items() if "conv4" not in k}, r"4 convolutions .*2 of 3x3"),
        (lambda a: {k: v for k, v in a.items() if "fc7" not in k}, "fc7"),
        (
            lambda a: {k: v for k, v in a.items() if k != "conv3.bias"},
            "4 convolutions with biases",
        ),
        (lambda a: a | {"conv1.running_mean": np.zeros(64, np.float32)}, "batch normalization"),
        (lambda a: {k: v.astype(np.int8) for k, v in a.items()}, "convolutions"),
        (lambda a: {}, "no arrays"),
    ],
)
def test_what_is_no_alexnet_is_refused(change: object, message: str) -> None:
    assert callable(change)
    with pytest.raises(IncompatibleFileError, match=message):
        find_network(change(network()), "x")


def test_names_of_a_thousand_parts_end_in_an_error() -> None:
    arrays = {".".join("a" * count): np.zeros(1, np.float32) for count in range(1, 1500)}
    with pytest.raises(IncompatibleFileError, match="no AlexNet"):
        find_network(arrays, "x")
