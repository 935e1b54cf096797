"""Trained weights with their spec, in `.safetensors` files or torch's.

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
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.errors import IncompatibleFileError, MissingPackageError
from alexnet_deploy.files.input_files import existing_file
from alexnet_deploy.files.output_files import atomic_write
from alexnet_deploy.model.ranges import check_range, largest_sum, magnitude
from alexnet_deploy.model.spec import SPEC_KEY, ModelSpec

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

    def with_labels(self, labels: tuple[str, ...]) -> "Checkpoint":
        """Return it with other class names.

        Raises:
            IncompatibleFileError: not one for each class.
        """
        if len(labels) != self.spec.num_classes:
            raise IncompatibleFileError(
                f"there are {len(labels)} labels for {self.spec.num_classes} classes; give one "
                "label per line, in the order of the outputs"
            )
        spec = dataclasses.replace(self.spec, labels=labels)
        return dataclasses.replace(self, spec=spec)

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


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint of ours and check every array.

    Args:
        path: in either format, whatever its name; torch's needs torch, and loading it never runs
            code. `importing.opening` reads other programs' files, too.

    Raises:
        IncompatibleFileError: unreadable, without a spec, with a missing, extra, misshapen or
            non-finite array, or with numbers so large that the network could overflow.
        MissingPackageError: a torch file, and torch is not installed.
        UsageError: the file is missing or not readable.
    """
    existing_file(path, f"a checkpoint: {', '.join(CHECKPOINT_SUFFIXES)}")
    with path.open("rb") as file:
        is_torch = file.read(4).startswith((b"PK", b"\x80"))
    arrays, spec_json = read_arrays(path, "torch" if is_torch else "safetensors")
    if spec_json is None:
        raise IncompatibleFileError(
            f"{path}: has no alexnet-deploy spec; import it: alexnet-deploy import FILE -o CKPT"
        )
    return checkpoint_of(arrays, spec_json, path)


def checkpoint_of(arrays: Mapping[str, NDArray[Any]], spec_json: str, path: Path) -> Checkpoint:
    """Return what `read_arrays` read from a file of ours, checked.

    Raises:
        IncompatibleFileError: as `load_checkpoint`.
    """
    spec = ModelSpec.from_json(spec_json, str(path))
    return checked(arrays, spec, str(path), "its arrays do not match its spec: write it again")


def checked(
    arrays: Mapping[str, NDArray[Any]], spec: ModelSpec, source: str, remedy: str
) -> Checkpoint:
    """Return arrays under the paper's names as a checkpoint, if they are one.

    Raises:
        IncompatibleFileError: naming the first that is missing, extra, misshapen, of another type
            or not finite; or with numbers so large that the network could overflow.
    """
    _check_shapes(arrays, spec, source, remedy)
    sums = {
        name: largest_sum(_checked_magnitude(array, f"{source}: array {name}"), array.shape)
        for name, array in arrays.items()
    }
    checkpoint = Checkpoint(spec=spec, arrays=arrays)
    check_range(spec, sums, magnitude(checkpoint.mean()), source)
    return checkpoint


def read_arrays(
    path: Path, kind: Literal["torch", "safetensors"]
) -> tuple[Mapping[str, NDArray[Any]], str | None]:
    """Return a file's arrays by name and, if it is ours, its spec as JSON; nothing is checked.

    Raises:
        IncompatibleFileError: unreadable, would run code, or without arrays of numbers.
        MissingPackageError: a torch file, and torch is not installed.
    """
    if kind == "safetensors":
        return _read_safetensors(path)
    from alexnet_deploy.model.torch_files import read_pt

    return read_pt(path)


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write `.safetensors`; reading it back gives the same identity.

    Raises:
        OutputError: the file cannot be written.
    """
    arrays = {name: np.ascontiguousarray(array) for name, array in checkpoint.arrays.items()}
    with atomic_write(path) as file:
        file.write(save(arrays, {SPEC_KEY: checkpoint.spec.to_json()}))


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
