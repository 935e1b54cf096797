"""Read and write `.pt` files; the only module that imports torch.

Files are read with `weights_only=True`, so a pickle that would run code is rejected. bfloat16,
which NumPy lacks, is widened to float32, exactly.
"""

import io
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from alexnet_deploy.errors import IncompatibleFileError, MissingPackageError
from alexnet_deploy.files.output_files import atomic_write
from alexnet_deploy.files.path_text import path_base64
from alexnet_deploy.model.pickles import MAX_BYTES, CostlyPickleError, check_cost
from alexnet_deploy.model.spec import SPEC_KEY

try:
    import torch
except ImportError as error:
    raise MissingPackageError("torch", "torch", "reading a .pt file") from error

ARRAYS_KEY = "arrays"
# What training programs save beside weights, by what torch's reader puts into it: attributes, items
# by key, items in order. It is read as data and left aside: none of it runs.
_BESIDE = {
    "object": (
        *("argparse.Namespace", "types.SimpleNamespace", "typing.Any"),
        *("numpy.dtype", "numpy.ndarray"),
        *("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"),
        *("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"),
        *("pathlib.Path", "pathlib.PosixPath", "pathlib.WindowsPath", "pathlib.PurePosixPath"),
        *("datetime.datetime", "datetime.date", "datetime.timedelta"),
        *(f"builtins.{name}" for name in ("bool", "int", "float", "str", "list", "tuple", "dict")),
        *("omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig"),
        *("omegaconf.base.ContainerMetadata", "omegaconf.base.Metadata", "omegaconf.nodes.AnyNode"),
    ),
    "dict": (
        "collections.defaultdict",
        "pytorch_lightning.utilities.parsing.AttributeDict",
        "lightning.fabric.utilities.data.AttributeDict",
        "lightning_fabric.utilities.data.AttributeDict",
    ),
    "list": ("collections.deque",),
}
_MOST_NESTED, _MOST_CHARACTERS = 8, 1000
"""Of dicts in one another, and of a tensor's name."""
_REMEDY = "torch.save(model.state_dict(), path)"
_NUM_LEGACY_PICKLES = 5
"""At the beginning of a file of torch before 1.6; the numbers follow."""


def read_pt(path: Path) -> tuple[dict[str, NDArray[Any]], str | None]:
    """Return the arrays of a `.pt` file and, if the file is ours, its spec as JSON.

    Of another program's file these are all its tensors, those of an optimizer included, each under
    the keys that lead to it: `state_dict.features.0.weight`.

    Raises:
        IncompatibleFileError: unreadable, would run code, or holds no tensors.
    """
    content = _load(path)
    spec = content.get(SPEC_KEY) if isinstance(content, dict) else None
    if spec is None:
        tensors = dict(_tensors(content, "", _MOST_NESTED, set()))
    else:
        tensors = dict(_tensors(content.get(ARRAYS_KEY), "", 1, set()))
    if not tensors:
        raise IncompatibleFileError(
            f"{path}: holds no weights; expected a state dict: a dict of name to tensor, alone or "
            f"in the dicts that a trainer saves; save one: {_REMEDY}"
        )
    return _arrays(path, tensors), spec


def write_pt(
    path: Path,
    spec_json: str,
    arrays: Mapping[str, NDArray[Any]],
    training_state: Mapping[str, Any] | None = None,
) -> None:
    """Write arrays and spec, plus whatever a trainer needs to resume.

    Raises:
        OutputError: the file cannot be written.
    """
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    content = {SPEC_KEY: spec_json, ARRAYS_KEY: tensors, **(training_state or {})}
    # In memory first: torch hides file errors behind its own.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with atomic_write(path) as file:
        file.write(buffer.getbuffer())


def _load(path: Path) -> Any:
    try:
        # Only the zip format, written since torch 1.6, can be memory-mapped, and by a UTF-8 path.
        is_zip = _is_zip(path)
        mmap = is_zip and path_base64(path) is None
        if is_zip:
            _check_sums(path)
        _check_pickles(path, is_zip=is_zip)
        with warnings.catch_warnings():  # what it warns about is rejected below
            warnings.simplefilter("ignore")
            kinds = {"object": _ObjectBeside, "dict": _DictBeside, "list": _ListBeside}
            beside: list[Any] = [
                (kinds[kind], name) for kind, names in _BESIDE.items() for name in names
            ]
            with torch.serialization.safe_globals(beside):
                return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # torch propagates whatever its unpickler raises
        raise IncompatibleFileError(f"{path}: {_reason(error)}") from error


def _is_zip(path: Path) -> bool:
    """Return whether torch takes a file for an archive: by its beginning, zipfile by its end."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\3\4"


def _check_sums(path: Path) -> None:
    """Reject a damaged file; torch does not verify its checksums.

    It does not compress either, nor name the same bytes twice: a member that is compressed, or
    members that overlap, would make a small file cost minutes.
    """
    with zipfile.ZipFile(path) as file:
        members = file.infolist()
        for member in members:
            if member.compress_type != zipfile.ZIP_STORED:
                raise zipfile.BadZipFile(f"{member.filename[:100]} in it is compressed")
        if sum(member.file_size for member in members) > path.stat().st_size:
            raise zipfile.BadZipFile("parts of it overlap")
        damaged = file.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"the checksum of {damaged[:100]} in it is wrong")


def _check_pickles(path: Path, *, is_zip: bool) -> None:
    """Reject a file whose pickles could take for ever, before torch reads them."""
    with path.open("rb") as file:
        if is_zip:
            # By torch's own reader, which finds a member by other rules than Python's.
            content = torch._C.PyTorchFileReader(file).get_record("data.pkl")
        else:
            content = file.read(MAX_BYTES)
    if len(content) > MAX_BYTES:
        raise CostlyPickleError(f"describes its tensors in more than {MAX_BYTES:,} bytes")
    pickles = io.BytesIO(content)
    for _ in range(1 if is_zip else _NUM_LEGACY_PICKLES):
        check_cost(pickles)


def _reason(error: Exception) -> str:
    """Explain why torch rejects a file; its own message advises disabling the protection."""
    text = str(error)
    if "TorchScript" in text:
        return f"is a TorchScript archive, expected a state dict; save one: {_REMEDY}"
    # An unsupported operand means another kind of file; anything else, a pickle with objects.
    if isinstance(error, pickle.UnpicklingError) and "Unsupported operand" not in text:
        names = re.search(r"GLOBAL ([\w.]+)", text)
        held = names[1] if names else "more than tensors"
        return (
            f"rejected, because reading it would run code (it holds {held}); "
            f"where it was made, save the state dict alone: {_REMEDY}"
        )
    if isinstance(error, CostlyPickleError):
        return f"rejected: it {error}, as no checkpoint does; save the state dict alone: {_REMEDY}"
    if isinstance(error, zipfile.BadZipFile):
        return f"is damaged ({error}); copy it again"
    return f"not a readable torch file ({type(error).__name__}); copy it again, or save: {_REMEDY}"


class _ObjectBeside:
    """Stands for any object that is left aside."""

    def __init__(self, *arguments: object, **options: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class _DictBeside:
    """Makes the plain dict into which alone torch's reader puts items by key."""

    def __new__(cls, *arguments: object) -> dict[object, object]:  # type: ignore[misc]
        return {}


class _ListBeside:
    """Makes the plain list to which alone torch's reader appends."""

    def __new__(cls, *arguments: object) -> list[object]:  # type: ignore[misc]
        return []


def _tensors(
    value: Any, prefix: str, depth: int, seen: set[int]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors of nested dicts, of each dict once, however often it is held."""
    if not isinstance(value, dict) or id(value) in seen:
        return
    seen.add(id(value))
    for key, item in value.items():
        # Another key's text can be far longer than the file: tuples that hold one tuple twice.
        if not isinstance(key, str | int) or len(name := f"{prefix}{key}") > _MOST_CHARACTERS:
            continue
        if isinstance(item, torch.Tensor):
            yield name, item
        elif depth > 1:
            yield from _tensors(item, f"{name}.", depth - 1, seen)


def _arrays(path: Path, tensors: dict[str, torch.Tensor]) -> dict[str, NDArray[Any]]:
    """Return tensors as arrays; those that have all their numbers in common have them still.

    Raises:
        IncompatibleFileError: the others have more numbers than the file, before they are copied
            apart; or one is no array.
    """
    keys = {name: _key(tensor) or name for name, tensor in tensors.items()}
    first = {keys[name]: name for name in reversed(tensors)}
    apart = [tensors[name] for key, name in first.items() if key != name]
    size = sum(tensor.numel() * tensor.element_size() for tensor in apart)
    if size > path.stat().st_size:
        raise IncompatibleFileError(
            f"{path}: its tensors have {size:,} bytes, more than the file: some share their "
            "numbers; save each with its own: {name: tensor.clone() for name, tensor in ...}"
        )
    arrays = {key: _array(path, name, tensors[name]) for key, name in first.items()}
    return {name: arrays[keys[name]] for name in tensors}


def _key(tensor: torch.Tensor) -> tuple[object, ...] | None:
    """Return what two tensors have in common that are the same; None of what is no array."""
    if tensor.layout != torch.strided or tensor.device.type != "cpu":
        return None
    return tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


def _array(path: Path, name: str, tensor: torch.Tensor) -> NDArray[Any]:
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    try:
        array: NDArray[Any] = tensor.detach().contiguous().numpy()
    except (TypeError, RuntimeError) as error:
        kind = str(tensor.dtype).removeprefix("torch.")
        layout = str(tensor.layout).removeprefix("torch.")
        raise IncompatibleFileError(
            f"{path}: {name} is a tensor of {kind}, {layout}, on {tensor.device}; expected a dense "
            "(strided) one of floats on the CPU; convert it with tensor.to_dense().float()"
        ) from error
    return array
