"""The user's cache: networks that were exported, verified, and prepared for a runtime.

It also holds what checkpoints were and what TensorRT timed, under the same protection.

An entry is a line with a SHA-256 of its key, of its line of JSON and of the hash of each piece of
its body, then that line and the body. Where that hash is right, it is what was written, and is used
as it is: reading one takes a pass over its bytes, on all cores, and no `onnx`. Where it is not,
there is no entry.
"""

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from alexnet_deploy.choices import FilePrecision
from alexnet_deploy.errors import AlexNetDeployError
from alexnet_deploy.files.output_files import atomic_write, errors_of
from alexnet_deploy.files.private_folders import private_folder
from alexnet_deploy.files.regular_files import open_regular
from alexnet_deploy.model.spec import ModelSpec
from alexnet_deploy.photographs.pipeline import default_threads
from alexnet_deploy.runtimes.prepared import PreparedNetwork

Kind = Literal["network", "checkpoint", "timings"]

_PIECE = 2**22
"""Bytes of a body that one thread hashes at a time, few enough to stay in its core's cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What was kept under a key.

    Attributes:
        fields: the line of JSON.
        body: all bytes after it, in memory of its own that may be written to.
    """

    fields: Mapping[str, Any]
    body: memoryview


def read_entry(key: str, kind: Kind) -> Entry | None:
    """Return what was written under `key`, or None if there is nothing, or not just that."""
    try:
        with open(open_regular(_path(key, kind), os.O_RDONLY), "rb") as file:
            seal, header = file.readline(), file.readline()
            start, descriptor = file.tell(), file.fileno()
            # Not mapped: it could change after its hash was right. Not `bytes`: OpenVINO takes the
            # body where it lies, if that is writable.
            body = np.empty(max(0, os.fstat(descriptor).st_size - start), np.uint8).data

            def read(piece: memoryview, offset: int) -> bytes:
                os.preadv(descriptor, [piece], start + offset)  # one that is short has another hash
                return hashlib.sha256(piece).digest()

            offsets = range(0, len(body), _PIECE)
            with ThreadPoolExecutor(default_threads()) as threads:
                hashes = threads.map(lambda at: read(body[at : at + _PIECE], at), offsets)
                is_sealed = seal == _seal(key, header, *hashes)
    except (OSError, AlexNetDeployError):  # not there, or no place for a cache
        return None
    return Entry(fields=json.loads(header), body=body) if is_sealed else None


def write_entry(key: str, kind: Kind, fields: Mapping[str, Any], *body: bytes | memoryview) -> None:
    """Keep `fields`, of which JSON is made, and a body in chunks, atomically.

    Raises:
        OutputError: there is no place for it, or none that is the user's alone.
    """
    header = json.dumps(fields).encode() + b"\n"
    whole = memoryview(body[0] if len(body) == 1 else b"".join(body))
    pieces = (whole[start : start + _PIECE] for start in range(0, len(whole), _PIECE))
    hashes = (hashlib.sha256(piece).digest() for piece in pieces)
    path = _path(key, kind)
    with errors_of(path), suppress(FileNotFoundError):
        # Nothing is read through a link or from a pipe, so nothing may be written there, either.
        if not stat.S_ISREG(os.lstat(path).st_mode):
            os.unlink(path)
    with atomic_write(path) as file:
        file.writelines([_seal(key, header, *hashes), header, whole])


def read_network(
    key: str, *, spec: ModelSpec, precision: FilePrecision, source: str, is_compiled: bool = False
) -> PreparedNetwork | None:
    """Return the network that was written under `key`, or None if there is none.

    Args:
        key: all that the network depends on.
        spec: of the network.
        precision: of the network.
        source: of the network, for messages.
        is_compiled: of the network.
    """
    entry = read_entry(key, "network")
    if entry is None:
        return None
    layers: Mapping[str, str] = entry.fields["layers"]
    return PreparedNetwork(
        body=(entry.body,),
        layers={name: bytes.fromhex(piece) for name, piece in layers.items()},
        spec=spec,
        identity=entry.fields["identity"],
        precision=precision,
        source=source,
        is_compiled=is_compiled,
    )


def write_network(key: str, network: PreparedNetwork) -> None:
    """Keep a network, atomically.

    Raises:
        OutputError: as `write_entry`.
    """
    layers = {name: piece.hex() for name, piece in network.layers.items()}
    write_entry(key, "network", {"identity": network.identity, "layers": layers}, *network.body)


def _path(key: str, kind: Kind) -> Path:
    """Return the path of an entry, in a folder that nobody else may have written to.

    Raises:
        OutputError: as `private_folder`.
    """
    folder = private_folder("cache")
    return folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.{kind}"


def _seal(key: str, header: bytes, *hashes: bytes) -> bytes:
    """Return an entry's first line, which no other key's entry has."""
    digest = hashlib.sha256(key.encode() + b"\n" + header + b"".join(hashes))
    return digest.hexdigest().encode() + b"\n"
