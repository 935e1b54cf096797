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
from numpy.typing import NDArray
from safetensors.numpy import save_file

from tests.support import golden_networks
from tests.support.caffe_networks import (
    Arrays,
    in_old_format,
    layers_of,
    old_blob,
    snapshot,
    train_val,
)
from tests.support.caffe_writer import binary
from tests.support.golden_networks import LAYERS, NETWORKS

if TYPE_CHECKING:
    import torch

Weights = Mapping[str, NDArray[Any]]
"""By the paper's names."""
Writer = Callable[[Path, Weights], Path]

TORCHVISION = (
    *("features.0", "features.3", "features.6", "features.8", "features.10"),
    *("classifier.1", "classifier.4", "classifier.6"),
)
CADENE = (*(f"_{name}" for name in TORCHVISION[:5]), "linear0", "linear1", "last_linear")


@dataclass(frozen=True)
class Published:
    """A file and what it must be known to be.

    Attributes:
        network: in `golden_networks.NETWORKS`; the preset, too, which must be said where a file
            has fewer weights than any that is public.
        writer: writes weights into a folder, and says where.
        needs: the package that writes it, and reads it.
        has_mean: a mean photograph comes with it.
    """

    network: str
    writer: Writer
    needs: str = "numpy"
    has_mean: bool = False

    def write(self, folder: Path, *, is_small: bool = True) -> Path:
        """Write it, with `golden_networks.weights`."""
        weights = golden_networks.weights(NETWORKS[self.network].family, is_small=is_small)
        return self.writer(folder, weights)


def named(
    weights: Weights, layers: Sequence[str] = TORCHVISION, wrap: str = "{}"
) -> dict[str, NDArray[Any]]:
    """Return weights under other names of their layers, and within others."""
    new = dict(zip(LAYERS, layers, strict=True))
    parts = [name.split(".") for name in weights]
    return {
        wrap.format(f"{new[layer]}.{part}"): weights[f"{layer}.{part}"] for layer, part in parts
    }


def _tensors(
    weights: Weights, wrap: str = "{}", layers: Sequence[str] = TORCHVISION
) -> "dict[str, torch.Tensor]":
    import torch

    arrays = named(weights, layers, wrap)
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _torch(file_name: str, content: Callable[[Weights], Any], *, is_zip: bool = True) -> Writer:
    def write(folder: Path, weights: Weights) -> Path:
        import torch

        path = folder / file_name
        torch.save(content(weights), path, _use_new_zipfile_serialization=is_zip)
        return path

    return write


def _imagenet_example(weights: Weights) -> dict[str, Any]:
    """Return what examples/imagenet/main.py saves: DataParallel around the convolutions only."""
    tensors = _tensors(weights)
    state = {name.replace("features.", "features.module."): t for name, t in tensors.items()}
    # Of the convolutions alone, as of a run that trained no others: half the file.
    momentum = {
        index: {"momentum_buffer": tensor.clone()}
        for index, (name, tensor) in enumerate(tensors.items())
        if name.startswith("features")
    }
    groups = [{"lr": 0.01, "momentum": 0.9, "params": list(momentum)}]
    return {
        "epoch": 90,
        "arch": "alexnet",
        "state_dict": state,
        "best_acc1": tensors["features.0.bias"].new_tensor(56.5),
        "optimizer": {"state": momentum, "param_groups": groups},
        "scheduler": {"step_size": 30, "gamma": 0.1, "base_lrs": [0.01], "last_epoch": 90},
    }


def _lightning(weights: Weights) -> dict[str, Any]:
    tensors = _tensors(weights, "model.{}")
    score = tensors["model.classifier.6.bias"].new_tensor(0.57)
    return {
        "epoch": 89,
        "global_step": 450_000,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": tensors,
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"current": {"ready": 90}}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'val_acc'}": {"best_model_score": score}},
        "optimizer_states": [{"state": {}, "param_groups": [{"lr": 0.01}]}],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": {"lr": 0.01, "num_classes": 10},
    }


def _safetensors(layers: Sequence[str], wrap: str = "{}") -> Writer:
    def write(folder: Path, weights: Weights) -> Path:
        path = folder / "model.safetensors"
        save_file(named(weights, layers, wrap), path, {"format": "pt"})
        return path

    return write


def _hub(write_weights: Writer) -> Writer:
    """Return what writes a directory of the Hugging Face hub, its weights as `write_weights`."""

    def write(folder: Path, weights: Weights) -> Path:
        config = {"architectures": ["AlexNetForImageClassification"], "model_type": "alexnet"}
        (folder / "config.json").write_text(json.dumps(config))
        write_weights(folder, weights)
        return folder

    return write


def _two_shards(folder: Path, weights: Weights) -> Path:
    arrays = list(named(weights, wrap="alexnet.{}").items())
    weight_map: dict[str, str] = {}
    for number, part in enumerate((arrays[:13], arrays[13:]), 1):
        shard = f"model-{number:05}-of-00002.safetensors"
        save_file(dict(part), folder / shard, {"format": "pt"})
        weight_map |= {name: shard for name, _ in part}
    size = sum(array.nbytes for _, array in arrays)
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {"total_size": size}, "weight_map": weight_map}))
    return path


def _caffe(name: str, preset: str, *, is_old: bool) -> Writer:
    """Return what writes a snapshot of Caffe's training, in its own format or that of 2014."""

    def write(folder: Path, weights: Weights) -> Path:
        blobs: Arrays = {at: (weights[f"{at}.weight"], weights[f"{at}.bias"]) for at in LAYERS}
        net = train_val(layers_of(preset))
        net = in_old_format(snapshot(net, blobs, old_blob)) if is_old else snapshot(net, blobs)
        path = folder / f"{name}.caffemodel"
        path.write_bytes(binary(net))
        return path

    return write


def write_mean(folder: Path) -> Path:
    """Write Caffe's mean photograph."""
    path = folder / "imagenet_mean.binaryproto"
    path.write_bytes(binary(old_blob(golden_networks.mean_image()), "blob"))
    return path


def light_bvlc_alexnet() -> Path:
    """Return the Model Zoo's network as the onnx package has it: one number for all weights."""
    import onnx

    data = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    return data / "light_bvlc_alexnet.onnx"


def _zoo(*, is_pooled_first: bool) -> Writer:
    """Return what writes the Model Zoo's file: onnx's own copy of it without numbers, filled."""

    def write(folder: Path, weights: Weights) -> Path:
        import onnx
        from onnx import helper, numpy_helper

        model = onnx.load(light_bvlc_alexnet())
        graph = model.graph
        nodes = [node for node in graph.node if node.op_type != "ConstantOfShape"]
        nodes = _pooled_first(nodes) if is_pooled_first else nodes
        arrays = {
            f"{layer}_{part[0]}_0": weights[f"{layer}.{part}"]
            for layer in LAYERS
            for part in ("weight", "bias")
        }
        arrays["OC2_DUMMY_1"] = np.array([1, weights["fc6.weight"].shape[1]], np.int64)
        tensors = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
        del graph.node[:], graph.initializer[:], graph.input[1:]
        graph.node.extend(nodes)
        graph.initializer.extend(tensors)
        graph.input.extend(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            for tensor in tensors
        )
        graph.output[0].type.tensor_type.shape.dim[1].dim_value = len(weights["fc8.bias"])
        path = folder / ("caffenet-9.onnx" if is_pooled_first else "bvlcalexnet-9.onnx")
        onnx.save(model, path)
        return path

    return write


def _pooled_first(nodes: list[Any]) -> list[Any]:
    """Let each LRN and the pooling after it change places, as in CaffeNet."""
    for at in [at for at, node in enumerate(nodes) if node.op_type == "LRN"]:
        norm, pool = nodes[at : at + 2]
        source, middle, end = norm.input[0], norm.output[0], pool.output[0]
        pool.input[0], pool.output[0] = source, middle
        norm.input[0], norm.output[0] = middle, end
        nodes[at : at + 2] = [pool, norm]
    return nodes


def _torch_export(folder: Path, weights: Weights) -> Path:
    import torch
    from torch import nn

    features: list[nn.Module] = []
    for number in range(1, 6):
        outputs, inputs, side, _ = weights[f"conv{number}.weight"].shape
        stride, padding = (4, 2) if number == 1 else (1, side // 2)
        features += [nn.Conv2d(inputs, outputs, side, stride, padding), nn.ReLU(inplace=True)]
        features += [nn.MaxPool2d(3, 2)] if number in (1, 2, 5) else []
    last = nn.Linear(4096, len(weights["fc8.bias"]))
    classifier = [
        *(nn.Dropout(), nn.Linear(weights["fc6.weight"].shape[1], 4096), nn.ReLU(inplace=True)),
        *(nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(inplace=True), last),
    ]
    module = nn.Sequential()
    module.add_module("features", nn.Sequential(*features))
    module.add_module("avgpool", nn.AdaptiveAvgPool2d((6, 6)))
    module.add_module("flatten", nn.Flatten())
    module.add_module("classifier", nn.Sequential(*classifier))
    module.load_state_dict(_tensors(weights))
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
        "torchvision", _torch("alexnet.pth", lambda w: _tensors(w, layers=CADENE)), "torch"
    ),
    "Hugging Face, safetensors": Published(
        "torchvision", _hub(_safetensors(TORCHVISION, "alexnet.{}"))
    ),
    "Hugging Face, two shards": Published("torchvision", _hub(_two_shards)),
    "Hugging Face, pytorch_model.bin": Published(
        "torchvision",
        _hub(_torch("pytorch_model.bin", lambda w: _tensors(w, "alexnet.{}"))),
        "torch",
    ),
    "torch.onnx.export": Published("torchvision", _torch_export, "torch"),
    "the paper's towers": Published("paper", _safetensors(LAYERS)),
    "bvlc_alexnet": Published("caffe", _caffe("bvlc_alexnet", "caffe", is_old=True)),
    "bvlc_alexnet in Caffe's newer format": Published(
        "caffe", _caffe("bvlc_alexnet", "caffe", is_old=False)
    ),
    "bvlc_reference_caffenet with its mean": Published(
        "caffenet", _caffe("bvlc_reference_caffenet", "caffenet", is_old=True), has_mean=True
    ),
    "the Model Zoo's bvlcalexnet": Published("caffe-224", _zoo(is_pooled_first=False)),
    "the Model Zoo's caffenet": Published("caffenet-224", _zoo(is_pooled_first=True)),
    "ungrouped": Published("ungrouped", _safetensors(LAYERS, "layers.{}")),
}
