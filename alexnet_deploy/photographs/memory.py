"""How much memory photographs may take at once, over all threads of the process.

A few kilobytes may hold a picture of gigabytes. So a thread waits, before it reads or decodes a
photograph, until there is room for it beside those of the others.
"""

import os
import re
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from alexnet_deploy.errors import ArgumentError

MAX_FILE_BYTES = 2**30
"""Largest file that is read: about what the largest photograph takes with 16 bits a colour,
uncompressed."""

DEFAULT_DECODED_MEMORY = "2GB"

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


class MemoryBudget:
    """Bytes that threads may reserve together; each has one reservation at most.

    Args:
        limit: may be changed at any time.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._begin()
        # A forked process has none of the threads, and a lock that one of them may have held.
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        self._reserved = 0
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()
        self._own = threading.local()

    @contextmanager
    def released_at_end(self) -> Iterator[None]:
        """Release at the end of the outermost such block what its thread has reserved."""
        if getattr(self._own, "is_in_block", False):
            yield
            return
        self._own.is_in_block = True
        try:
            yield
        finally:
            self._own.is_in_block = False
            self._release()

    def reserve(self, size: int) -> None:
        """Wait for `size` bytes, first come first served, in place of what the thread had.

        What it had is released first: threads that hold some and wait for more could wait for each
        other. More than the limit is given when nobody has any.
        """
        self._release()
        turn = object()
        with self._changed:
            self._waiting.append(turn)
            try:
                self._changed.wait_for(
                    lambda: self._waiting[0] is turn and self._has_room_for(size)
                )
                self._reserved += size
                self._own.size = size
            finally:  # Ctrl-C, too
                self._waiting.remove(turn)
                self._changed.notify_all()

    def _has_room_for(self, size: int) -> bool:
        return not self._reserved or self._reserved + size <= self.limit

    def _release(self) -> None:
        with self._changed:
            self._reserved -= getattr(self._own, "size", 0)
            self._own.size = 0
            self._changed.notify_all()


def limit_decoded_memory(max_decoded_memory: int | str = DEFAULT_DECODED_MEMORY) -> None:
    """Limit the memory of photographs that are being decoded, over all threads of the process.

    Those for which there is no room wait; one that needs more by itself is a failed photograph.

    Args:
        max_decoded_memory: in bytes, or as `"500MB"` or `"2GB"`.

    Raises:
        ArgumentError: it is no size, or none above 0.
    """
    written = str(max_decoded_memory).strip().upper()
    found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?)\s*([KMGT]?)B?", written)
    size = int(float(found[1]) * _UNITS[found[2]]) if found else 0
    if not size:
        raise ArgumentError("max_decoded_memory", max_decoded_memory, "a size as 500MB or 2GB")
    DECODED.limit = size


READ = MemoryBudget(MAX_FILE_BYTES)
"""For the bytes of files; reserved before `DECODED`, never after it."""

DECODED = MemoryBudget(0)
"""For pictures, with what their decoders and conversions take."""
limit_decoded_memory()
