"""Damaged files of other programs: torch's, Caffe's with its prototxt, ONNX's, and directories.

Layers fc6 and fc7 have eight outputs, also in the process that reads, but in `.onnx` files, where
fc7 is one number.
"""

import io
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
from safetensors.numpy import load

from alexnet_deploy.importing import matching
from alexnet_deploy.importing.adoption import ImportOptions
from alexnet_deploy.importing.opening import import_weights
from alexnet_deploy.model import spec
from fuzzing.kinds import Kind, check
from fuzzing.mutations import changed_bytes, changed_json
from tests.support.caffe_networks import in_old_format, old_blob, snapshot, train_val, weights
from tests.support.caffe_networks import layers_of as caffe_layers
from tests.support.caffe_writer import binary, prototxt
from tests.support.foreign_onnx import KerasWriter, ZooWriter, small_checkpoint
from tests.support.known_tables import FC_WIDTH, published

_Write = Callable[[Path, random.Random], None]
_INDEX = "model.safetensors.index.json"


def foreign_kinds() -> list[Kind]:
    """Return the kinds "torch", "caffe", "onnx" and "directory"."""
    writes: dict[str, _Write] = {
        "torch": _Torch().write,
        "caffe": _Caffe().write,
        "directory": _write_directory,
    }
    kinds = [Kind(name=name, write=write, read=_read_small) for name, write in writes.items()]
    return [*kinds, Kind(name="onnx", write=_Onnx().write, read=_read)]


class _Torch:
    """Both formats, with what a trainer saves beside the weights."""

    def __init__(self) -> None:
        tensors = {name: torch.from_numpy(array) for name, array in load(published()).items()}
        content = {"epoch": 3, "arch": "alexnet", "state_dict": tensors, "optimizer": [{"lr": 0.1}]}
        zipped, legacy = io.BytesIO(), io.BytesIO()
        torch.save(content, zipped)
        torch.save(content, legacy, _use_new_zipfile_serialization=False)
        self._legacy = legacy.getvalue()
        with zipfile.ZipFile(zipped) as file:
            self._entries = {name: file.read(name) for name in file.namelist()}

    def write(self, folder: Path, rng: random.Random) -> None:
        path = folder / "a"
        if rng.random() < 0.5:
            path.write_bytes(changed_bytes(self._legacy, rng))
            return
        (pickle,) = (name for name in self._entries if name.endswith("data.pkl"))
        name = rng.choice([pickle, pickle, *self._entries])
        with zipfile.ZipFile(path, "w") as file:
            changed = {name: changed_bytes(self._entries[name], rng)}
            for entry, content in (self._entries | changed).items():
                file.writestr(zipfile.ZipInfo(entry), content)


class _Caffe:
    """Both formats of the binary, and the network as text."""

    def __init__(self) -> None:
        net, arrays = train_val(caffe_layers()), weights(hidden=FC_WIDTH)
        old = snapshot(net, arrays, old_blob)
        self._files = [binary(snapshot(net, arrays)), binary(in_old_format(old))]
        self._text = prototxt(net).encode()

    def write(self, folder: Path, rng: random.Random) -> None:
        content, kind = rng.choice(self._files), rng.randrange(3)
        (folder / "a").write_bytes(content if kind == 0 else changed_bytes(content, rng))
        if kind < 2:
            text = self._text if kind else changed_bytes(self._text, rng)
            (folder / "a.prototxt").write_bytes(text)


class _Onnx:
    """Graphs as Caffe2 and tf2onnx write them."""

    def __init__(self) -> None:
        checkpoint = small_checkpoint()
        keras = KerasWriter(checkpoint, 13)
        self._models = [ZooWriter(checkpoint, 9).model(), keras.model(keras.image())]

    def write(self, folder: Path, rng: random.Random) -> None:
        model = onnx.ModelProto()
        model.CopyFrom(rng.choice(self._models))
        node = rng.choice(list(model.graph.node))
        kind = rng.randrange(5)
        if kind == 0:
            node.op_type = rng.choice(list(model.graph.node)).op_type
        elif kind == 1 and node.attribute:
            attribute = rng.choice(list(node.attribute))
            attribute.i = rng.choice((-1, 0, 2, 2**62))
            attribute.ints[:] = rng.choice(([], [-1], [2**62] * 2, [1] * 70))
        elif kind == 2:
            tensor = rng.choice(list(model.graph.initializer))
            tensor.dims[:] = rng.choice(([], [0], [-1], [2**62, 4], [1] * 70))
        elif kind == 3:
            (image, *_) = model.graph.input
            axis = rng.choice(list(image.type.tensor_type.shape.dim))
            axis.dim_value = rng.choice((-1, 0, 1, 3, 224, 2**62))
        data = model.SerializeToString()
        (folder / "a").write_bytes(changed_bytes(data, rng) if kind == 4 else data)


def _write_directory(folder: Path, rng: random.Random) -> None:
    """Write an index of one shard."""
    content = published()
    names: dict[str, object] = dict.fromkeys(load(content), "model-1.safetensors")
    if rng.random() < 0.5:
        odd = ("../outside/canary.txt", "/etc/passwd", ".", "", _INDEX, "x" * 300, "\0", 7)
        names["x"] = rng.choice(odd)
    index = {"metadata": {"total_size": len(content)}, "weight_map": names}
    text = changed_json(index, rng)
    (folder / _INDEX).write_bytes(text.encode("utf-8", "surrogatepass"))
    (folder / "model-1.safetensors").write_bytes(changed_bytes(content, rng))


def _read_small(folder: Path) -> None:
    """Read what has small layers; this process ends after it."""
    for module in (spec, matching):
        module.__dict__["FC_WIDTH"] = FC_WIDTH
    _read(folder)


def _read(folder: Path) -> None:
    path, text = folder / "a", folder / "a.prototxt"
    options = ImportOptions(preset="torchvision" if not path.exists() else "caffe")
    imported = import_weights(
        path if path.exists() else folder, options, prototxt=text if text.exists() else None
    )
    for name, shape in imported.checkpoint.spec.array_shapes().items():
        array = imported.checkpoint.arrays[name]
        check(array.shape == shape, f"{name} is {array.shape}, not {shape}")
        check(bool(np.isfinite(array).all()), f"{name} is not finite")
