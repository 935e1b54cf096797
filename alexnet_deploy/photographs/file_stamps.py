"""File stamps, which tell versions of a file apart: size, time, hash of the bytes."""

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

from alexnet_deploy.errors import PhotographError
from alexnet_deploy.photographs.decoding import open_photograph

_UNSETTLED_NS = 2_000_000_000
_MAX_TIME_NS = 2**63 - 1  # in the year 2262; the ledger's limit


@dataclass(frozen=True, slots=True, kw_only=True)
class FileStamp:
    """One version of a file.

    Attributes:
        size: in bytes.
        mtime_ns: modification time, or None where it proves nothing: a change within two seconds of
            it (the coarsest clock of common file systems) may leave time and size the same.
        sha256: of all bytes; 32 bytes.
    """

    size: int
    mtime_ns: int | None
    sha256: bytes


def modified_ns(status: os.stat_result) -> int:
    """Return the modification time, at most what 64 bits hold."""
    return min(status.st_mtime_ns, _MAX_TIME_NS)


def is_settled(mtime_ns: int) -> bool:
    """Return whether a change from now on would alter the file's time; see `FileStamp.mtime_ns`."""
    return abs(time.time_ns() - mtime_ns) > _UNSETTLED_NS


def read_stamped(path: Path) -> tuple[bytes, FileStamp]:
    """Read a whole file, so that hash and decoding see the same bytes.

    Raises:
        PhotographError: the reason why it cannot be read, without the path.
    """
    with open_photograph(path) as file:
        status = os.fstat(file.fileno())
        try:
            # No more than that: some files of /proc have no size and no end.
            data = file.read(status.st_size)
        except MemoryError as error:
            raise PhotographError(
                "needs more memory to read than is available; use fewer threads"
            ) from error
    mtime_ns = modified_ns(status)
    return data, FileStamp(
        size=len(data),
        mtime_ns=mtime_ns if is_settled(mtime_ns) else None,
        sha256=hashlib.sha256(data).digest(),
    )
