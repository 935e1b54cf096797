"""Damaged checkpoints, model files and engines, with sums and hashes made to fit again."""

import dataclasses
import hashlib
import io
import json
import math
import random
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from alexnet_deploy.export.opening import load_model
from alexnet_deploy.graph.build import build_model
from alexnet_deploy.graph.coder_file import write_coder
from alexnet_deploy.graph.model_file import write_model
from alexnet_deploy.graph.reading import read_model
from alexnet_deploy.index.coder import open_coder
from alexnet_deploy.inspection import describe, readable
from alexnet_deploy.model.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from alexnet_deploy.model.spec import SPEC_KEY, ModelSpec, preset_spec
from alexnet_deploy.model.torch_files import ARRAYS_KEY, write_pt
from alexnet_deploy.runtimes.base import usual_outputs
from alexnet_deploy.runtimes.engine_file import read_engine, sidecar_path, write_engine
from fuzzing.kinds import Kind, check
from fuzzing.mutations import CANARY, changed_bytes, changed_json
from tests.support.coders import random_coder, space_of
from tests.support.trt_stub.fake_runtime import FILE

_CODER_SPACE = space_of("logits")
_REPORT = {
    "passed": True,
    "checks": [{"name": "fc7", "measured": "1e-06", "allowed": "<= 1e-04", "passed": True}],
    "runs": "TensorRT 11.4",
    "against": "f" * 64,
    "num_photographs": 3,
    "skipped": [],
}


def model_kinds(seeds: Path) -> list[Kind]:
    """Return the kinds ".safetensors", ".pt", ".onnx", ".engine" and "coder".

    Args:
        seeds: an empty folder for good files.
    """
    # A forked process cannot use the threads of OpenMP that its parent has started.
    torch.set_num_threads(1)
    checkpoint = _checkpoint()
    save_checkpoint(checkpoint, seeds / "m.safetensors")
    write_pt(seeds / "m.pt", checkpoint.spec.to_json(), checkpoint.arrays, {"training": {"a": 1}})
    file = build_model(checkpoint, usual_outputs(checkpoint.spec))
    file = dataclasses.replace(file, report=_REPORT)
    write_model(file, seeds / "m.onnx")
    write_coder(random_coder(_CODER_SPACE), seeds / "coder.onnx")
    record = dataclasses.replace(FILE.record, spec=checkpoint.spec, report=_REPORT)
    write_engine(dataclasses.replace(FILE, record=record), seeds / "m.engine")
    return [
        Kind(name=".safetensors", write=_Safetensors(seeds).write, read=_read_checkpoint),
        Kind(name=".pt", write=_Torch(seeds).write, read=_read_checkpoint),
        Kind(name=".onnx", write=_Onnx(seeds / "m.onnx").write, read=_read_onnx),
        Kind(name=".engine", write=_Engine(seeds).write, read=_read_engine),
        Kind(name="coder", write=_Onnx(seeds / "coder.onnx").write, read=_read_coder),
    ]


def _checkpoint() -> Checkpoint:
    """Return the smallest network, with layers as factors."""
    paper = preset_spec("paper", num_classes=2, labels=("a", "b"))
    spec = dataclasses.replace(
        paper,
        widths=(2, 2, 2, 2, 2),
        input_size=67,
        preprocessing=dataclasses.replace(paper.preprocessing, resize_to=67),
        provenance={"data": {"name": "noise", "photographs": 3}, "top1": 0.5},
    )
    rng = np.random.default_rng(0)
    arrays = {}
    for name, shape in spec.array_shapes().items():
        parts = {name: shape}
        if name in ("fc6.weight", "fc7.weight"):
            parts = {f"{name}.left": (shape[0], 1), f"{name}.right": (1, shape[1])}
        for part, size in parts.items():
            arrays[part] = rng.standard_normal(size, np.float32).astype(np.float16)
    return Checkpoint(spec=spec, arrays=arrays)


class _Safetensors:
    """8 bytes of length, a header in JSON, which holds the spec as JSON in a string, the arrays."""

    def __init__(self, seeds: Path) -> None:
        self._data = (seeds / "m.safetensors").read_bytes()
        end = 8 + struct.unpack("<Q", self._data[:8])[0]
        self._header = json.loads(self._data[8:end])
        self._arrays = self._data[end:]

    def write(self, folder: Path, rng: random.Random) -> None:
        kind = rng.randrange(4)
        if kind == 0:
            data = changed_bytes(self._data, rng)
        elif kind == 1:
            data = self._packed(changed_json(self._header, rng), self._arrays)
        elif kind == 2:
            metadata = self._header["__metadata__"]
            spec = changed_json(json.loads(metadata[SPEC_KEY]), rng)
            header = {**self._header, "__metadata__": {**metadata, SPEC_KEY: spec}}
            data = self._packed(json.dumps(header), self._arrays)
        else:
            data = self._packed(json.dumps(self._header), self._odd_numbers(rng))
        (folder / "m.safetensors").write_bytes(data)

    def _packed(self, header: str, arrays: bytes) -> bytes:
        encoded = header.encode("utf-8", "surrogatepass")
        return struct.pack("<Q", len(encoded)) + encoded + arrays

    def _odd_numbers(self, rng: random.Random) -> bytes:
        numbers = np.frombuffer(self._arrays, np.float16).copy()
        for _ in range(rng.choice((1, 10))):
            odd = rng.choice((math.nan, math.inf, -math.inf, 65504.0, 6e-8, -0.0))
            numbers[rng.randrange(len(numbers))] = odd
        return numbers.tobytes()


class _Torch:
    """A zip with a pickle and the arrays; its checksums are made to fit."""

    def __init__(self, seeds: Path) -> None:
        self._data = (seeds / "m.pt").read_bytes()
        self._content = torch.load(seeds / "m.pt", weights_only=True)
        with zipfile.ZipFile(io.BytesIO(self._data)) as file:
            self._entries = {name: file.read(name) for name in file.namelist()}

    def write(self, folder: Path, rng: random.Random) -> None:
        kind = rng.randrange(4)
        if kind == 0:
            data = changed_bytes(self._data, rng)
        elif kind == 1:
            names = [name for name in self._entries if name.endswith(".pkl")] * 8
            changed = rng.choice(names + list(self._entries))
            data = self._zipped({changed: changed_bytes(self._entries[changed], rng)})
        else:
            content = dict(self._content)
            if kind == 2:
                content[SPEC_KEY] = changed_json(json.loads(content[SPEC_KEY]), rng)
            else:
                content = self._odd_content(content, rng)
            file = io.BytesIO()
            torch.save(content, file)
            data = file.getvalue()
        (folder / "m.pt").write_bytes(data)

    def _zipped(self, changed: dict[str, bytes]) -> bytes:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as target:
            for name, content in (self._entries | changed).items():
                target.writestr(zipfile.ZipInfo(name), content)
        return file.getvalue()

    def _odd_content(self, content: dict[str, Any], rng: random.Random) -> Any:
        """Replace the spec, the arrays, or one of them."""
        arrays = dict(content[ARRAYS_KEY])
        name = rng.choice(list(arrays))
        array = arrays[name]
        odd = [
            *(None, 7, "text", b"\0", [], {}, [array], array.double(), array.int(), array.bool()),
            *(array.to_sparse(), array.bfloat16(), array.reshape(-1)[:0], array.new_zeros(())),
            *(array.expand(3, *array.shape), array * math.nan, array.to("meta"), array.cfloat()),
            *(-array, array.flip(0), array.half(), torch.nn.Parameter(array)),
        ]
        place = rng.randrange(5)
        if place == 0:
            return rng.choice(
                [None, [content], {"state_dict": content}, content[ARRAYS_KEY], array]
            )
        if place == 1:
            return {**content, rng.choice([SPEC_KEY, ARRAYS_KEY]): rng.choice(odd)}
        key = rng.choice([name, name, name, 7, "", "mean_image", f"{name}.left", "conv1.weight"])
        return {**content, ARRAYS_KEY: {**arrays, key: rng.choice(odd)}}


class _Onnx:
    """A protobuf message, whose metadata are strings with JSON in them."""

    def __init__(self, seed: Path) -> None:
        self._graph = onnx.load_model_from_string(seed.read_bytes())

    def write(self, folder: Path, rng: random.Random) -> None:
        model = onnx.ModelProto()
        model.CopyFrom(self._graph)
        kind = rng.randrange(5)
        if kind == 1:
            entry = rng.choice(list(model.metadata_props))
            try:
                entry.value = changed_json(json.loads(entry.value), rng)
            except ValueError:  # a hash, or a lone surrogate
                entry.value = rng.choice(["", "0", "fp64", "\0", "x" * 100_000, "int8"])
        elif kind == 2:
            self._change_array(rng.choice(list(model.graph.initializer)), rng)
        elif kind == 3:
            self._change_graph(model.graph, rng)
        data = model.SerializeToString()
        if kind in (0, 4):
            # Without the arrays a change is more likely to meet what is parsed.
            if kind == 4:
                del model.graph.initializer[:]
            data = changed_bytes(model.SerializeToString(), rng)
        (folder / "m.onnx").write_bytes(data)

    def _change_array(self, tensor: onnx.TensorProto, rng: random.Random) -> None:
        action = rng.randrange(6)
        if action == 0:
            tensor.data_type = rng.choice((0, 2, 3, 6, 8, 9, 10, 11, 14, 16, 17, 22, 23, 99, -1))
        elif action == 1:
            tensor.dims[:] = rng.choice(([], [-1], [0], [2**62, 4], [1] * 70, [2**31, 2**31, 2]))
        elif action == 2:
            tensor.raw_data = changed_bytes(tensor.raw_data, rng)
        elif action == 3:
            tensor.ClearField("raw_data")
        elif action == 4:
            tensor.name = rng.choice(("", "mean", "images", "conv1.weight", "\0"))
        else:
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            location = rng.choice((CANARY, "m.onnx", "/etc/passwd", "", "\0"))
            for key, value in (("location", location), ("offset", "0"), ("length", "8")):
                tensor.external_data.add(key=key, value=value)

    def _change_graph(self, graph: onnx.GraphProto, rng: random.Random) -> None:
        action = rng.randrange(5)
        if action == 0:
            del graph.node[rng.randrange(len(graph.node))]
        elif action == 1:
            graph.node[rng.randrange(len(graph.node))].op_type = rng.choice(("", "Loop", "x" * 999))
        elif action == 2:
            del rng.choice((graph.initializer, graph.output, graph.input))[:]
        elif action == 3:
            graph.output.extend(list(graph.output) * 3)
        else:
            node = rng.choice(list(graph.node))
            node.input[:] = rng.choice(([], [""], ["nowhere"], list(node.output)))


class _Engine:
    """A sidecar in JSON with a hash of itself, and a plan with its hash in that."""

    def __init__(self, seeds: Path) -> None:
        self._plan = (seeds / "m.engine").read_bytes()
        self._fields = json.loads(sidecar_path(seeds / "m.engine").read_bytes())

    def write(self, folder: Path, rng: random.Random) -> None:
        path = folder / "m.engine"
        path.write_bytes(self._plan if rng.random() < 0.95 else changed_bytes(self._plan, rng))
        kind = rng.randrange(5)
        text = json.dumps(self._fields)
        if kind == 0:
            sidecar_path(path).write_bytes(changed_bytes(text.encode(), rng))
            return
        rest = {name: value for name, value in self._fields.items() if name != "record_sha256"}
        name = rng.choice(["spec", "report", "profile"])
        text = changed_json(rest, rng)
        if kind == 1:
            part = changed_json(rest.pop(name), rng)
            text = f'{json.dumps(rest)[:-1]}, "{name}": {part}}}'
        try:
            hashed = json.dumps(json.loads(text), sort_keys=True)
            digest = hashlib.sha256(hashed.encode()).hexdigest()
        except (ValueError, TypeError, RecursionError):
            digest = "0" * 64
        text = f'{{"record_sha256": "{digest}", {text[1:]}' if text[:1] == "{" else text
        sidecar_path(path).write_bytes(text.encode("utf-8", "surrogatepass"))


def _read_checkpoint(folder: Path) -> None:
    (path,) = folder.glob("m.*")
    checkpoint = load_checkpoint(path)
    _check_spec(checkpoint.spec)
    for name, shape in checkpoint.spec.array_shapes().items():
        weights = (
            checkpoint.dense(name.removesuffix(".weight"), np.dtype(np.float32))
            if (name.endswith(".weight"))
            else checkpoint.arrays[name]
        )
        check(weights.shape == shape, f"{name} is {weights.shape}, not {shape}")
        check(bool(np.isfinite(checkpoint.arrays.get(name, np.zeros(1))).all()), f"{name}: NaN")
    readable(describe(path))


def _read_onnx(folder: Path) -> None:
    path = folder / "m.onnx"
    file = read_model(path)
    _check_spec(file.spec)
    tensors = onnx.load_model_from_string(path.read_bytes()).graph.initializer
    is_whole = all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in tensors)
    check(is_whole, "a weight was read from another file")
    readable(describe(path))
    file.weights()
    loaded = load_model(path)
    check(loaded.is_unchanged(), "changed, and loaded")


def _read_coder(folder: Path) -> None:
    path = folder / "m.onnx"
    coder = open_coder(path, _CODER_SPACE)
    codes = coder.codes(np.ones((1, _CODER_SPACE.dimension), np.float16))
    check(codes.shape == (1, coder.widths[-1] // 8), f"codes are {codes.shape}")
    readable(describe(path))


def _read_engine(folder: Path) -> None:
    path = folder / "m.engine"
    file = read_engine(path)
    _check_spec(file.record.spec)
    check(file.plan == path.read_bytes(), "another plan")
    readable(describe(path))


def _check_spec(spec: ModelSpec) -> None:
    check(ModelSpec.from_json(spec.to_json(), "again") == spec, "the spec does not survive JSON")
