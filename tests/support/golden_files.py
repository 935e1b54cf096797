"""The files in which AlexNets are published and trained, each as its program writes it.

Their arrays have the names and the order that they have there; only their widths are small, so that
a file has 72 MB of the usual 244.
"""

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from tests.support.caffe_networks import (
    Arrays,
    in_old_format,
    layers_of,
    old_blob,
    snapshot,
    train_val,
)
from tests.support.caffe_writer import binary
from tests.support.golden_networks import LAYERS, Family, mean_image, weights

if TYPE_CHECKING:
    import torch

Array = NDArray[Any]
Writer = Callable[[Path], Path]

TORCHVISION = (
    *("features.0", "features.3", "features.6", "features.8", "features.10"),
    *("classifier.1", "classifier.4", "classifier.6"),
)
CADENE = (*(f"_{name}" for name in TORCHVISION[:5]), "linear0", "linear1", "last_linear")


@dataclass(frozen=True)
class Published:
    """A file and what it must be known to be.

    Attributes:
        network: in `golden_networks.NETWORKS`; the preset, too, which must be said: no public
            network has so few weights.
        write: writes it into a folder.
        needs: the packages that write or read it.
        has_mean: a mean photograph comes with it.
    """

    network: str
    write: Writer
    needs: str = "numpy"
    has_mean: bool = False


def named(family: Family, layers: Sequence[str], wrap: str = "{}") -> dict[str, Array]:
    """Return the weights under other names of their layers, and within others."""
    new = dict(zip(LAYERS, layers, strict=True))
    return {
        wrap.format(f"{new[layer]}.{part}"): array
        for (layer, part), array in (
            ((*name.split("."),), array) for name, array in weights(family).items()
        )
    }


def _tensors(wrap: str = "{}", layers: Sequence[str] = TORCHVISION) -> "dict[str, torch.Tensor]":
    torch = pytest.importorskip("torch", reason="writing torch's files needs torch")
    arrays = named("torchvision", layers, wrap)
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _torch(file_name: str, content: Callable[[], Any], *, is_zip: bool = True) -> Writer:
    def write(folder: Path) -> Path:
        value = content()
        import torch

        path = folder / file_name
        torch.save(value, path, _use_new_zipfile_serialization=is_zip)
        return path

    return write


def _imagenet_example() -> dict[str, Any]:
    """Return what examples/imagenet/main.py saves: DataParallel around the convolutions only."""
    tensors = _tensors()
    state = {name.replace("features.", "features.module."): t for name, t in tensors.items()}
    momentum = {
        index: {"momentum_buffer": tensor.new_zeros(()).expand(tensor.shape).clone()}
        for index, tensor in enumerate(tensors.values())
        if tensor.numel() < 2**20
    }
    groups = [{"lr": 0.01, "momentum": 0.9, "params": list(range(16))}]
    return {
        "epoch": 90,
        "arch": "alexnet",
        "state_dict": state,
        "best_acc1": tensors["features.0.bias"].new_tensor(56.5),
        "optimizer": {"state": momentum, "param_groups": groups},
        "scheduler": {"step_size": 30, "gamma": 0.1, "base_lrs": [0.01], "last_epoch": 90},
    }


def _lightning() -> dict[str, Any]:
    score = _tensors()["classifier.6.bias"].new_tensor(0.57)
    return {
        "epoch": 89,
        "global_step": 450_000,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": _tensors("model.{}"),
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"current": {"ready": 90}}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'val_acc'}": {"best_model_score": score}},
        "optimizer_states": [{"state": {}, "param_groups": [{"lr": 0.01}]}],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": {"lr": 0.01, "num_classes": 10},
    }


def _safetensors(family: Family, layers: Sequence[str]) -> Writer:
    def write(folder: Path) -> Path:
        save_file(named(family, layers), folder / "model.safetensors", {"format": "pt"})
        return folder / "model.safetensors"

    return write


def _config(folder: Path) -> None:
    config = {"architectures": ["AlexNetForImageClassification"], "num_labels": 10}
    (folder / "config.json").write_text(json.dumps(config))


def _hub(folder: Path) -> Path:
    _config(folder)
    arrays = named("torchvision", TORCHVISION, "alexnet.{}")
    save_file(arrays, folder / "model.safetensors", {"format": "pt"})
    return folder


def _hub_in_shards(folder: Path) -> Path:
    _config(folder)
    arrays = list(named("torchvision", TORCHVISION, "alexnet.{}").items())
    weight_map: dict[str, str] = {}
    for number, part in enumerate((arrays[:13], arrays[13:]), 1):
        shard = f"model-{number:05}-of-00002.safetensors"
        save_file(dict(part), folder / shard, {"format": "pt"})
        weight_map |= {name: shard for name, _ in part}
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def _hub_of_torch(folder: Path) -> Path:
    _config(folder)
    _torch("pytorch_model.bin", lambda: _tensors("alexnet.{}"))(folder)
    return folder


def _caffe(name: str, preset: str, *, is_old: bool) -> Writer:
    """Return what writes a snapshot of Caffe's training, in its own format or that of 2014."""

    def write(folder: Path) -> Path:
        arrays = weights("grouped")
        blobs: Arrays = {at: (arrays[f"{at}.weight"], arrays[f"{at}.bias"]) for at in LAYERS}
        net = train_val(layers_of(preset))
        net = in_old_format(snapshot(net, blobs, old_blob)) if is_old else snapshot(net, blobs)
        path = folder / f"{name}.caffemodel"
        path.write_bytes(binary(net))
        return path

    return write


def write_mean(folder: Path) -> Path:
    """Write Caffe's mean photograph."""
    path = folder / "imagenet_mean.binaryproto"
    path.write_bytes(binary(old_blob(mean_image()), "blob"))
    return path


def _zoo(*, is_pooled_first: bool) -> Writer:
    """Return what writes the Model Zoo's file: onnx's own copy of it without numbers, filled."""

    def write(folder: Path) -> Path:
        import onnx
        from onnx import numpy_helper

        model = onnx.load(light_bvlc_alexnet())
        graph = model.graph
        nodes = [node for node in graph.node if node.op_type != "ConstantOfShape"]
        if is_pooled_first:
            nodes = _pooled_first(nodes)
        arrays = {
            f"{layer}_{part[0]}_0": weights("grouped")[f"{layer}.{part}"]
            for layer in LAYERS
            for part in ("weight", "bias")
        }
        arrays["OC2_DUMMY_1"] = np.array([1, 8 * 6 * 6], np.int64)
        del graph.node[:], graph.initializer[:], graph.input[1:]
        graph.node.extend(nodes)
        for name, array in arrays.items():
            tensor = numpy_helper.from_array(array, name)
            graph.initializer.append(tensor)
            shape = list(array.shape)
            graph.input.append(onnx.helper.make_tensor_value_info(name, tensor.data_type, shape))
        graph.output[0].type.tensor_type.shape.dim[1].dim_value = 10
        onnx.save(model, folder / "model.onnx")
        return folder / "model.onnx"

    return write


def light_bvlc_alexnet() -> Path:
    """Return the Model Zoo's network as the onnx package has it: one number for all weights."""
    onnx = pytest.importorskip("onnx")
    data = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    return data / "light_bvlc_alexnet.onnx"


def _pooled_first(nodes: list[Any]) -> list[Any]:
    """Let each LRN and the pooling after it change places, as in CaffeNet."""
    for at in [at for at, node in enumerate(nodes) if node.op_type == "LRN"]:
        norm, pool = nodes[at : at + 2]
        source, middle, end = norm.input[0], norm.output[0], pool.output[0]
        pool.input[0], pool.output[0] = source, middle
        norm.input[0], norm.output[0] = middle, end
        nodes[at : at + 2] = [pool, norm]
    return nodes


def _torch_export(folder: Path) -> Path:
    import torch
    from torch import nn

    arrays = weights("torchvision")
    convolutions = [nn.Conv2d(3, 8, 11, 4, 2), nn.Conv2d(8, 12, 5, padding=2)]
    convolutions += [nn.Conv2d(i, o, 3, padding=1) for i, o in ((12, 16), (16, 10), (10, 8))]
    features: list[nn.Module] = []
    for number, convolution in enumerate(convolutions, 1):
        features += [convolution, nn.ReLU(inplace=True)]
        features += [nn.MaxPool2d(3, 2)] if number in (1, 2, 5) else []
    classifier = [
        *(nn.Dropout(), nn.Linear(288, 4096), nn.ReLU(inplace=True)),
        *(nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Linear(4096, 10)),
    ]
    module = nn.Sequential()
    module.add_module("features", nn.Sequential(*features))
    module.add_module("avgpool", nn.AdaptiveAvgPool2d((6, 6)))
    module.add_module("flatten", nn.Flatten())
    module.add_module("classifier", nn.Sequential(*classifier))
    state = named("torchvision", TORCHVISION)
    module.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    assert len(state) == len(arrays)
    path = folder / "alexnet.onnx"
    with warnings.catch_warnings(action="ignore"):
        images = (torch.zeros(1, 3, 224, 224),)
        torch.onnx.export(module.eval(), images, path, dynamo=False, input_names=["x"])
    return path


PUBLISHED: Mapping[str, Published] = {
    "torchvision .pth": Published("torchvision", _torch("alexnet.pth", _tensors), "torch"),
    "torchvision .pth before torch 1.6": Published(
        "torchvision", _torch("alexnet.pth", _tensors, is_zip=False), "torch"
    ),
    "PyTorch's ImageNet example": Published(
        "torchvision", _torch("checkpoint.pth.tar", _imagenet_example), "torch"
    ),
    "Lightning": Published("torchvision", _torch("epoch=89.ckpt", _lightning), "torch"),
    "Cadene": Published(
        "torchvision", _torch("alexnet.pth", lambda: _tensors(layers=CADENE)), "torch"
    ),
    "Hugging Face, safetensors": Published("torchvision", _hub),
    "Hugging Face, two shards": Published("torchvision", _hub_in_shards),
    "Hugging Face, pytorch_model.bin": Published("torchvision", _hub_of_torch, "torch"),
    "torch.onnx.export": Published("torchvision", _torch_export, "torch"),
    "the paper's towers": Published("paper", _safetensors("grouped", LAYERS)),
    "bvlc_alexnet": Published("caffe", _caffe("bvlc_alexnet", "caffe", is_old=True)),
    "bvlc_alexnet in Caffe's newer format": Published(
        "caffe", _caffe("bvlc_alexnet", "caffe", is_old=False)
    ),
    "bvlc_reference_caffenet with its mean": Published(
        "caffenet", _caffe("bvlc_reference_caffenet", "caffenet", is_old=True), has_mean=True
    ),
    "the Model Zoo's bvlcalexnet": Published("caffe-224", _zoo(is_pooled_first=False)),
    "the Model Zoo's caffenet": Published("caffenet-224", _zoo(is_pooled_first=True)),
    "ungrouped": Published(
        "ungrouped", _safetensors("ungrouped", [f"layers.{name}" for name in LAYERS])
    ),
}
