"""Which folders the user has named for an index, remembered outside of it.

An index names its folders itself, and a stranger may have made it: what is in the index cannot show
that its user wants them read. For each pair of index and folder there is an empty file in the
user's own state folder, named by a hash of the two paths. Where that is lost, or the index has been
moved, the folders have to be named once more.
"""

import hashlib
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from alexnet_deploy.errors import OutputError, UsageError
from alexnet_deploy.files.output_files import errors_of
from alexnet_deploy.files.path_text import printable
from alexnet_deploy.files.private_folders import private_folder

_NUM_SHOWN = 5


def remember_folders(directory: Path, folders: Iterable[Path]) -> None:
    """Remember that the user named `folders`, links resolved, for the index at `directory`.

    Where nothing can be remembered, the next run has to name them again.
    """
    with suppress(OutputError):
        for folder in folders:
            mark = _mark(directory, folder)
            with errors_of(mark):
                mark.touch(mode=0o600)


def check_named(directory: Path, folders: Iterable[Path]) -> None:
    """Reject folders of an index that its user has not named for it.

    Raises:
        UsageError: naming them.
    """
    reason = ""
    unknown = []
    for folder in folders:
        try:
            is_known = _mark(directory, folder).exists()
        except OutputError as error:
            is_known, reason = False, f" (what you named is not known: {error})"
        if not is_known:
            unknown.append(printable(folder))
    if unknown:
        more = "" if len(unknown) <= _NUM_SHOWN else f" and {len(unknown) - _NUM_SHOWN:,} more"
        raise UsageError(
            f"index {directory}: its folders are {', '.join(unknown[:_NUM_SHOWN])}{more}, and you "
            f"have not named them for it here{reason}; whoever made an index chose its folders, so "
            "name those that may be read, once, with alexnet-deploy index FOLDER"
        )


def _mark(directory: Path, folder: Path) -> Path:
    paths = os.fsencode(os.path.realpath(directory)) + b"\0" + os.fsencode(folder)
    name = f"named-{hashlib.sha256(paths).hexdigest()[:32]}"
    return private_folder("state") / name
