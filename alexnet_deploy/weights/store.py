"""The store of public networks, each a checkpoint `NAME.safetensors` that is sealed.

A seal is a hash of everything in the file, which is in the spec's provenance: a byte that changed
on the disk is noticed whenever the network is opened. The folder must be one that only its user
can write to, since a seal proves nothing against a forger.
"""

import dataclasses
import hashlib
import os
import stat
from contextlib import suppress
from pathlib import Path

from alexnet_deploy.errors import IncompatibleFileError, OutputError
from alexnet_deploy.files.output_files import errors_of
from alexnet_deploy.model.checkpoints import Checkpoint, load_checkpoint, save_checkpoint

_SEAL = "seal"


def store_directory() -> Path:
    """Return `$XDG_DATA_HOME/alexnet-deploy`, whether it exists or not.

    Raises:
        OutputError: neither that variable nor a home folder is known.
    """
    home = os.environ.get("XDG_DATA_HOME")
    if home and os.path.isabs(home):  # the XDG specification: ignore a relative path
        return Path(home, "alexnet-deploy")
    try:
        return Path.home() / ".local" / "share" / "alexnet-deploy"
    except RuntimeError as error:
        raise OutputError(f"no place for networks ({error}); set XDG_DATA_HOME") from error


def made_store() -> Path:
    """Return the store's folder, made if need be.

    Raises:
        OutputError: it cannot be made, or others may write to it.
    """
    folder = store_directory()
    with errors_of(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
    _check_is_private(folder)
    return folder


def stored_path(name: str) -> Path | None:
    """Return the network's file, None where it is not in the store.

    Raises:
        OutputError: as `store_directory`.
    """
    path = store_directory() / f"{name}.safetensors"
    return path if path.is_file() else None


def store(name: str, checkpoint: Checkpoint) -> Path:
    """Keep a network under its name; return the file.

    Raises:
        OutputError: it cannot be written; what was there stays.
    """
    path = made_store() / f"{name}.safetensors"
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
        _check_is_private(path.parent)
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


def _check_is_private(folder: Path) -> None:
    """Raise an error unless the folder is the user's or root's, and nobody else may write to it."""
    with errors_of(folder):
        status = folder.stat()
    is_own = stat.S_ISDIR(status.st_mode) and status.st_uid in (0, os.geteuid())
    if not is_own or stat.S_IMODE(status.st_mode) & 0o022:
        raise OutputError(
            f"{folder}: is not a folder that you alone can write to (mode "
            f"{stat.S_IMODE(status.st_mode):o}), so others may have put networks into it; remove "
            "it, and it is made anew"
        )
