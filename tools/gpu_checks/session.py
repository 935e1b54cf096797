"""Checks in processes of pytest's: what they are called with, and what becomes of each."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from gpu_checks.record import Result
from gpu_checks.wheels import search_paths

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""
CHECK_LIMIT_S = 120
"""Of a check that has no mark with its own."""
_END_LIMIT_S = 20
"""Of a process whose checks are over: libraries may hang as they are unloaded."""
_NOT_OURS = ("ALEXNET_MODEL", "ALEXNET_INDEX")
_TAIL = 60
"""Lines of a log that are shown: where it crashed comes before how pytest got there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What all processes have in common.

    Attributes:
        root: the folder that files are named from.
        files: of checks, in order; True where wheels come before everything installed.
        scratch: a folder for their files, with the unpacked wheels in `wheels`.
        logs: where what they print is kept, by file.
        options: of pytest, for all of them.
        deadline: time.monotonic() at which they are ended.
    """

    root: Path
    files: Mapping[str, bool]
    scratch: Path
    logs: Path
    options: tuple[str, ...]
    deadline: float

    def checks(self) -> tuple[dict[str, str], list[Result]]:
        """Return node ids by names, in order; and results for files that cannot be imported."""
        found: dict[str, str] = {}
        no_checks = []
        first = next(iter(self.files))
        with closing(self._events(first, ["--collect-only", *self.files])) as events:
            for event in events:
                found |= event.get("found", {})
                if "ends" in event:
                    no_checks.append(Result(**event["ends"]))
        if not found or any(result.status == "failed" for result in no_checks):
            self._show_log(first)
        return found, no_checks

    def results(self, checks: Mapping[str, str]) -> Generator[Result]:
        """Run checks, those of a file in one process until one fails, the others then in another.

        What a failed check leaves CUDA in is for no other check to find.

        Args:
            checks: node ids by names.
        """
        for file, names in groupby(checks, lambda name: checks[name].partition("::")[0]):
            pending = {name: checks[name] for name in names}
            while pending and time.monotonic() < self.deadline:
                with closing(self._results_of_one_process(file, pending)) as results:
                    for result in results:
                        pending.pop(result.name, None)
                        yield result
            for name in pending:
                yield Result(name=name, status="no-time", reason="not begun: the time was up")

    def _results_of_one_process(self, file: str, pending: Mapping[str, str]) -> Generator[Result]:
        running, since = next(iter(pending)), time.monotonic()
        code = 0
        with closing(self._events(file, list(pending.values()))) as events:
            for event in events:
                if "begins" in event:
                    running, since = event["begins"], time.monotonic()
                elif "ends" in event:
                    running = ""
                    yield Result(**event["ends"])
                code = event.get("code", code)
        if code:
            self._show_log(file)
        seconds = time.monotonic() - since
        if time.monotonic() >= self.deadline:
            if running:
                reason = "ended: the time was up"
                yield Result(name=running, status="no-time", seconds=seconds, reason=reason)
        elif running or code not in (0, 1):
            name = running or f"{_subject(file)}-exit"  # of the process, after its checks
            reason = _why_ended(code, self._log_of(file), seconds)
            yield Result(name=name, status="failed", seconds=seconds, reason=reason)

    def _events(self, file: str, arguments: Iterable[str]) -> Generator[Mapping[str, Any]]:
        """Run pytest; yield what `gpu_checks.plugin` tells and, last, the exit `code`.

        It is killed at the deadline, and so is, in the end, what it started.
        """
        reader, writer = os.pipe()
        with self._log_of(file).open("ab") as log, open(reader, encoding="utf-8") as lines:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "pytest", "-p", "gpu_checks.plugin", "-m", "gpu"),
                    *("--rootdir", str(self.root), "-c", str(ROOT / "pyproject.toml")),
                    *("-v", "-x", "-s", "-p", "no:cacheprovider"),
                    *("-p", "no:hypothesispytest"),  # three quarters of the time to start
                    *("-W", "default"),  # versions that the tests were not written with may warn
                    # A signal would not end what hangs in a library.
                    *("--timeout", str(CHECK_LIMIT_S), "--timeout-method", "thread"),
                    *("--basetemp", str(self.scratch / "files"), "--events", str(writer)),
                    *(*self.options, *arguments),
                ],
                cwd=self.root,
                env={
                    **{name: text for name, text in os.environ.items() if name not in _NOT_OURS},
                    **search_paths(self.scratch / "wheels", first=self.files[file]),
                    "PYTHONUNBUFFERED": "1",
                    "XDG_CACHE_HOME": str(self.scratch / "cache"),
                    "XDG_STATE_HOME": str(self.scratch / "state"),
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[writer],
                start_new_session=True,
            )
            os.close(writer)
            timers = [_kill_after(process, self.deadline - time.monotonic())]
            try:
                for line in lines:
                    if line.endswith("\n"):  # else it was killed in between
                        yield json.loads(line)
                # It closes them when its checks are over.
                timers.append(_kill_after(process, _END_LIMIT_S))
                yield {"code": process.wait()}
            finally:
                for timer in timers:
                    timer.cancel()
                _kill(process)
                process.wait()

    def _log_of(self, file: str) -> Path:
        return self.logs / f"{_subject(file)}.log"

    def _show_log(self, file: str) -> None:
        for line in self._log_of(file).read_text("utf-8", "replace").splitlines()[-_TAIL:]:
            print(f"    {line}", file=sys.stderr, flush=True)


def _subject(file: str) -> str:
    return Path(file).stem.removeprefix("test_")


def _kill(process: "subprocess.Popen[bytes]") -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _kill_after(process: "subprocess.Popen[bytes]", seconds: float) -> threading.Timer:
    timer = threading.Timer(max(0.0, seconds), _kill, (process,))
    timer.start()
    return timer


def _why_ended(code: int, log: Path, seconds: float) -> str:
    """Describe how a process ended that gave no result."""
    if code < 0:
        return f"crashed: killed by {signal.Signals(-code).name}"
    lines = log.read_text("utf-8", "replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
    if "+ Timeout +" in last:
        return f"hung: not done after {seconds:.0f} s"
    return f"crashed: exit code {code} ({last})"
