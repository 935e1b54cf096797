"""A run that is killed again and again, and resumed, ends as one that was not."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.training_sets import (
    SMALL_PAPER,
    Recorder,
    options,
    same_but_for_times,
)
from training.train import train

ROOT = Path(__file__).resolve().parents[2]


pytestmark = pytest.mark.usefixtures("small")

KILLED_AGAIN_AND_AGAIN = """
import dataclasses, os, random, signal, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import pytest
from tests.support import training_sets
from training.train import train
data, whole, output = map(Path, sys.argv[2:])
options = training_sets.options(data, whole, training_sets.SMALL_PAPER)

def run(options):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.data.Data.guessing_error", 1.0)
        with training_sets.small_network(patch):
            train(options, training_sets.Recorder())

def run_in_child(dies_at):
    calls = 0
    def dying(function):
        def call(*arguments):
            nonlocal calls
            calls += 1
            if calls == dies_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments)
        return call
    for name in ("replace", "unlink", "fsync"):
        setattr(os, name, dying(getattr(os, name)))
    run(dataclasses.replace(options, output=output, resume=any(output.glob("step-*.pt"))))

def kills():
    # Where files change: a run's first checkpoint takes six calls, and clearing up after a death
    # some more, so that later deaths come in later epochs.
    yield from ((call, None) for call in (3, 5, 8, 7, 9, 6, 10, 12))
    yield from ((0, delay_s) for delay_s in (0.1, 0.3))  # and anywhere

run(options)
for dies_at, delay_s in kills():
    child = os.fork()  # on one thread torch has started none that a fork would lose
    if child == 0:
        run_in_child(dies_at)
        os._exit(0)
    if delay_s:
        time.sleep(delay_s)
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""


def test_a_run_killed_again_and_again_ends_with_the_same_numbers(
    photographs: Path, tmp_path: Path
) -> None:
    whole, killed = (
        options(photographs, tmp_path / name, SMALL_PAPER) for name in ("whole", "killed")
    )
    folders = [str(path) for path in (ROOT, photographs, whole.output, killed.output)]
    command = [sys.executable, "-c", KILLED_AGAIN_AND_AGAIN, *folders]
    subprocess.run(command, check=True, capture_output=True)
    train(dataclasses.replace(killed, resume=True), Recorder())
    assert same_but_for_times(whole.output, killed.output)
    assert not list(killed.output.glob(".*")), "half a file was left"
