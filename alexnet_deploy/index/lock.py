"""One writer at a time, and who that is."""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alexnet_deploy.errors import IndexLockedError
from alexnet_deploy.files.locks import locked
from alexnet_deploy.files.output_files import errors_of

LOCK_NAME = "lock"


@contextmanager
def writer_lock(directory: Path) -> Iterator[None]:
    """Hold the index's `lock` file, which names its holder.

    Raises:
        IndexLockedError: another process holds it; the message says which.
        OutputError: the directory cannot be written to.
    """
    path = directory / LOCK_NAME
    with locked(path, lambda descriptor: _refusal(directory, descriptor)) as descriptor:
        with errors_of(path):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, _own_name(), 0)
        yield


def _refusal(directory: Path, descriptor: int) -> IndexLockedError:
    return IndexLockedError(
        f"index {directory}: {_holder(descriptor)} is writing to it; wait until it "
        "has finished, or stop it: what it has committed stays"
    )


def _own_name() -> bytes:
    since = time.strftime("%Y-%m-%d %H:%M:%S %z")
    fields = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
    return json.dumps(fields).encode() + b"\n"


def _holder(descriptor: int) -> str:
    """Describe the holder by the lock file, which may be incomplete."""
    try:
        fields = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {fields['pid']} on {fields['host']}, since {fields['since']},"
    except (ValueError, KeyError, TypeError):
        return "another process"
