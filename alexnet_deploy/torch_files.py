"""Read and write `.pt` files; the only module that imports torch.

Files are read with `weights_only=True`, so a pickle that would run code is refused. bfloat16
tensors become float32, which holds them exactly; NumPy has no bfloat16.
"""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from alexnet_deploy.errors import IncompatibleFileError, MissingPackageError
from alexnet_deploy.output_files import atomic_write

try:
    import torch
except ImportError as error:
    raise MissingPackageError("torch", "torch", "reading a .pt file") from error

SPEC_KEY, ARRAYS_KEY = "alexnet_deploy.spec", "arrays"
# Where training scripts put the weights beside optimiser and progress.
_NESTED = ("state_dict", "model_state_dict", "model", "net", "weights")


def read_pt(path: Path) -> tuple[dict[str, NDArray[Any]], str | None]:
    """Return the arrays of a `.pt` file and, if the file is ours, its spec as JSON.

    Raises:
        IncompatibleFileError: unreadable, would run code, or holds no tensors.
    """
    try:
        # Only the zip format, written since torch 1.6, can be memory-mapped.
        mmap = zipfile.is_zipfile(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # torch passes on whatever its unpickler meets
        text = str(error) or type(error).__name__
        unsafe = isinstance(error, pickle.UnpicklingError) and "Unsupported" in text
        problem = "refused, because reading it would run code" if unsafe else "no torch file"
        raise IncompatibleFileError(
            f"{path}: {problem} ({text.splitlines()[0]}); save a plain state dict instead: "
            "torch.save(model.state_dict(), path)"
        ) from error
    spec = content.get(SPEC_KEY) if isinstance(content, dict) else None
    tensors = content.get(ARRAYS_KEY) if spec is not None else _state_dict(content)
    arrays = {
        str(name): _array(tensor)
        for name, tensor in (tensors or {}).items()
        if isinstance(tensor, torch.Tensor)
    }
    if not arrays:
        raise IncompatibleFileError(
            f"{path}: holds no weights; expected a state dict: a dict of name to tensor, "
            f"alone or under one of {', '.join(_NESTED)}"
        )
    return arrays, spec


def write_pt(
    path: Path,
    spec_json: str,
    arrays: Mapping[str, NDArray[Any]],
    training_state: Mapping[str, Any] | None = None,
) -> None:
    """Write arrays and spec, with whatever a trainer needs to resume beside them.

    Raises:
        OutputError: the file cannot be written.
    """
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    content = {SPEC_KEY: spec_json, ARRAYS_KEY: tensors, **(training_state or {})}
    with atomic_write(path) as file:
        torch.save(content, file)


def _state_dict(content: Any) -> Mapping[Any, Any]:
    if not isinstance(content, dict):
        return {}
    if not any(isinstance(value, torch.Tensor) for value in content.values()):
        for key in _NESTED:
            if isinstance(content.get(key), dict):
                nested: Mapping[Any, Any] = content[key]
                return nested
    return content


def _array(tensor: torch.Tensor) -> NDArray[Any]:
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    array: NDArray[Any] = tensor.detach().contiguous().numpy()
    return array
