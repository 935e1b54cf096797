"""Write files atomically: a reader sees the old file or the complete new one.

Only errors of the file itself become an `OutputError`; any other exception raised while one is open
propagates unchanged.
"""

import errno
import io
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from alexnet_deploy.errors import OutputError

_SPACE = "free some space or choose another place"
_RIGHTS = "get write permission there or choose another place"
_REMEDIES = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EFBIG: "raise the limit of file sizes (ulimit -f) or choose another disk",
    errno.ENOENT: "create its folder first",
    errno.ENOTDIR: "what should be its folder is a file; choose another place",
    errno.EISDIR: "name a file in it",
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EROFS: "choose another place",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "its symbolic links form a loop; remove them or choose another name",
}


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path`; on success sync it and rename it to `path`.

    On any error, Ctrl-C included, the temporary file is removed and an existing file at `path` is
    left untouched. If `path` is a symbolic link, its target is replaced, not the link. A pipe, a
    device and the file behind standard output are written directly, without a rename, and are not
    seekable.

    Raises:
        OutputError: no space, no such folder, no permission, ...; the message names the remedy.
        BrokenPipeError: `path` is a pipe whose reader has closed it.
    """
    with errors_of(path):
        old = _status(path)
    if old is not None and (not stat.S_ISREG(old.st_mode) or _is_standard_output(old)):
        with errors_of(path):
            raw = _File(path, os.open(path, os.O_WRONLY | os.O_APPEND), can_seek=False)
        with closing(raw):
            file = io.BufferedWriter(raw)
            yield file
            file.flush()
        return
    target = Path(os.path.realpath(path))
    # Not derived from the target's name, which could then be too long.
    temporary = target.with_name(f".alexnet-deploy-{secrets.token_hex(8)}.part")
    with errors_of(path):
        mode = 0o666 if old is None else stat.S_IMODE(old.st_mode)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        raw = _File(path, os.open(temporary, flags, mode), can_seek=True)
    try:
        file = io.BufferedWriter(raw)
        yield file
        _sync(path, file)
        with errors_of(path):
            raw.close()
            os.replace(temporary, target)
    except BaseException:
        # Bypass the buffer, whose close() would flush what is left in it.
        with suppress(OSError):
            raw.close()
        with suppress(OSError):
            os.unlink(temporary)
        raise


@contextmanager
def write_together(paths: Sequence[Path]) -> Iterator[list[BinaryIO]]:
    """Open files that are only useful together; on success replace all of the old ones.

    The old files stay untouched until all new ones are complete and synced. A process killed
    between then and the last rename can leave files missing, but never a new one beside an old one:
    the old ones are removed first, except the last of `paths`, which its successor replaces. The
    first of `paths` is renamed last: if it exists, so do the others.

    Raises:
        OutputError: as `atomic_write`.
    """
    with ExitStack() as stack:
        files = [stack.enter_context(atomic_write(path)) for path in paths]
        yield files
        # A full disk must surface before any of the old files is touched.
        for path, file in zip(paths, files, strict=True):
            _sync(path, file)
        for path in paths[:-1]:
            _remove_regular(path)


@contextmanager
def errors_of(path: Path) -> Iterator[None]:
    """Turn an `OSError` in the block into an `OutputError` with a matching remedy."""
    try:
        yield
    except BrokenPipeError:
        raise  # not an error: the reader has enough, as with `| head`
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, "choose another place")
        raise OutputError(
            f"{path}: cannot be written ({error.strerror or error}); {remedy}"
        ) from error


class _File(io.FileIO):
    """An unbuffered output file whose errors name the path that the user gave."""

    def __init__(self, path: Path, descriptor: int, *, can_seek: bool) -> None:
        super().__init__(descriptor, "wb")
        self._path = path
        self._can_seek = can_seek

    def write(self, data: Any, /) -> int:
        with errors_of(self._path):
            return super().write(data)

    def seekable(self) -> bool:
        return self._can_seek


def sync_directory(path: Path) -> None:
    """Sync a directory, so that its entries survive a power failure.

    Raises:
        OutputError: the disk reports an error.
    """
    with errors_of(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _status(path: Path) -> os.stat_result | None:
    """Return the status of the file that `path` resolves to, or None if there is none."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    return status


def _is_standard_output(status: os.stat_result) -> bool:
    """Return whether it is `/dev/stdout`: a file opened by the shell must not be replaced."""
    with suppress(OSError):
        return os.path.samestat(status, os.fstat(1))
    return False


def _sync(path: Path, file: BinaryIO) -> None:
    file.flush()
    with errors_of(path):
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            os.fsync(file.fileno())


def _remove_regular(path: Path) -> None:
    """Remove the regular file that `path` resolves to, if any; pipes and devices stay."""
    with errors_of(path):
        old = _status(path)
        if old is not None and stat.S_ISREG(old.st_mode):
            os.unlink(os.path.realpath(path))
