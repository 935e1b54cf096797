"""Folders of the program's own in the user's home, into which nobody else can have written."""

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Literal

from alexnet_deploy.errors import OutputError
from alexnet_deploy.files.output_files import errors_of

Kind = Literal["cache", "data", "state"]
_PLACES = {
    "cache": ("XDG_CACHE_HOME", ".cache"),
    "data": ("XDG_DATA_HOME", ".local/share"),
    "state": ("XDG_STATE_HOME", ".local/state"),
}
"""As in the XDG specification: a variable, and a folder in the home where it is not absolute."""


def own_folder(kind: Kind) -> Path:
    """Return the program's folder of that kind, such as `$XDG_CACHE_HOME/alexnet-deploy`.

    It need not exist.

    Raises:
        OutputError: neither the variable nor a home folder is known.
    """
    variable, fallback = _PLACES[kind]
    base = os.environ.get(variable)
    if base and os.path.isabs(base):
        return Path(base, "alexnet-deploy")
    try:
        return Path.home() / fallback / "alexnet-deploy"
    except RuntimeError as error:
        raise OutputError(f"no home folder is known ({error}); set {variable}") from error


def private_folder(kind: Kind) -> Path:
    """Return `own_folder`, made if need be.

    Raises:
        OutputError: as `own_folder`; or it cannot be made, it is another user's, or others may
            use it.
    """
    folder = own_folder(kind)
    with errors_of(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        status = folder.lstat()
    is_own = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
    if not is_own or stat.S_IMODE(status.st_mode) & 0o077:
        raise OutputError(
            f"{folder}: is not a folder of yours alone (mode {stat.S_IMODE(status.st_mode):o}), so "
            "others may have written to it; remove it, and it is made anew"
        )
    return folder
