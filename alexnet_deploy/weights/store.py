"""The store of public networks, each a checkpoint `NAME.safetensors` that is sealed.

A seal is a hash of everything in the file, which is in the spec's provenance: a byte that changed
on the disk is noticed whenever the file is read. A seal proves nothing against a forger, so
the folder must be the user's alone.
"""

import dataclasses
import hashlib
import os
from pathlib import Path

from alexnet_deploy.errors import IncompatibleFileError, OutputError
from alexnet_deploy.files.private_folders import own_folder, private_folder
from alexnet_deploy.model.checkpoints import Checkpoint, load_checkpoint, save_checkpoint

_SEAL = "seal"


def stored_path(name: str) -> Path | None:
    """Return the network's file, None where it is not in the store.

    Raises:
        OutputError: as `store_directory`.
    """
    path = own_folder("data") / f"{name}.safetensors"
    return path if os.path.isfile(path) else None  # nor where the folder is closed to this user


def store(name: str, checkpoint: Checkpoint) -> Path:
    """Keep a network under its name; return the file.

    Raises:
        OutputError: it cannot be written; what was there stays.
    """
    path = private_folder("data") / f"{name}.safetensors"
    provenance = {**checkpoint.spec.provenance, _SEAL: _seal(name, checkpoint)}
    spec = dataclasses.replace(checkpoint.spec, provenance=provenance)
    save_checkpoint(Checkpoint(spec=spec, arrays=checkpoint.arrays), path)
    return path


def load_stored(name: str, path: Path) -> Checkpoint:
    """Read a network from the store, and hold it to its seal.

    Args:
        name: of the network.
        path: what `stored_path` returned.

    Raises:
        IncompatibleFileError: it is damaged, or others may have written it.
    """
    remedy = f"get it again: alexnet-deploy pull {name}"
    try:
        private_folder("data")
    except OutputError as error:
        raise IncompatibleFileError(str(error)) from error
    try:
        checkpoint = load_checkpoint(path)
    except IncompatibleFileError as error:
        raise IncompatibleFileError(f"{error}; or {remedy}") from error
    if checkpoint.spec.provenance.get(_SEAL) != _seal(name, checkpoint):
        raise IncompatibleFileError(f"{path}: is not as it was written; {remedy}")
    return checkpoint


def _seal(name: str, checkpoint: Checkpoint) -> str:
    """Return the SHA-256 of a network's name, its spec without a seal, and its numbers."""
    provenance = {key: value for key, value in checkpoint.spec.provenance.items() if key != _SEAL}
    spec = dataclasses.replace(checkpoint.spec, provenance=provenance)
    parts = (name, spec.to_json(), checkpoint.identity)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
