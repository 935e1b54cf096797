"""What a file is, by its first bytes; what is no weights is named."""

import hashlib
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from alexnet_deploy.errors import IncompatibleFileError
from alexnet_deploy.importing.containers import check_own_hash, container_of

DIGEST = "7be5be791159472b1fbf8e2ca13b6f7d1f7ed7b7fbd5b5c6b7f7e2a5d0c9b8a7"
POINTER = (
    f"version https://git-lfs.github.com/spec/v1\noid sha256:{DIGEST}\nsize 243863787\n"
).encode()


def archive(path: Path, *names: str) -> bytes:
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(name, b"\x80\x02N.")
    return path.read_bytes()


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth", "a.onnx", "a"])
def test_safetensors_are_known_under_any_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(save({"a": np.zeros(3, np.float32)}))
    assert container_of(tmp_path / name) == "safetensors"


def test_torchs_two_formats_are_known(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="writing .pt files needs torch")
    for zipped in (True, False):
        torch.save({"a": torch.zeros(3)}, tmp_path / "a", _use_new_zipfile_serialization=zipped)
        assert container_of(tmp_path / "a") == "torch"


def test_an_onnx_file_is_known(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    from onnx import helper

    graph = helper.make_graph([], "g", [], [])
    onnx.save(helper.make_model(graph), tmp_path / "a.bin")
    assert container_of(tmp_path / "a.bin") == "onnx"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; download it again"),
        (POINTER, rf"Git LFS pointer to 243,863,787 bytes with SHA-256 {DIGEST}.*git lfs pull"),
        (b"\n<!DOCTYPE html><title>404</title>", "is a web page, not weights"),
        (b"<html><body>", "is a web page"),
        (b"<?xml version='1.0'?><Error>AccessDenied</Error>", "is a web page"),
        (save({"a": np.zeros(300, np.float32)})[:9], "begins like a safetensors file but is cut"),
        (b"PK\x03\x04 cut short", "is cut short or damaged"),
        (b"\x89HDF\r\n\x1a\n", "HDF5 file; .*tf2onnx, .*BINARYPROTO"),
        (b"\x93NUMPY\x01\x00", "a NumPy array"),
        (b"\x1f\x8b\x08\x00", "compressed with gzip; unpack it first"),
        (b'name: "AlexNet"\nlayer {', "describes a network but holds no weights"),
        (b'{"architectures": ["AlexNet"]}', "describes a network but holds no weights"),
        (b"\xff\xd8\xff\xe0 a photograph", "is a picture"),
        (b"ftrt" + bytes(100), "is a TensorRT engine"),
        (b"anything at all", r"none of the files that hold weights \(it begins with 61 6e 79"),
    ],
)
def test_what_is_no_weights_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "alexnet.pth"
    path.write_bytes(content)
    with pytest.raises(IncompatibleFileError, match=message):
        container_of(path)


def test_torchscript_and_other_archives_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    archive(path, "a/data.pkl", "a/constants.pkl", "a/version")
    with pytest.raises(IncompatibleFileError, match=r"TorchScript program.*torch\.jit\.load"):
        container_of(path)
    archive(path, "photos/1.jpg")
    with pytest.raises(IncompatibleFileError, match="zip archive without weights"):
        container_of(path)


def test_a_file_is_held_to_the_hash_in_its_name(tmp_path: Path) -> None:
    content = b"weights of a network"
    named = tmp_path / f"alexnet-owt-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    named.write_bytes(content)
    check_own_hash(named)
    named.write_bytes(b"weightz")
    with pytest.raises(IncompatibleFileError, match=r"its SHA-256 begins with .*its name says"):
        check_own_hash(named)
    for name in ("alexnet-final.pth", "alexnet-20231130.pth"):
        plain = tmp_path / name
        plain.write_bytes(content)
        check_own_hash(plain)
