"""Stop at a signal, but not in the middle of a step."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_ONE_WISH_S = 1.0
"""`timeout` signals its command and then the group; a terminal that closes does the like."""
_NOTE = b"\nstopping after this step, with a checkpoint; once more leaves without one\n"


class Stopped(Exception):
    """A signal asked for a stop, and this is a place to stop at."""


@dataclass(slots=True)
class StopRequest:
    """Whether a signal has come, and which."""

    signal_number: int | None = None

    @property
    def has_come(self) -> bool:
        """Whether the run is asked to stop."""
        return self.signal_number is not None

    def check(self) -> None:
        """Mark a place at which a run can stop and lose nothing.

        Raises:
            Stopped: it is asked to.
        """
        if self.has_come:
            raise Stopped


@contextmanager
def stop_after_step() -> Iterator[StopRequest]:
    """Take Ctrl-C, SIGTERM and SIGHUP as a wish to stop after the step under way.

    A second signal, a second or more later, acts as it did before, so that a step that hangs
    can be left. Call it from the main thread; the handlers of before are back when the block
    ends. A signal that is ignored stays so: a shell starts background jobs deaf to Ctrl-C, nohup
    to SIGHUP.
    """
    request = StopRequest()
    asked_at = 0.0
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    before = {n: handler for n, handler in handlers.items() if handler != signal.SIG_IGN}

    def take_note(number: int, frame: object) -> None:
        nonlocal asked_at
        if not request.has_come:
            request.signal_number, asked_at = number, time.monotonic()
            if sys.stderr is not None:  # else its number may be another file's
                with suppress(OSError):
                    os.write(2, _NOTE)
        elif time.monotonic() - asked_at > _ONE_WISH_S:
            restore()
            signal.raise_signal(number)

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in before:
        signal.signal(number, take_note)
    try:
        yield request
    finally:
        restore()
