"""Open and remove files that a stranger may have left: regular ones only, and never through a link.

A link could lead to a file that is none of ours, and so could a second name of a file, a hard link,
where it is written to; a pipe or a device could hold the program up.
"""

import errno
import os
import stat
from pathlib import Path

from alexnet_deploy.errors import IncompatibleFileError

MAX_BYTES = 2**26
"""Of a file that `read_file` reads: JSON, all of it."""


class ForeignEntryError(OSError):
    """A link, a pipe, a device or a folder where a file should be, or the other way round."""


def open_regular(
    path: str | Path,
    flags: int,
    *,
    folder: int | None = None,
    follow_links: bool = False,
    to_write: bool = False,
) -> int:
    """Return a descriptor of the regular file at `path`.

    Args:
        path: relative to `folder`, if that is given.
        flags: those of `os.open`; a file made with `os.O_CREAT` gets the usual permissions.
        folder: descriptor of a folder.
        follow_links: whether `path` may be a link, because the user named it.
        to_write: whether the file will be written to, if not by this descriptor.

    Raises:
        ForeignEntryError: what is there is a link, a pipe, a device or a folder, or is written to
            and has another name.
        OSError: as `os.open`.
    """
    # O_NONBLOCK: opening a pipe would wait for its other end.
    safe = flags | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow_links else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, safe, 0o666, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ELOOP and not follow_links:
            raise _refusal("it is a link, expected a regular file") from error
        # ENXIO: a pipe or a socket without another end; EISDIR: a folder, to be written to
        if error.errno in (errno.ENXIO, errno.EISDIR):
            raise _refusal("it is not a regular file") from error
        raise
    status = os.fstat(descriptor)
    reason = None
    if not stat.S_ISREG(status.st_mode):
        reason = "it is not a regular file"
    elif to_write and status.st_nlink > 1:
        reason = "it has another name, a hard link, under which it would change too"
    if reason is not None:
        os.close(descriptor)
        raise _refusal(reason)
    return descriptor


def open_folder(path: Path) -> int:
    """Return a descriptor of the folder at `path`, which is no link.

    Raises:
        ForeignEntryError: what is there is a link or a file.
        OSError: as `os.open`.
    """
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR) and os.path.lexists(path):
            raise _refusal("it is a link or a file, expected a folder") from error
        raise


def remove_file(path: str | Path, *, folder: int | None = None) -> None:
    """Delete the file at `path`, relative to `folder` if that is given; of a link, only the link.

    Raises:
        ForeignEntryError: what is there is a folder.
        OSError: as `os.unlink`.
    """
    try:
        os.unlink(path, dir_fd=folder)
    except (IsADirectoryError, PermissionError) as error:  # the latter on macOS
        if stat.S_ISDIR(os.lstat(path, dir_fd=folder).st_mode):
            raise _refusal("it is a folder, expected a file") from error
        raise


def read_file(path: Path, otherwise: str, *, follow_links: bool = True) -> bytes:
    """Return the content of a regular file of at most `MAX_BYTES`.

    Args:
        path: of the file.
        otherwise: what to do if no copy can be restored, for messages.
        follow_links: whether `path` may be a link, because the user named it.

    Raises:
        FileNotFoundError, NotADirectoryError: there is nothing at `path`.
        IncompatibleFileError: a link that is not followed, a pipe, a device, too large, or not
            readable.
    """
    try:
        with open(open_regular(path, os.O_RDONLY, follow_links=follow_links), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_BYTES:
                raise OSError(f"it has {size:,} bytes, more than {MAX_BYTES:,}")
            return file.read(MAX_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise IncompatibleFileError(
            f"{path}: cannot be read ({error.strerror or error}); fix that, or ", otherwise
        ) from error


def _refusal(reason: str) -> ForeignEntryError:
    return ForeignEntryError(errno.EINVAL, reason)
