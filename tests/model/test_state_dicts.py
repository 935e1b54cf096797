"""Other programs' state dicts: their keys, their shapes, what beside them is ignored."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from alexnet_deploy.model.state_dicts import adopt_state_dict
from numpy.typing import NDArray
from safetensors.numpy import save_file

from alexnet_deploy.errors import IncompatibleFileError
from alexnet_deploy.model.checkpoints import load_checkpoint
from alexnet_deploy.model.labels import imagenet_labels
from tests.support.networks import random_checkpoint

torch = pytest.importorskip("torch", reason="reading .pt files needs torch")

TORCHVISION = [
    "features.0",
    "features.3",
    "features.6",
    "features.8",
    "features.10",
    "classifier.1",
    "classifier.4",
    "classifier.6",
]
LAYERS = ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"]


def torchvision_arrays() -> dict[str, NDArray[Any]]:
    checkpoint = random_checkpoint("torchvision", factored=False)
    return {
        f"{key}.{part}": checkpoint.arrays[f"{layer}.{part}"]
        for key, layer in zip(TORCHVISION, LAYERS, strict=True)
        for part in ("weight", "bias")
    }


def tensors(arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def test_torchvisions_state_dict_is_recognized_and_read_as_it_is(tmp_path: Path) -> None:
    arrays = torchvision_arrays()
    torch.save(tensors(arrays), tmp_path / "alexnet.pt")
    checkpoint = load_checkpoint(tmp_path / "alexnet.pt")
    assert checkpoint.spec.preset == "torchvision"
    assert checkpoint.spec.num_classes == 11
    np.testing.assert_array_equal(checkpoint.arrays["fc6.weight"], arrays["classifier.1.weight"])
    np.testing.assert_array_equal(checkpoint.arrays["conv5.bias"], arrays["features.10.bias"])


def test_a_thousand_torchvision_classes_are_imagenets() -> None:
    arrays = torchvision_arrays()
    arrays["classifier.6.weight"] = np.zeros((1000, 4096), np.float32)
    arrays["classifier.6.bias"] = np.zeros(1000, np.float32)
    spec, _ = adopt_state_dict(arrays, preset=None, source="x.pt")
    assert spec.labels == imagenet_labels()
    assert spec.labels[0] == "tench, Tinca tinca"
    assert len(spec.labels) == 1000


@pytest.mark.parametrize("preset", ["caffe", "caffenet"])
def test_a_thousand_classes_of_caffes_networks_are_imagenets_too(preset: str) -> None:
    arrays = dict(random_checkpoint(preset).arrays)
    arrays["fc8.weight"] = np.zeros((1000, 4096), np.float32)
    arrays["fc8.bias"] = np.zeros(1000, np.float32)
    spec, _ = adopt_state_dict(arrays, preset=preset, source="x.pt")
    assert spec.labels == imagenet_labels()


@pytest.mark.parametrize(
    "wrapped",
    [
        "module.{}",
        "_orig_mod.{}",
        "module.model.{}",
        "model.module.{}",
        "model._orig_mod.{}",
        "_orig_mod.module.model.{}",
        "model.model.{}",
    ],
)
def test_wrapped_keys_are_unwrapped(wrapped: str) -> None:
    arrays = torchvision_arrays()
    state = {wrapped.format(name): array for name, array in arrays.items()}
    spec, named = adopt_state_dict(state, preset=None, source="x.pt")
    assert spec.preset == "torchvision"
    assert named["conv1.weight"] is arrays["features.0.weight"]


@pytest.mark.parametrize("outer", ["", "module."])
def test_a_wrapper_around_the_features_alone_is_dropped(outer: str) -> None:
    """As in the ImageNet example of PyTorch, which spreads the convolutions only."""
    state = {
        outer + name.replace("features.", "features.module."): array
        for name, array in torchvision_arrays().items()
    }
    assert "features.module.0.weight" in next(iter(state))
    assert adopt_state_dict(state, preset=None, source="x.pt")[0].preset == "torchvision"


def test_a_model_held_twice_is_refused() -> None:
    arrays = torchvision_arrays()
    averaged = {f"module.{name}": array for name, array in arrays.items()}
    with pytest.raises(IncompatibleFileError, match=r"holds features\.0\.weight twice"):
        adopt_state_dict(arrays | averaged, preset=None, source="x.pt")


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_weights_are_found_beside_what_a_training_script_saves(tmp_path: Path, key: str) -> None:
    """The ImageNet example of PyTorch saves its best accuracy as a tensor beside the weights."""
    content = {
        "epoch": 3,
        "arch": "alexnet",
        "best_acc1": torch.tensor(56.5),
        key: tensors(torchvision_arrays()),
        "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": []},
    }
    torch.save(content, tmp_path / "a.pt")
    checkpoint = load_checkpoint(tmp_path / "a.pt")
    assert checkpoint.spec.preset == "torchvision"
    assert set(checkpoint.arrays) == set(checkpoint.spec.array_shapes())


def test_any_alexnet_is_read_with_its_preset_whatever_its_names() -> None:
    arrays = dict(random_checkpoint("paper", factored=False).arrays)
    foreign = {
        f"block{index // 2}.{name.split('.')[1]}": array
        for index, (name, array) in enumerate(arrays.items())
    }
    assert len(foreign) == 16
    spec, named = adopt_state_dict(foreign, preset="paper", source="x.pt")
    assert spec.preset == "paper"
    assert spec.num_classes == 11
    for name, array in arrays.items():
        assert named[name] is array


@pytest.mark.parametrize("order", [sorted, lambda names: sorted(names, reverse=True)])
def test_the_order_of_the_arrays_does_not_matter(order: Callable[[Any], list[str]]) -> None:
    arrays = dict(random_checkpoint("paper", factored=False).arrays)
    foreign = {f"x{name}": arrays[name] for name in order(arrays)}
    spec, named = adopt_state_dict(foreign, preset="paper", source="x.pt")
    assert spec.num_classes == 11
    assert all(named[name] is array for name, array in arrays.items())


def square_arrays(prefix: str) -> dict[str, NDArray[Any]]:
    """Return a network of 4096 classes, whose fc7 and fc8 have the same shape."""
    arrays = dict(random_checkpoint("paper", factored=False).arrays)
    arrays["fc8.weight"] = np.zeros((4096, 4096), np.float32)
    arrays["fc8.bias"] = np.zeros(4096, np.float32)
    return {f"{prefix}{name}": array for name, array in arrays.items()}


def test_4096_classes_are_read_by_the_papers_names_and_refused_under_others() -> None:
    spec, named = adopt_state_dict(square_arrays(""), preset="paper", source="x.pt")
    assert spec.num_classes == 4096
    assert not named["fc8.weight"].any()
    with pytest.raises(IncompatibleFileError, match=r"for fc7 and one.*xfc7.*xfc8.*rename"):
        adopt_state_dict(square_arrays("x"), preset="paper", source="x.pt")


def test_two_layers_that_could_be_the_last_are_refused() -> None:
    arrays = dict(random_checkpoint("paper", factored=False).arrays)
    arrays["head.weight"] = np.zeros((7, 4096), np.float32)
    with pytest.raises(IncompatibleFileError, match=r"fc8\.weight \[11, 4096\], head\.weight \[7"):
        adopt_state_dict(arrays, preset="paper", source="x.pt")


def test_factors_under_the_papers_names_are_taken_with_a_preset(tmp_path: Path) -> None:
    original = random_checkpoint("torchvision")
    save_file(dict(original.arrays), tmp_path / "a.safetensors")
    checkpoint = load_checkpoint(tmp_path / "a.safetensors", preset="torchvision")
    assert checkpoint.identity == original.identity
    with pytest.raises(IncompatibleFileError, match="say which AlexNet it is"):
        load_checkpoint(tmp_path / "a.safetensors")


@pytest.mark.parametrize("shape", [(), (0, 4096), (11,)])
def test_a_last_layer_without_classes_is_refused(shape: tuple[int, ...]) -> None:
    arrays = torchvision_arrays() | {"classifier.6.weight": np.zeros(shape, np.float32)}
    with pytest.raises(IncompatibleFileError, match="fc8's weight is"):
        adopt_state_dict(arrays, preset=None, source="x.pt")


def test_caffes_weights_are_turned_from_bgr_to_rgb() -> None:
    arrays = dict(random_checkpoint("caffe", factored=False).arrays)
    _, named = adopt_state_dict(arrays, preset="caffe", source="x.pt")
    np.testing.assert_array_equal(named["conv1.weight"][:, 0], arrays["conv1.weight"][:, 2])


def test_an_unknown_state_dict_asks_for_the_preset() -> None:
    arrays = {"a.weight": np.zeros((3, 3), np.float32)}
    with pytest.raises(IncompatibleFileError, match=r"a\.weight.*--preset paper\|torchvision"):
        adopt_state_dict(arrays, preset=None, source="x.pt")


def test_a_wrong_preset_names_the_shape_that_is_missing() -> None:
    with pytest.raises(IncompatibleFileError, match=r"\[96, 3, 11, 11\].*conv1\.weight"):
        adopt_state_dict(torchvision_arrays() | {"x": np.zeros(1)}, preset="paper", source="x.pt")


def test_an_array_too_many_is_named() -> None:
    arrays = dict(random_checkpoint("paper", factored=False).arrays)
    arrays["bn1.running_mean"] = np.zeros(96, np.float32)
    with pytest.raises(IncompatibleFileError, match=r"bn1\.running_mean is not part"):
        adopt_state_dict(arrays, preset="paper", source="x.pt")
