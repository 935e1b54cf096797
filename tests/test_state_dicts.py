"""Other programs' state dicts, as arrays and as `.pt` files."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import random_checkpoint
from numpy.typing import NDArray

from alexnet_deploy.checkpoints import load_checkpoint
from alexnet_deploy.errors import IncompatibleFileError
from alexnet_deploy.state_dicts import adopt_state_dict, imagenet_labels

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


def test_torchvisions_state_dict_is_recognised_and_read_as_it_is(tmp_path: Path) -> None:
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


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module.model."])
@pytest.mark.parametrize("key", [None, "state_dict", "model"])
def test_wrapped_state_dicts_are_unwrapped(tmp_path: Path, prefix: str, key: str | None) -> None:
    state: dict[str, Any] = {
        f"{prefix}{name}": tensor for name, tensor in tensors(torchvision_arrays()).items()
    }
    torch.save(state if key is None else {key: state, "epoch": 3}, tmp_path / "a.pt")
    assert load_checkpoint(tmp_path / "a.pt").spec.preset == "torchvision"


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


def test_our_own_pt_round_trips_with_the_same_fingerprint(tmp_path: Path) -> None:
    from alexnet_deploy.torch_files import write_pt

    checkpoint = random_checkpoint("paper")
    state = {"optimizer": {"lr": 0.01, "step": torch.tensor(7)}}
    write_pt(tmp_path / "a.pt", checkpoint.spec.to_json(), checkpoint.arrays, state)
    loaded = load_checkpoint(tmp_path / "a.pt")
    assert loaded.spec == checkpoint.spec
    assert loaded.fingerprint == checkpoint.fingerprint


def test_bfloat16_tensors_become_float32(tmp_path: Path) -> None:
    state = {name: tensor.bfloat16() for name, tensor in tensors(torchvision_arrays()).items()}
    torch.save(state, tmp_path / "a.pt")
    arrays = load_checkpoint(tmp_path / "a.pt").arrays
    expected = state["features.0.bias"].float().numpy()
    np.testing.assert_array_equal(arrays["conv1.bias"], expected)


class _RunsCode:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("this must never be printed",))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], zipped: bool
) -> None:
    path = tmp_path / "a.pt"
    torch.save(
        {"a.weight": torch.zeros(2), "b": _RunsCode()}, path, _use_new_zipfile_serialization=zipped
    )
    with pytest.raises(IncompatibleFileError, match=r"refused, because reading it would run code"):
        load_checkpoint(path)
    path.write_bytes(pickle.dumps(_RunsCode()))
    with pytest.raises(IncompatibleFileError):
        load_checkpoint(path)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b"<html>", b"\x80\x04."])
def test_a_file_that_is_no_torch_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(content)
    with pytest.raises(IncompatibleFileError, match=r"a\.pt: "):
        load_checkpoint(path)


def test_a_file_without_weights_says_what_was_expected(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "a.pt")
    with pytest.raises(IncompatibleFileError, match="holds no weights; expected a state dict"):
        load_checkpoint(tmp_path / "a.pt")
