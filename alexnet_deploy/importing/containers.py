"""What kind of file something is, by its first bytes; what is no weights at all is named."""

import re
import zipfile
from pathlib import Path
from typing import Literal

from alexnet_deploy.errors import IncompatibleFileError
from alexnet_deploy.importing.caffe_files import is_caffe_model
from alexnet_deploy.importing.known import file_digests

Container = Literal["torch", "safetensors", "caffe", "onnx"]

_HEAD = 4096
_LFS = b"version https://git-lfs.github.com/spec/"
_OTHERS: tuple[tuple[bytes, str], ...] = (
    (
        b"\x89HDF\r\n\x1a\n",
        "an HDF5 file; convert one of Keras with tf2onnx, have Caffe write BINARYPROTO",
    ),
    (b"\x93NUMPY", "a NumPy array; save the arrays by name as .safetensors"),
    (b"\x1f\x8b", "compressed with gzip; unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it first"),
    (b"GGUF", "a GGUF file, which holds language models"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"%PDF", "a PDF document"),
    (b"ftrt", "a TensorRT engine, which holds no weights that can be taken out"),
)
_AGAIN = "download it again"


def container_of(path: Path) -> Container:
    """Return what kind of file holds weights, whatever its name.

    Raises:
        IncompatibleFileError: it holds none that can be read; the message says what it is.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_HEAD)
    _refuse_what_is_no_file(head, path)
    if head.startswith(b"PK\3\4"):
        return _zip(path)
    if re.match(rb"\x80[\x02-\x05]", head):
        return "torch"
    if int.from_bytes(head[:8], "little") < size and head[8:9] == b"{":
        return "safetensors"
    if is_caffe_model(head):
        return "caffe"
    if _is_onnx(head):
        return "onnx"
    raise IncompatibleFileError(f"{path}: {_unknown(head)}")


def check_own_hash(path: Path) -> None:
    """Hold a file to the hash in its name: `alexnet-owt-7be5be79.pth`.

    A flipped byte in the older of torch's two formats shows nowhere else.

    Raises:
        IncompatibleFileError: it is another.
    """
    # With a letter: `model-20231130.pth` has its date.
    named = re.search(r"-(?=\d*[a-f])([0-9a-f]{8,64})\.pth?$", path.name)
    if named is None:
        return
    came = file_digests(path).sha256
    if not came.startswith(named[1]):
        raise IncompatibleFileError(
            f"{path}: is damaged or another file: its SHA-256 begins with "
            f"{came[: len(named[1])]}, its name says {named[1]}; {_AGAIN}"
        )


def is_web_page(head: bytes) -> bool:
    """Return whether a file that begins with `head` is a page, as servers send for a file."""
    return head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml"))


def _refuse_what_is_no_file(head: bytes, path: Path) -> None:
    """Refuse what a failed download leaves."""
    if not head:
        raise IncompatibleFileError(f"{path}: is empty; {_AGAIN}")
    if head.startswith(_LFS):
        raise IncompatibleFileError(f"{path}: {_pointer(head)}")
    if is_web_page(head):
        raise IncompatibleFileError(
            f"{path}: is a web page, not weights: the server answered with a page, such as an "
            f"error or a login; open the address in a browser, then {_AGAIN}"
        )


def _unknown(head: bytes) -> str:
    """Describe what holds no weights that can be read."""
    for beginning, what in _OTHERS:
        if head.startswith(beginning):
            return f"is {what}"
    if head[8:9] == b"{":
        return f"begins like a safetensors file but is cut short; {_AGAIN}"
    if head.lstrip().startswith((b"{", b"name:", b"layer", b"input")):
        return "describes a network but holds no weights; give the file with the weights"
    return (
        f"is none of the files that hold weights (it begins with {head[:8].hex(' ')}); "
        "expected a torch checkpoint, .safetensors, .caffemodel or .onnx"
    )


def _pointer(head: bytes) -> str:
    """Describe a pointer that Git leaves where a large file should be."""
    wanted = re.search(rb"oid sha256:([0-9a-f]{64})", head)
    size = re.search(rb"size (\d{1,15})", head)
    what = f" to {int(size[1]):,} bytes" if size else ""
    digest = f" with SHA-256 {wanted[1].decode()}" if wanted else ""
    return (
        f"is a Git LFS pointer{what}{digest}, not the file itself; "
        "fetch that with: git lfs pull, or from where it is published"
    )


def _zip(path: Path) -> Container:
    """Return what a zip archive is; torch's two kinds differ in what lies beside their pickle."""
    try:
        with zipfile.ZipFile(path) as file:
            names = {name.partition("/")[2] for name in file.namelist()}
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise IncompatibleFileError(
            f"{path}: is cut short or damaged ({error}); {_AGAIN}"
        ) from error
    if "data.pkl" not in names:
        raise IncompatibleFileError(f"{path}: is a zip archive without weights; unpack it first")
    if "constants.pkl" in names:
        raise IncompatibleFileError(
            f"{path}: is a TorchScript program, not weights; where it was made, save the state "
            "dict: torch.save(torch.jit.load(FILE).state_dict(), FILE)"
        )
    return "torch"


def _is_onnx(head: bytes) -> bool:
    """Return whether it begins as ONNX files do: field 1, the version of the format, below 128."""
    return head[:1] == b"\x08" and len(head) > 2 and head[1] < 0x80
