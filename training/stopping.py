"""Stop on a signal, but not in the middle of a step."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SAME_REQUEST_S = 1.0
"""Signals this close are one request: `timeout` signals its command, and then the group."""
_NOTE = b"\nstopping after this step, with a checkpoint; a second signal stops without one\n"


class Stopped(Exception):
    """A signal has arrived, and the run can stop here."""


@dataclass(slots=True)
class StopRequest:
    """Whether a signal has arrived, and which."""

    signal_number: int | None = None

    @property
    def has_come(self) -> bool:
        """Whether a signal has arrived."""
        return self.signal_number is not None

    def check(self) -> None:
        """Mark a point at which a run can stop without loss.

        Raises:
            Stopped: a signal has arrived.
        """
        if self.has_come:
            raise Stopped


@contextmanager
def stop_after_step() -> Iterator[StopRequest]:
    """Treat Ctrl-C, SIGTERM and SIGHUP as a request to stop after the current step.

    Another signal, more than a second later, has its previous effect, so that a hanging step can
    be interrupted. Call this from the main thread; the previous handlers are restored when the
    block ends. Ignored signals stay ignored: shells start background jobs ignoring Ctrl-C, and
    nohup ignores SIGHUP.
    """
    request = StopRequest()
    asked_at = 0.0
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    before = {n: handler for n, handler in handlers.items() if handler != signal.SIG_IGN}

    def take_note(number: int, frame: object) -> None:
        nonlocal asked_at
        if not request.has_come:
            request.signal_number, asked_at = number, time.monotonic()
            if sys.stderr is not None:  # otherwise descriptor 2 may be another file
                with suppress(OSError):
                    os.write(2, _NOTE)
        elif time.monotonic() - asked_at > _SAME_REQUEST_S:
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
