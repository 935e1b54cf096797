"""The trainer as a process: what it leaves when it is killed, and when its terminal is closed."""

import contextlib
import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.training_sets import save_classes
from tests.support.waiting import PATIENCE_S, wait_until

ROOT = Path(__file__).resolve().parents[2]

SLOW_SMALL_TRAINER = f"""
import sys, time
sys.path.insert(0, {str(ROOT)!r})
import pytest
from tests.support import training_sets
if __name__ == "__main__":
    from training import trainer
    from training.cli import main
    step = trainer.Trainer.step
    def slow_step(*arguments):
        time.sleep(0.1)
        return step(*arguments)
    trainer.Trainer.step = slow_step
    with pytest.MonkeyPatch.context() as patch, training_sets.small_network(patch):
        main()
"""
COMMAND = [
    *(sys.executable, "-c", SLOW_SMALL_TRAINER, "train", "p", "-o", "run", "--recipe", "modern"),
    *("--batch-size", "4", "--learning-rate", "1e-6", "--hold-out", "0.1", "--memory", "0"),
    *("--epochs", "40"),
]


@pytest.fixture(autouse=True)
def _photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Photographs in `p`, and the current folder above it."""
    monkeypatch.chdir(tmp_path)
    save_classes(Path("p"))


def group_of(process: subprocess.Popen[bytes]) -> dict[int, int]:
    """Return the living processes of a group, each with its parent."""
    listed = subprocess.run(["ps", "-eo", "pid,ppid,pgid,stat"], capture_output=True, check=True)
    rows = [line.split() for line in listed.stdout.decode().splitlines()[1:]]
    return {
        int(pid): int(parent)
        for pid, parent, group, state in rows
        if int(group) == process.pid and not state.startswith("Z")
    }


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start a process in a group of its own; the group ends with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start_one(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(command, start_new_session=True, **options))
        return started[-1]

    yield start_one
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=PATIENCE_S)


def test_workers_end_with_a_trainer_that_is_killed(
    start: Callable[..., subprocess.Popen[bytes]],
) -> None:
    process = start([*COMMAND, "--workers", "2"])

    def workers() -> list[int]:
        """Return the children of the server that forks them."""
        group = group_of(process)
        return [pid for pid, parent in group.items() if group.get(parent) == process.pid]

    wait_until(lambda: len(workers()) == 2)
    process.kill()
    process.wait(timeout=PATIENCE_S)
    wait_until(lambda: not group_of(process))


def test_a_terminal_that_is_closed_stops_with_a_checkpoint(
    start: Callable[..., subprocess.Popen[bytes]],
) -> None:
    """The system sends SIGHUP, and from then on nothing can be written there."""
    ours, its = pty.openpty()
    process = start(
        [*COMMAND, "--workers", "0"],
        stdin=its,
        stdout=its,
        stderr=its,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(its)
    os.set_blocking(ours, False)

    def takes_steps() -> bool:
        with contextlib.suppress(BlockingIOError):
            return b"epoch 1 of 40" in os.read(ours, 65536)
        return False

    wait_until(takes_steps)
    os.close(ours)
    process.wait(timeout=PATIENCE_S)
    assert len(list(Path("run").glob("step-*.pt"))) == 2
    wait_until(lambda: not group_of(process))
