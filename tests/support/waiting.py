"""Waiting for what happens elsewhere: in another thread, or another process."""

import threading
import time
from collections.abc import Callable

PATIENCE_S = 300
"""After which what is waited for hangs; it comes in a second or two, on a busy machine in more."""


def wait_until(is_so: Callable[[], object]) -> None:
    """Return once it is so.

    Raises:
        TimeoutError: it hangs.
    """
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        if time.monotonic() > end:
            raise TimeoutError(f"not so after {PATIENCE_S} s")
        time.sleep(0.02)


def threads_have_ended() -> bool:
    """Tell whether no photograph is being decoded or goes through a network any more."""
    names = [thread.name for thread in threading.enumerate()]
    return not any(name.startswith(("decode", "inference")) for name in names)
