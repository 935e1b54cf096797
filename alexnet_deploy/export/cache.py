"""The user's cache: networks that were exported, verified, and prepared for a runtime.

An entry is a line with a SHA-256 of its key and all that follows, a line of JSON, and the network's
body. Where that hash is right, it is what was written, and is used as it is: reading one takes a
pass over its bytes, and no `onnx`. Where it is not, there is no entry.
"""

import hashlib
import json
import os
from pathlib import Path

import numpy as np

from alexnet_deploy.choices import FilePrecision
from alexnet_deploy.errors import AlexNetDeployError
from alexnet_deploy.files.output_files import atomic_write
from alexnet_deploy.files.private_folders import private_folder
from alexnet_deploy.files.regular_files import open_regular
from alexnet_deploy.model.spec import ModelSpec
from alexnet_deploy.runtimes.prepared import PreparedNetwork


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
    try:
        with open(open_regular(_entry(key), os.O_RDONLY), "rb") as file:
            seal, header = file.readline(), file.readline()
            # Not mapped: it could change after its hash was right. Not `read`: OpenVINO
            # takes the body where it lies, if that is writable.
            body = np.fromfile(file, np.uint8).data
    except (OSError, AlexNetDeployError):  # not there, or no place for a cache
        return None
    if seal != _seal(key, header, body):
        return None
    fields = json.loads(header)
    return PreparedNetwork(
        body=(body,),
        layers={name: bytes.fromhex(piece) for name, piece in fields["layers"].items()},
        spec=spec,
        identity=fields["identity"],
        precision=precision,
        source=source,
        is_compiled=is_compiled,
    )


def write_network(key: str, network: PreparedNetwork) -> None:
    """Keep a network, atomically.

    Raises:
        OutputError: there is no place for it, or none that is the user's alone.
    """
    layers = {name: piece.hex() for name, piece in network.layers.items()}
    header = json.dumps({"identity": network.identity, "layers": layers}).encode() + b"\n"
    with atomic_write(_entry(key)) as file:
        file.writelines([_seal(key, header, *network.body), header, *network.body])


def _entry(key: str) -> Path:
    """Return the path of an entry, in a folder that nobody else may have written to.

    Raises:
        OutputError: as `private_folder`.
    """
    folder = private_folder("cache")
    return folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.network"


def _seal(key: str, *sealed: bytes | memoryview) -> bytes:
    """Return an entry's first line, which no other key's entry has."""
    digest = hashlib.sha256(key.encode() + b"\n")
    for chunk in sealed:
        digest.update(chunk)
    return digest.hexdigest().encode() + b"\n"
