"""Layers by torchvision's and Caffe's names hold what those programs compute under them."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from alexnet_deploy.choices import LAYERS
from alexnet_deploy.errors import UsageError
from alexnet_deploy.model.checkpoints import Checkpoint
from alexnet_deploy.model.layers import layer_name, layer_names
from alexnet_deploy.model.reference import Reference
from alexnet_deploy.model.spec import PRESET_NAMES, PRESETS, preset_spec
from tests.support.caffe_networks import layers_of
from tests.support.networks import noise, random_checkpoint, relative_error

torch = pytest.importorskip("torch", reason="what computes as torchvision and Caffe do is in torch")
F = torch.nn.functional
PAGE = Path(__file__).parents[2] / "alexnet_deploy" / "README.md"


def network_input(checkpoint: Checkpoint, images: NDArray[np.uint8]) -> Any:
    mean, std = (
        torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1)
        for values in (checkpoint.spec.preprocessing.mean, checkpoint.spec.preprocessing.std)
    )
    return (torch.from_numpy(images).permute(0, 3, 1, 2).double() - mean) / std


def parameters(checkpoint: Checkpoint, layer: str) -> tuple[Any, Any]:
    weight = torch.from_numpy(checkpoint.dense(layer, np.dtype(np.float64)))
    return weight, torch.from_numpy(checkpoint.arrays[f"{layer}.bias"]).double()


def torchvision_network(checkpoint: Checkpoint, *, in_place: bool) -> Any:
    """Return the modules of torchvision's `alexnet`, by its names and in its order."""
    nn = torch.nn

    def conv(number: int, kernel: int, stride: int = 1, padding: int = 0) -> Any:
        weight, bias = parameters(checkpoint, f"conv{number}")
        made = nn.Conv2d(weight.shape[1], weight.shape[0], kernel, stride, padding)
        made.weight, made.bias = nn.Parameter(weight), nn.Parameter(bias)
        return made

    def linear(layer: str) -> Any:
        weight, bias = parameters(checkpoint, layer)
        made = nn.Linear(1, 1)
        made.weight, made.bias = nn.Parameter(weight), nn.Parameter(bias)
        return made

    def relu() -> Any:
        return nn.ReLU(in_place)

    def pool() -> Any:
        return nn.MaxPool2d(3, 2)

    features = nn.Sequential(
        *(conv(1, 11, 4, 2), relu(), pool()),
        *(conv(2, 5, padding=2), relu(), pool()),
        *(conv(3, 3, padding=1), relu(), conv(4, 3, padding=1), relu()),
        *(conv(5, 3, padding=1), relu(), pool()),
    )
    classifier = nn.Sequential(
        *(nn.Dropout(), linear("fc6"), relu()),
        *(nn.Dropout(), linear("fc7"), relu(), linear("fc8")),
    )
    modules = {"features": features, "avgpool": nn.AdaptiveAvgPool2d((6, 6))}
    last = {"flatten": nn.Flatten(), "classifier": classifier}
    network = nn.Sequential()
    for name, module in (modules | last).items():
        network.add_module(name, module)
    return network.eval()


def hooked(checkpoint: Checkpoint, images: NDArray[np.uint8], *, in_place: bool) -> dict[str, Any]:
    """Return the output of each module without modules of its own, as a hook keeps it."""
    network = torchvision_network(checkpoint, in_place=in_place)
    kept: dict[str, Any] = {}
    for name, module in network.named_modules():
        if not list(module.children()):
            module.register_forward_hook(lambda _, __, out, name=name: kept.update({name: out}))
    with torch.no_grad():
        network(network_input(checkpoint, images))
    return {name: out.numpy() for name, out in kept.items()}


def test_each_name_of_torchvisions_holds_what_a_hook_on_that_module_sees() -> None:
    checkpoint = random_checkpoint("torchvision")
    images = noise(checkpoint.spec, 1)
    ours = Reference(checkpoint, np.float64).run(images)
    theirs = hooked(checkpoint, images, in_place=False)
    del theirs["flatten"]
    assert set(theirs) == {name for layer in LAYERS for name in layer.torchvision}
    for name, expected in theirs.items():
        actual = ours[layer_name(name, checkpoint.spec)].reshape(expected.shape)
        assert relative_error(actual, expected) < 1e-12, name
    overwritten = hooked(checkpoint, images, in_place=True)
    for layer in LAYERS:
        if layer.relu == "before":  # as the page says of a hook that does not clone
            (name,) = layer.torchvision
            after = ours[layer.name.removesuffix("_pre")]
            assert relative_error(overwritten[name], after) < 1e-12, name


def caffe_blobs(preset: str, checkpoint: Checkpoint, images: NDArray[np.uint8]) -> dict[str, Any]:
    """Return what the blob of each layer of a published network holds at the end of a pass."""
    blobs = {"data": network_input(checkpoint, images)}
    tops = {}
    for fields in layers_of(preset):
        of = dict(fields)
        name, x = of["name"], blobs[of["bottom"]]
        tops[name] = of["top"]
        if of["type"] == "Convolution":
            own = dict(of["convolution_param"])
            sizes = own.get("stride", 1), own.get("pad", 0), 1, own.get("group", 1)
            x = F.conv2d(x, *parameters(checkpoint, name), *sizes)
        elif of["type"] == "InnerProduct":
            x = F.linear(x.flatten(1), *parameters(checkpoint, name))
        elif of["type"] == "LRN":
            x = F.local_response_norm(x, 5, 1e-4, 0.75, 1.0)
        elif of["type"] == "Pooling":
            x = F.max_pool2d(x, 3, 2, ceil_mode=True)
        elif of["type"] == "ReLU":
            x = torch.relu(x)
        blobs[of["top"]] = x
    blobs["prob"] = torch.softmax(blobs["fc8"], 1)
    return {name: blobs[top].numpy() for name, top in {**tops, "prob": "prob"}.items()}


@pytest.mark.parametrize("preset", ["caffe", "caffenet"])
def test_each_name_of_caffes_holds_what_its_blob_does_after_a_pass(preset: str) -> None:
    checkpoint = random_checkpoint(preset)
    images = noise(checkpoint.spec, 1)
    ours = Reference(checkpoint, np.float64).run(images)
    theirs = caffe_blobs(preset, checkpoint, images)
    assert set(theirs) == {name for layer in LAYERS for name in layer.caffe}
    for name, expected in theirs.items():
        actual = ours[layer_name(name, checkpoint.spec)]
        assert relative_error(actual, expected) < 1e-12, name


@pytest.mark.parametrize("preset", PRESET_NAMES)
@pytest.mark.parametrize("num_classes", [0, 7])
def test_every_network_has_its_layers_by_any_name_and_all_of_them(
    preset: str, num_classes: int
) -> None:
    spec = preset_spec(preset, num_classes=num_classes)
    shapes = spec.layer_shapes()
    assert layer_names(["all"], spec) == tuple(shapes)
    for layer in LAYERS:
        for name in (layer.name, *layer.torchvision, *layer.caffe):
            if layer.name in shapes:
                assert layer_names([name], spec) == (layer.name,)
            else:
                with pytest.raises(UsageError):
                    layer_name(name, spec)
    assert set(shapes) <= {layer.name for layer in LAYERS}
    assert all(shapes[n] == shapes[n.removesuffix("_pre")] for n in shapes if n.endswith("_pre"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["fc9"], "layer 'fc9' does not exist in this torchvision network; did you mean fc"),
        (["feature.0"], r"did you mean features\.0\? choose from: conv1_pre, conv1, pool1, "),
        (["xyzzy"], "xyzzy' does not exist in this torchvision network; choose from: conv1_pre"),
        (["norm1"], "'norm1' does not exist in this torchvision network"),
        (["x" * 1000], f"layer '{'x' * 100}' does not"),
        (["relu7", "fc7"], r"one or more different ones, got relu7 \(fc7\), fc7"),
        (["fc7", "all"], "all is every one; name no other beside it"),
        ([], "got none"),
    ],
)
def test_what_is_no_layer_is_answered_with_what_may_be_meant(
    given: list[str], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        layer_names(given, PRESETS["torchvision"])
    with pytest.raises(UsageError, match="no head, so it has no logits"):
        layer_name("fc8", preset_spec("paper", num_classes=0))


def test_the_table_of_the_page_is_that_of_the_code() -> None:
    section = PAGE.read_text("utf-8").partition("\n## Layers\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.*) \|$", section, re.MULTILINE)
    shapes = PRESETS["paper"].layer_shapes()
    assert [re.sub(r"[` ]", "", row).split("|") for row in rows] == [
        [
            layer.name,
            "x".join(map(str, shapes[layer.name])),
            layer.relu,
            ",".join(layer.torchvision),
            ",".join(layer.caffe),
        ]
        for layer in LAYERS
    ]
    assert list(shapes) == [layer.name for layer in LAYERS]
