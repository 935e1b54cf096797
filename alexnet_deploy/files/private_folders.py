"""Folders of the program's own in the user's home, into which nobody else can have written."""

import os
import stat
from contextlib import suppress
from pathlib import Path

from alexnet_deploy.errors import OutputError
from alexnet_deploy.files.output_files import errors_of


def own_folder(variable: str, fallback: str) -> Path:
    """Return `$VARIABLE/alexnet-deploy`, which need not exist.

    Args:
        variable: of the environment, as in the XDG specification.
        fallback: folder in the user's home, where the variable is not set or is relative.

    Raises:
        OutputError: neither that variable nor a home folder is known.
    """
    base = os.environ.get(variable)
    if base and os.path.isabs(base):
        return Path(base, "alexnet-deploy")
    try:
        return Path.home() / fallback / "alexnet-deploy"
    except RuntimeError as error:
        raise OutputError(f"no home folder is known ({error}); set {variable}") from error


def private_folder(variable: str, fallback: str) -> Path:
    """Return `own_folder`, made if need be.

    Raises:
        OutputError: as `own_folder`; or it cannot be made, it is another user's, or others may
            use it.
    """
    folder = own_folder(variable, fallback)
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
