"""Ctrl-C, SIGTERM and SIGHUP end a program with one word and 128 + the signal's number."""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


def word_for(number: int) -> str:
    """Return what to say of a program that a signal ended."""
    return "interrupted" if number == signal.SIGINT else "terminated"


def end_on_the_spot() -> None:
    """Let the signals end the program at once: while it still imports, and has nothing to undo."""
    _handle_with(_exit)


def end_in_order() -> None:
    """Let the signals raise `KeyboardInterrupt(number)`, so that half-written files are removed."""
    _handle_with(_interrupt)


def _handle_with(handler: Callable[[int, FrameType | None], None]) -> None:
    if os.name != "posix":
        raise SystemExit(
            "Error: this runs on Linux, macOS and other POSIX systems; on Windows use it in WSL"
        )
    for number in (getattr(signal, name) for name in _NAMES):
        # One that is ignored stays so: nohup, and shells for the background, want that.
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


def _exit(number: int, frame: FrameType | None) -> None:
    with suppress(OSError):
        os.write(2, f"{word_for(number)}\n".encode())
    os._exit(128 + number)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(number)
