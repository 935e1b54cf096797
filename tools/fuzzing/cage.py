"""Run a reader where it can do no harm, and say what became of it.

It runs in a forked process with a limit of time and one of memory, in the folder `inside` of a
place of its own. Beside that lies the folder `outside` with a canary: whatever is changed there, or
made anywhere in the place but inside, is found afterwards. What Python itself opens to write,
removes, renames, starts or connects to elsewhere is seen at once (`sys.addaudithook`); what a C
library does elsewhere, by files that are not in the place, is not seen.
"""

import faulthandler
import gc
import json
import os
import resource
import select
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

from alexnet_deploy.errors import AlexNetDeployError, PhotographError

Verdict = Literal["result", "refused", "traceback", "hang", "crash", "outside", "wrong result"]
FINE = ("result", "refused")
_SETTLED = 1_000_000_000  # a time long ago, in seconds

_WRITING = {
    *("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate"),
    *("os.chmod", "os.chown", "os.utime"),
}
_STARTING = {
    *("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "pty.spawn"),
    *("socket.connect", "socket.bind"),
}


class WrongResultError(Exception):
    """A reader has returned what it never may; raised by the check of its result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a reader.

    Attributes:
        verdict: "result" and "refused" (an error of ours) are as it should be.
        text: the error, its traceback, the signal, or what was touched.
        seconds: that it took.
    """

    verdict: Verdict
    text: str
    seconds: float


class Cage:
    """A place with a folder for the input and a canary beside it.

    Args:
        place: an empty folder.
        limit_s: a reader that takes longer hangs.
        limit_bytes: of address space, beyond what this process has.
    """

    def __init__(self, place: Path, *, limit_s: float = 10.0, limit_bytes: int = 2**31) -> None:
        self.inside, self.outside = place / "inside", place / "outside"
        self._place = place
        self._limit_s = limit_s
        self._limit_bytes = limit_bytes
        for folder in (self.inside, self.outside):
            folder.mkdir()
        for name in ("canary.txt", "canary.f16", "ledger.sqlite"):
            path = self.outside / name
            path.write_bytes(b"canary\n")
            os.utime(path, (_SETTLED, _SETTLED))

    def run(self, reader: Callable[[Path], None]) -> Outcome:
        """Let `reader` read the input in `inside`."""
        before, start = self._state(), time.monotonic()
        receiving, sending = os.pipe()
        with warnings.catch_warnings():
            # Of threads; the libraries' own are idle, and ours have ended.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if not child:
            os.close(receiving)
            self._run_in_child(reader, sending)
        os.close(sending)
        try:
            said, has_hung = _read_all(receiving, start + self._limit_s)
        finally:
            os.close(receiving)
            with suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
        verdict, text = self._judged(said, has_hung, status)
        touched = sorted(before.items() ^ self._state().items())
        if touched:
            verdict, text = "outside", f"touched: {touched}"
        return Outcome(verdict=verdict, text=text, seconds=time.monotonic() - start)

    def _judged(self, said: bytes, has_hung: bool, status: int) -> tuple[Verdict, str]:
        if has_hung:
            return "hang", f"not done after {self._limit_s:g} s"
        if not said:
            number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.WEXITSTATUS(status)
            return "crash", f"ended by signal {number}, without a word"
        verdict, text = json.loads(said)
        return verdict, text

    def _state(self) -> dict[str, str]:
        """Return name and content of everything in the place but the inside."""
        state = {}
        for folder, folders, names in os.walk(self._place):
            if folder == str(self._place):
                folders.remove(self.inside.name)
            for name in (*folders, *names):
                path = Path(folder, name)
                content = path.read_bytes() if path.is_file() else b""
                state[str(path)] = f"{path.lstat().st_mtime_ns if content else ''} {content!r}"
        return state

    def _run_in_child(self, reader: Callable[[Path], None], sending: int) -> NoReturn:
        try:
            os.setsid()
            self._enter(sending)
            answer = self._answer(reader)
            os.write(sending, json.dumps(answer).encode())
        finally:
            os._exit(0)

    def _enter(self, sending: int) -> None:
        os.chdir(self.inside)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nowhere, descriptor)
        for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME"):
            os.environ[name] = str(self.inside)
        os.environ["XDG_STATE_HOME"] = str(self.inside / "state")
        faulthandler.disable()  # a crash is told by its signal
        sys.dont_write_bytecode = True
        limit = _address_space() + self._limit_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**30, 2**30))
        gc.disable()

    def _answer(self, reader: Callable[[Path], None]) -> tuple[Verdict, str]:
        seen: list[str] = []
        sys.addaudithook(lambda event, arguments: self._watch(event, arguments, seen))
        verdict: Verdict
        try:
            reader(self.inside)
            verdict, text = "result", ""
        except (AlexNetDeployError, PhotographError) as error:
            verdict, text = "refused", f"{type(error).__name__}: {error}"[:2000]
        except WrongResultError as error:
            verdict, text = "wrong result", str(error)[:2000]
        except BaseException:
            verdict, text = "traceback", traceback.format_exc()[-6000:]
        return ("outside", "; ".join(seen)[:2000]) if seen else (verdict, text)

    def _watch(self, event: str, arguments: tuple[Any, ...], seen: list[str]) -> None:
        """Note what is written, started or connected to outside."""
        if event in _STARTING:
            seen.append(f"{event} {arguments!r}"[:500])
        elif event in _WRITING or (event == "open" and _opens_to_write(arguments)):
            for path in arguments[: 2 if event in ("os.rename", "os.link") else 1]:
                if isinstance(path, (str, bytes, os.PathLike)) and not self._is_own(path):
                    seen.append(f"{event} {path!r}"[:500])

    def _is_own(self, path: str | bytes | os.PathLike[str]) -> bool:
        text = os.fsdecode(path)
        if text in ("/dev/null", "/dev/shm") or text.startswith("/proc/self/"):
            return True
        # The name itself may be a link; the folder that it is in decides.
        folder = os.path.realpath(os.path.dirname(os.path.abspath(text)))
        return Path(folder).is_relative_to(os.path.realpath(self.inside))


def _opens_to_write(arguments: tuple[Any, ...]) -> bool:
    _, mode, flags = arguments
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))


def _address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    return pages * resource.getpagesize()


def _read_all(descriptor: int, deadline: float) -> tuple[bytes, bool]:
    """Return what comes until the end, and whether the deadline came first."""
    said = b""
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([descriptor], [], [], left)[0]:
            return said, True
        data = os.read(descriptor, 65536)
        if not data:
            return said, False
        said += data
