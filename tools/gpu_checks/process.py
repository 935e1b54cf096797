"""Run a check in its own process, so that a crash or hang affects only that check."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from gpu_checks.check import Check, Result, Settings

_ENOUGH_S = 5.0
"""With less left no check is started: loading torch alone takes that long."""


def run_check(
    check: Check, settings: Settings, environment: Mapping[str, str], left_s: float
) -> Result:
    """Run `check` and wait for it.

    Args:
        check: what to run.
        settings: for the check; its log and answer are in `scratch`, in a folder of its name.
        environment: variables of its process.
        left_s: seconds left for it and all others. A check that does not finish in them is
            "no-time".
    """
    if left_s < min(_ENOUGH_S, check.limit_s):
        return Result(name=check.name, status="no-time", reason="not begun: the time was up")
    folder = settings.scratch / check.name
    folder.mkdir()
    limit_s = min(check.limit_s, left_s)
    start = time.monotonic()
    code = _run(_task(check, settings, folder, limit_s), folder, environment, limit_s)
    seconds = time.monotonic() - start
    answer = _read(folder / "answer.json")
    fields: dict[str, Any] = {"name": check.name, "seconds": seconds}
    if code == 0 and answer is not None:
        return Result(**fields, **answer)
    figures = {} if answer is None else answer["figures"]
    if code is None and limit_s < check.limit_s:
        return Result(**fields, status="no-time", reason="ended: the time was up", figures=figures)
    return Result(**fields, status="failed", reason=_why(code, limit_s, folder), figures=figures)


def log_tail(check: Check, settings: Settings, num_lines: int) -> list[str]:
    """Return the last lines that a check printed; none if it was not started."""
    try:
        text = (settings.scratch / check.name / "log.txt").read_text("utf-8", "replace")
    except FileNotFoundError:
        return []
    return [line for line in text.splitlines() if line.strip()][-num_lines:]


def _task(check: Check, settings: Settings, folder: Path, limit_s: float) -> str:
    photographs = settings.photographs
    return json.dumps(
        {
            "function": check.function,
            "arguments": dict(check.arguments),
            "settings": {
                "scratch": str(settings.scratch),
                "photographs": None if photographs is None else str(photographs),
            },
            "limit_s": limit_s,
            "answer": str(folder / "answer.json"),
        }
    )


def _run(task: str, folder: Path, environment: Mapping[str, str], limit_s: float) -> int | None:
    """Run the process; return its exit code, None if it had to be killed."""
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "gpu_checks.child", task],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return None
        finally:
            # Its child processes would continue, and hold the GPU.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _read(path: Path) -> dict[str, Any] | None:
    try:
        answer: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    return answer


def _why(code: int | None, limit_s: float, folder: Path) -> str:
    """Describe how a process ended that gave no answer, or failed after giving one."""
    if code is None:
        return f"hung: not done after {limit_s:.0f} s"
    if code < 0:
        return f"crashed: killed by {signal.Signals(-code).name}"
    lines = (folder / "log.txt").read_text("utf-8", "replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
    return f"crashed: exit code {code} ({last})"
