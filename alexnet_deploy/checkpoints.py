"""Trained weights with their spec: `.safetensors` files, `.pt` files, torch state dicts.

Arrays go by the paper's names, `conv1.weight` .. `fc8.bias`; convolutions are
(out, in / groups, kernel, kernel), fully connected layers (out, in). `fc6` and `fc7` may be
stored as two factors, `fc6.weight.left` (out, rank) and `fc6.weight.right` (rank, in). An optional
`mean_image` (3, S, S), RGB in grey levels, takes the place of the spec's channel means; its
central window is subtracted, as in the 2012 code.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from alexnet_deploy.errors import IncompatibleFileError, UsageError
from alexnet_deploy.model_spec import ModelSpec
from alexnet_deploy.output_files import atomic_write
from alexnet_deploy.state_dicts import adopt_state_dict

SPEC_KEY = "alexnet_deploy.spec"
FACTORED = ("fc6", "fc7")
_FLOATS = (np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64))


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """Weights as stored (float16, float32 or float64; factored or not) and their spec."""

    spec: ModelSpec
    arrays: Mapping[str, NDArray[Any]]

    @cached_property
    def digests(self) -> dict[str, str]:
        """Line of dtype, shape and sha256 of the bytes of each array, by name, sorted."""
        names = sorted(self.arrays)
        with ThreadPoolExecutor() as threads:  # hashlib releases the GIL on large buffers
            lines = threads.map(lambda name: array_digest(self.arrays[name]), names)
            return dict(zip(names, lines, strict=True))

    @cached_property
    def fingerprint(self) -> str:
        """Sha256 over the arrays as stored and the fields of the spec that change results."""
        return fingerprint(self.spec, self.digests)

    def dense(self, layer: str, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return the weight matrix of `layer` ("conv1" .. "fc8") in `dtype`, factors multiplied."""
        name = f"{layer}.weight"
        if name in self.arrays:
            return self.arrays[name].astype(dtype, copy=False)
        left, right = self.arrays[f"{name}.left"], self.arrays[f"{name}.right"]
        product: NDArray[Any] = left.astype(dtype) @ right.astype(dtype)
        return product

    def mean(self) -> NDArray[np.float64]:
        """Return what is subtracted from a crop, RGB in grey levels: (3, 1, 1) or (3, H, W)."""
        if "mean_image" not in self.arrays:
            return np.array(self.spec.preprocessing.mean, np.float64).reshape(3, 1, 1)
        image, size = self.arrays["mean_image"], self.spec.input_size
        start = round((image.shape[1] - size) / 2)
        return image[:, start : start + size, start : start + size].astype(np.float64)

    def num_parameters(self) -> int:
        """Count weights and biases of the dense network (mean image and factors not counted)."""
        return sum(int(np.prod(shape)) for shape in self.spec.array_shapes().values())


def array_digest(array: NDArray[Any]) -> str:
    """Return `dtype shape sha256` of one array."""
    digest = hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
    return f"{array.dtype.name} {list(array.shape)} {digest}"


def fingerprint(spec: ModelSpec, digests: Mapping[str, str]) -> str:
    """Return the sha256 that names a vector space: what is computed, with which numbers."""
    lines = [json.dumps(spec.identity(), sort_keys=True)]
    lines += [f"{name} {digests[name]}" for name in sorted(digests)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def load_checkpoint(
    path: Path, *, preset: str | None = None, labels: tuple[str, ...] | None = None
) -> Checkpoint:
    """Read a checkpoint and check every array.

    Args:
        path: `.safetensors`, or `.pt` / `.pth` (these need torch, and are never unpickled into
            code): ours, a torchvision state dict, or another AlexNet's state dict.
        preset: which AlexNet a state dict without a spec of ours is; see `state_dicts`.
        labels: class names in place of the file's own.

    Raises:
        IncompatibleFileError: unreadable, foreign, or with a missing, extra, misshapen or
            non-finite array.
        MissingPackageError: a `.pt` file, and torch is not installed.
        UsageError: there is no such file.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such checkpoint; give a .safetensors, .pt or .pth file")
    if path.suffix == ".safetensors":
        arrays, spec_json = _read_safetensors(path)
    else:
        from alexnet_deploy.torch_files import read_pt

        arrays, spec_json = read_pt(path)
    if spec_json is not None:
        if preset is not None:
            raise IncompatibleFileError(
                f"{path}: carries its own spec, so --preset {preset} cannot apply; leave it out"
            )
        spec = ModelSpec.from_json(spec_json)
    else:
        spec, arrays = adopt_state_dict(arrays, preset=preset, source=str(path))
    if labels is not None:
        if len(labels) != spec.num_classes:
            raise IncompatibleFileError(
                f"{path}: has {spec.num_classes} classes, the labels file names {len(labels)}; "
                "give one label a line, in the order of the outputs"
            )
        spec = dataclasses.replace(spec, labels=labels)
    _check_arrays(arrays, spec, str(path))
    return Checkpoint(spec=spec, arrays=arrays)


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write `.safetensors`; the fingerprint of what is read back is the same.

    Raises:
        OutputError: the file cannot be written.
    """
    arrays = {name: np.ascontiguousarray(array) for name, array in checkpoint.arrays.items()}
    with atomic_write(path) as file:
        file.write(save(arrays, {SPEC_KEY: checkpoint.spec.to_json()}))


def read_labels(path: Path) -> tuple[str, ...]:
    """Read class names, one a line, UTF-8; empty lines at the end are ignored.

    Raises:
        IncompatibleFileError: not a text file, or a line without a name.
    """
    try:
        lines = path.read_text("utf-8").rstrip().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise IncompatibleFileError(
            f"{path}: labels cannot be read ({error}); expected UTF-8 text, one label a line"
        ) from error
    labels = tuple(line.strip() for line in lines)
    if not all(labels):
        raise IncompatibleFileError(
            f"{path}: line {labels.index('') + 1} is empty; expected one label a line"
        )
    return labels


def _read_safetensors(path: Path) -> tuple[dict[str, NDArray[Any]], str | None]:
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            names = list(file.keys())
            return {name: file.get_tensor(name) for name in names}, metadata.get(SPEC_KEY)
    except (OSError, SafetensorError, TypeError, ValueError, AttributeError) as error:
        raise IncompatibleFileError(
            f"{path}: not a readable safetensors file ({error}); "
            "it may be truncated: copy or download it again"
        ) from error


def _check_arrays(arrays: Mapping[str, NDArray[Any]], spec: ModelSpec, source: str) -> None:
    """Refuse a missing, extra, misshapen or non-finite array, naming the first one."""
    expected: dict[str, tuple[int, ...]] = {}
    for name, shape in spec.array_shapes().items():
        factors = (f"{name}.left", f"{name}.right")
        if name.split(".")[0] in FACTORED and name not in arrays and factors[0] in arrays:
            rank = arrays[factors[0]].shape[-1]
            expected |= {factors[0]: (shape[0], rank), factors[1]: (rank, shape[1])}
        else:
            expected[name] = shape
    if "mean_image" in arrays:
        side = spec.preprocessing.resize_to
        if arrays["mean_image"].shape != (3, spec.input_size, spec.input_size):
            expected["mean_image"] = (3, side, side)
        else:
            expected["mean_image"] = (3, spec.input_size, spec.input_size)
    remedy = f"this is no {spec.preset} AlexNet of {spec.num_classes} classes; see --preset"
    for name, shape in expected.items():
        if name not in arrays:
            raise IncompatibleFileError(
                f"{source}: array {name} {list(shape)} is missing; {remedy}"
            )
        if arrays[name].shape != shape:
            raise IncompatibleFileError(
                f"{source}: array {name} is {list(arrays[name].shape)}, "
                f"expected {list(shape)}; {remedy}"
            )
    for name, array in arrays.items():
        if name not in expected:
            raise IncompatibleFileError(f"{source}: array {name} is not part of it; {remedy}")
        if array.dtype not in _FLOATS:
            raise IncompatibleFileError(
                f"{source}: array {name} is {array.dtype}, expected float16, float32 or float64; "
                "convert it first"
            )
        # A sum is finite only if every term is: five times faster than isfinite on 61 M numbers.
        if not np.isfinite(array.sum(dtype=np.float64)):
            bad = int(array.size - np.isfinite(array).sum())
            raise IncompatibleFileError(
                f"{source}: array {name} holds {bad} values that are NaN or infinite; "
                "the training run diverged or the file is damaged: use an earlier checkpoint"
            )
