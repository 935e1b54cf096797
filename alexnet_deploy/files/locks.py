"""Advisory locks that end with the process that holds them, however it ends."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from alexnet_deploy.errors import AlexNetDeployError
from alexnet_deploy.files.output_files import errors_of
from alexnet_deploy.files.regular_files import open_regular


@contextmanager
def locked(path: Path, refusal: Callable[[int], AlexNetDeployError]) -> Iterator[int]:
    """Hold the lock file `path`, created if need be, and yield its descriptor.

    Args:
        path: stays when the lock is given up.
        refusal: returns the error for a file that another process holds; it gets the descriptor.

    Raises:
        AlexNetDeployError: that of `refusal`.
        OutputError: the file cannot be opened for writing.
        IncompatibleFileError: it is a link, a pipe, a device or a folder, or has another name.
    """
    with errors_of(path):
        descriptor = open_regular(path, os.O_RDWR | os.O_CREAT, to_write=True)
    try:
        with errors_of(path):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise refusal(descriptor) from error
        yield descriptor
    finally:
        os.close(descriptor)
