"""Write files atomically: a reader sees the old file or the complete new one.

Only errors of the file itself become an `OutputError`; any other exception raised while one is open
propagates unchanged.
"""

import errno
import fcntl
import io
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from alexnet_deploy.errors import IncompatibleFileError, OutputError, UsageError
from alexnet_deploy.files.regular_files import ForeignEntryError, open_regular

_PART = re.compile(r"\.alexnet-deploy-[0-9a-f]{16}\.part")
_cleared: set[Path] = set()
"""Folders in which this process has removed what killed ones left."""

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
    left untouched; what a killed process left there, the next that writes into the folder removes.
    If `path` is a symbolic link, its target is replaced, not the link. A pipe, a
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
    with errors_of(path):
        _remove_leftovers(target.parent)
        mode = 0o666 if old is None else stat.S_IMODE(old.st_mode)
        temporary, descriptor = _create_part(target, mode)
        raw = _File(path, descriptor, can_seek=True)
    try:
        file = io.BufferedWriter(raw)
        yield file
        _sync(path, file)
        with errors_of(path):
            # Closed afterwards, since that gives up the lock; it is synced, so nothing can fail.
            os.replace(temporary, target)
            raw.close()
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

    The old files stay untouched until all new ones are complete and synced, and come back if one of
    these cannot be renamed. A process killed between the first rename and the last can leave files
    missing, but never a new one beside an old one: the old ones are removed first, except the last
    of `paths`, which its successor replaces. The first of `paths` is renamed last: if it exists, so
    do the others.

    Raises:
        OutputError: as `atomic_write`.
    """
    with _put_back_on_failure(paths) as set_aside, ExitStack() as stack:
        files = [stack.enter_context(atomic_write(path)) for path in paths]
        yield files
        # A full disk must surface before any of the old files is touched.
        for path, file in zip(paths, files, strict=True):
            _sync(path, file)
        set_aside()


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Make a directory beside `path` to be filled; on success sync it and rename it to `path`.

    Files in it are synced by who writes them, as `atomic_write` does. On any error it is removed,
    with all that is in it.

    Raises:
        UsageError: there is something at `path` other than an empty directory, or one that cannot
            be replaced: a mount point, or the current directory, which a shell would still be in.
        OutputError: as `atomic_write`.
    """
    target = Path(os.path.realpath(path))
    with errors_of(path):
        if os.path.lexists(target) and not (target.is_dir() and not os.listdir(target)):
            raise UsageError(
                f"{path}: is there already, expected a new or an empty folder; remove it, or name "
                "another"
            )
        if target.exists() and (os.path.ismount(target) or target.samefile(".")):
            raise UsageError(
                f"{path}: is a mount point or the current folder, expected one that can be "
                "replaced; name a new folder in it"
            )
        _remove_leftovers(target.parent)
        part, descriptor = _create_part(target)
    try:
        yield part
        for folder, _, _ in os.walk(part):
            sync_directory(Path(folder))
        with errors_of(path):
            os.rename(part, target)  # which fails where something has come meanwhile
        sync_directory(target.parent)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    finally:
        os.close(descriptor)


@contextmanager
def _put_back_on_failure(paths: Sequence[Path]) -> Iterator[Callable[[], None]]:
    """Yield what moves the old files out of the way; they come back if the block fails after it."""
    moved: list[tuple[Path, Path | None]] = []  # each file, and the old one's other name if any

    def set_aside() -> None:
        for path in paths:
            with errors_of(path):
                old = _status(path)
                target = Path(os.path.realpath(path))
                if old is None:
                    moved.append((target, None))
                elif stat.S_ISREG(old.st_mode):
                    moved.append((target, _other_name(target)))
        for path in paths[:-1]:
            _remove_regular(path)

    try:
        yield set_aside
    except BaseException:
        for target, _ in moved[:-1]:
            with suppress(OSError):
                os.unlink(target)
        for target, other in reversed(moved):
            with suppress(OSError):
                if other is None:
                    os.unlink(target)
                else:
                    os.replace(other, target)
                    os.unlink(other)  # which stays where both were names of one file
        raise
    for _, other in moved:
        if other is not None:
            with suppress(OSError):
                os.unlink(other)


def _other_name(target: Path) -> Path:
    """Give a file a second name, or another one where it cannot have two."""
    other = _part_name(target)
    try:
        os.link(target, other)
    except OSError:
        os.replace(target, other)
    return other


def _part_name(target: Path) -> Path:
    """Return a name for a temporary file beside `target`."""
    # Not derived from the target's name, which could then be too long.
    return target.with_name(f".alexnet-deploy-{os.urandom(8).hex()}.part")


def _create_part(target: Path, mode: int | None = None) -> tuple[Path, int]:
    """Create a temporary file, or without a mode a directory, locked to show that it is in use.

    Returns:
        Its name and descriptor.
    """
    while True:
        part = _part_name(target)
        if mode is None:
            part.mkdir()
            try:
                descriptor = os.open(part, os.O_RDONLY | os.O_DIRECTORY)
            except FileNotFoundError:
                continue  # removed by another process before it was opened
        else:
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with suppress(OSError):  # on a file system without locks nothing is taken for a leftover
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return part, descriptor
        os.close(descriptor)  # removed by another process before it was locked


def _remove_leftovers(folder: Path) -> None:
    """Remove the temporary files and directories of processes that were killed, once a folder."""
    if folder in _cleared:
        return
    _cleared.add(folder)
    with suppress(OSError):
        names = [name for name in os.listdir(folder) if _PART.fullmatch(name)]
        for part in [folder / name for name in names]:
            with suppress(OSError):
                _remove_leftover(part)


def _remove_leftover(part: Path) -> None:
    """Remove a temporary file or directory, unless its lock shows that it is in use."""
    is_directory = stat.S_ISDIR(part.lstat().st_mode)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    descriptor = os.open(part, flags) if is_directory else open_regular(part, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if is_directory:
            shutil.rmtree(part)
        else:
            os.unlink(part)
    finally:
        os.close(descriptor)


@contextmanager
def errors_of(path: Path) -> Iterator[None]:
    """Turn an `OSError` in the block into an `OutputError` with a matching remedy.

    What is there and none of ours, a link for one, becomes an `IncompatibleFileError`.
    """
    try:
        yield
    except BrokenPipeError:
        raise  # not an error: the reader has enough, as with `| head`
    except ForeignEntryError as error:
        raise IncompatibleFileError(f"{path}: {error.strerror}; remove it") from error
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


def write_all(descriptor: int, data: memoryview, offset: int) -> None:
    """Write bytes at `offset` of a file that is open, also where a call takes only some of them.

    Raises:
        OSError: as `os.pwrite`.
    """
    while data:
        written = os.pwrite(descriptor, data, offset)
        if not written:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        data, offset = data[written:], offset + written


def wrong_suffix(path: Path, what: str, suffixes: Sequence[str]) -> UsageError:
    """Return the error for an output whose suffix says no format that it can have.

    Args:
        path: of the output.
        what: it is, in the plural.
        suffixes: that it may have.
    """
    return UsageError(
        f"{path}: {what} are written as {' or '.join(suffixes)}, not as "
        f"{path.suffix or 'a file without suffix'}; choose one of these"
    )


def make_directory(path: Path) -> None:
    """Make a directory, unless it exists, so that it survives a power failure.

    Raises:
        OutputError: it cannot be made.
    """
    with errors_of(path):
        try:
            path.mkdir()
        except FileExistsError:
            return
    sync_directory(path.parent)


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
