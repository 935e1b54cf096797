"""Trained weights with their spec: `.safetensors` files, `.pt` files, torch state dicts.

Arrays have the paper's names, `conv1.weight` .. `fc8.bias`; convolutions are (out, in / groups,
kernel, kernel), fully connected layers (out, in). `fc6` and `fc7` may be stored as two factors,
`fc6.weight.left` (out, rank) and `fc6.weight.right` (rank, in). An optional `mean_image` (3, S, S),
RGB in grey levels, replaces the spec's channel means; its centre crop is subtracted, as in the
2012 code. bfloat16, which NumPy lacks, is widened to float32, exactly.
"""

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.errors import (
    Argument,
    IncompatibleFileError,
    Message,
    MissingPackageError,
    UsageError,
)
from alexnet_deploy.files.input_files import existing_file
from alexnet_deploy.files.output_files import atomic_write
from alexnet_deploy.model.ranges import check_range, largest_sum, magnitude
from alexnet_deploy.model.spec import SPEC_KEY, ModelSpec
from alexnet_deploy.model.state_dicts import adopt_state_dict

try:
    from safetensors import SafetensorError, deserialize, safe_open
    from safetensors.numpy import save
except ImportError as error:
    raise MissingPackageError("safetensors", "cpu", "reading a checkpoint") from error

CHECKPOINT_SUFFIXES = (".safetensors", ".pt", ".pth")
FACTORED = ("fc6", "fc7")
_FLOATS = (np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64))


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """Weights as stored (float16, float32 or float64; factored or not) and their spec."""

    spec: ModelSpec
    arrays: Mapping[str, NDArray[Any]]

    @cached_property
    def identity(self) -> str:
        """See `identity`; a checkpoint's is that of its fp32 `.onnx` file, which reads `mean`."""
        read = {name: array for name, array in self.arrays.items() if name != "mean_image"}
        return identity(self.spec, read | {"mean": self.mean()[np.newaxis]})

    def dense(self, layer: str, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return the weight matrix of `layer` ("conv1" .. "fc8") in `dtype`, factors multiplied."""
        name = f"{layer}.weight"
        if name in self.arrays:
            return self.arrays[name].astype(dtype, copy=False)
        left, right = self.arrays[f"{name}.left"], self.arrays[f"{name}.right"]
        product: NDArray[Any] = left.astype(dtype) @ right.astype(dtype)
        return product

    def mean(self) -> NDArray[np.float64]:
        """Return the mean subtracted from a crop, RGB in grey levels: (3, 1, 1) or (3, H, W)."""
        if "mean_image" not in self.arrays:
            return np.array(self.spec.preprocessing.mean, np.float64).reshape(3, 1, 1)
        image, size = self.arrays["mean_image"], self.spec.input_size
        start = round((image.shape[1] - size) / 2)
        return image[:, start : start + size, start : start + size].astype(np.float64)


def identity(spec: ModelSpec, arrays: Mapping[str, NDArray[Any]]) -> str:
    """Return the SHA-256 of all that decides what a network computes.

    Args:
        spec: its fields that change results count.
        arrays: as its graph reads them; floating-point arrays count widened to float32, integers
            as they are.
    """
    lines = [json.dumps(spec.result_fields(), sort_keys=True)]
    names = sorted(arrays)
    with ThreadPoolExecutor() as threads:  # hashlib releases the GIL on large buffers
        digests = threads.map(lambda name: _digest(arrays[name]), names)
        lines += [f"{name} {digest}" for name, digest in zip(names, digests, strict=True)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def widened(array: NDArray[Any]) -> NDArray[np.float32]:
    """Return floating-point numbers as float32, the array itself where they are."""
    if array.dtype != np.float16:
        return array.astype(np.float32, copy=False)
    # By a table: NumPy takes five times as long for subnormal numbers, of which weights have many.
    return _all_float16()[array.view(np.uint16)]


@functools.cache
def _all_float16() -> NDArray[np.float32]:
    return np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)


def _digest(array: NDArray[Any]) -> str:
    """Return `dtype shape sha256` of one array."""
    wide = array if array.dtype.kind in "iu" else widened(array)
    digest = hashlib.sha256(np.ascontiguousarray(wide).data).hexdigest()
    return f"{wide.dtype.name} {list(wide.shape)} {digest}"


def load_checkpoint(
    path: Path, *, preset: str | None = None, labels: tuple[str, ...] | None = None
) -> Checkpoint:
    """Read a checkpoint and check every array.

    Args:
        path: `.safetensors`, or `.pt` / `.pth` (these need torch, and loading them never runs
            code): ours, a torchvision state dict, or another AlexNet's state dict.
        preset: which AlexNet a state dict without our spec is; see `state_dicts`.
        labels: class names that replace the file's own.

    Raises:
        IncompatibleFileError: unreadable, not recognized, with a missing, extra, misshapen or
            non-finite array, or with numbers so large that the network could overflow.
        MissingPackageError: a `.pt` file, and torch is not installed.
        UsageError: the file is missing or not readable, or it has its own spec and `preset` is
            given.
    """
    arrays, spec_json = _read(path)
    if spec_json is None:
        spec, arrays = adopt_state_dict(arrays, preset=preset, source=str(path))
        remedy = Message(
            f"this is not a {spec.preset} AlexNet with {spec.num_classes} classes: see ",
            Argument("preset"),
        )
    elif preset is not None:
        raise UsageError(
            f"{path}: has its own spec, so ",
            Argument("preset", preset),
            " does not apply; omit it",
        )
    else:
        spec = ModelSpec.from_json(spec_json, str(path))
        remedy = Message("its arrays do not match its spec: write it again")
    if labels is not None:
        if len(labels) != spec.num_classes:
            raise IncompatibleFileError(
                f"{path}: has {spec.num_classes} classes, the labels file names {len(labels)}; "
                "give one label per line, in the order of the outputs"
            )
        spec = dataclasses.replace(spec, labels=labels)
    _check_shapes(arrays, spec, str(path), remedy)
    sums = {
        name: largest_sum(_checked_magnitude(array, f"{path}: array {name}"), array.shape)
        for name, array in arrays.items()
    }
    checkpoint = Checkpoint(spec=spec, arrays=arrays)
    check_range(spec, sums, magnitude(checkpoint.mean()), str(path))
    return checkpoint


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write `.safetensors`; reading it back gives the same identity.

    Raises:
        OutputError: the file cannot be written.
    """
    arrays = {name: np.ascontiguousarray(array) for name, array in checkpoint.arrays.items()}
    with atomic_write(path) as file:
        file.write(save(arrays, {SPEC_KEY: checkpoint.spec.to_json()}))


def _read(path: Path) -> tuple[Mapping[str, NDArray[Any]], str | None]:
    """Return a file's arrays and, if it is ours, its spec as JSON."""
    existing_file(path, f"a checkpoint: {', '.join(CHECKPOINT_SUFFIXES)}")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in CHECKPOINT_SUFFIXES:
        from alexnet_deploy.model.torch_files import read_pt

        return read_pt(path)
    if path.suffix == ".onnx":
        raise UsageError(
            f"{path}: is already a model file; give the checkpoint that it was exported from"
        )
    raise IncompatibleFileError(
        f"{path}: a checkpoint ends in {', '.join(CHECKPOINT_SUFFIXES)}, "
        f"not in {path.suffix or 'no suffix'}; rename it if it is one of them"
    )


def _read_safetensors(path: Path) -> tuple[dict[str, NDArray[Any]], str | None]:
    arrays: dict[str, NDArray[Any]] = {}
    name = kind = ""
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            for name in list(file.keys()):
                kind = file.get_slice(name).get_dtype()
                if kind != "BF16":
                    arrays[name] = file.get_tensor(name)
                elif name not in arrays:
                    arrays |= _bfloat16_arrays(path)
    except (OSError, SafetensorError) as error:
        raise IncompatibleFileError(
            f"{path}: not a readable safetensors file ({error}); "
            "it may be truncated: copy or download it again"
        ) from error
    except (TypeError, AttributeError) as error:  # a dtype that NumPy lacks
        raise IncompatibleFileError(
            f"{path}: array {name} is {kind}, expected float16, bfloat16, float32 or float64; "
            "convert it first"
        ) from error
    return arrays, metadata.get(SPEC_KEY)


def _bfloat16_arrays(path: Path) -> dict[str, NDArray[np.float32]]:
    """Return the bfloat16 arrays as float32, of which they are the upper 16 bits."""
    arrays = {}
    for name, tensor in deserialize(path.read_bytes()):  # type: ignore[no-untyped-call]
        if tensor["dtype"] == "BF16":
            bits = np.frombuffer(tensor["data"], "<u2").astype("<u4") << 16
            arrays[name] = bits.view(np.float32).reshape(tensor["shape"])
    return arrays


def _check_shapes(
    arrays: Mapping[str, NDArray[Any]], spec: ModelSpec, source: str, remedy: str
) -> None:
    """Reject a missing, misshapen or extra array, naming the first one."""
    expected = _expected_shapes(arrays, spec)
    for name, shape in expected.items():
        if name not in arrays:
            raise IncompatibleFileError(
                f"{source}: array {name} {list(shape)} is missing; ", remedy
            )
        if arrays[name].shape != shape:
            came = list(arrays[name].shape)
            raise IncompatibleFileError(
                f"{source}: array {name} is {came}, expected {list(shape)}; ", remedy
            )
    for name in arrays:
        if name not in expected:
            raise IncompatibleFileError(f"{source}: array {name} is unexpected; ", remedy)


def _expected_shapes(
    arrays: Mapping[str, NDArray[Any]], spec: ModelSpec
) -> dict[str, tuple[int, ...]]:
    """Return the spec's shapes, with two factors for each layer that is stored factored."""
    expected: dict[str, tuple[int, ...]] = {}
    for name, shape in spec.array_shapes().items():
        left, right = f"{name}.left", f"{name}.right"
        if name.split(".")[0] in FACTORED and name not in arrays and left in arrays:
            rank = max(1, arrays[left].shape[-1]) if arrays[left].ndim else 1
            expected |= {left: (shape[0], rank), right: (rank, shape[1])}
        else:
            expected[name] = shape
    if "mean_image" in arrays:
        sides = (spec.input_size, spec.preprocessing.resize_to)
        shapes = [(3, side, side) for side in sides]
        came = arrays["mean_image"].shape
        expected["mean_image"] = came if came in shapes else shapes[-1]
    return expected


def _checked_magnitude(array: NDArray[Any], name: str) -> float:
    """Reject integers, NaN, infinity, and values beyond float32, in which networks compute."""
    if array.dtype not in _FLOATS:
        raise IncompatibleFileError(
            f"{name} is {array.dtype}, expected float16, float32 or float64; convert it first"
        )
    largest = magnitude(array)
    if math.isfinite(largest):
        return largest
    with np.errstate(over="ignore"):
        bad = int(array.size - np.isfinite(array.astype(np.float32)).sum())
    raise IncompatibleFileError(
        f"{name} holds {bad} values that are NaN or infinite in float32; "
        "the training run diverged or the file is damaged: use an earlier checkpoint"
    )
