"""`prepare` may be stopped, killed or out of space: the next run ends with the same bytes."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from alexnet_deploy.errors import OutputError
from tests.support.class_pictures import GOOD, SIZE, save_bad, save_good, save_noise
from tests.support.full_disk import files_limited_to
from tests.support.prepare_runs import (
    FORM,
    STORED,
    contents,
    interrupted_run,
    run,
    wait_for_threads,
)
from training.prepare import prepare

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a run of a few photographs be more than one batch."""
    monkeypatch.setattr("training.prepare._BATCH_SIZE", 2)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return save_good(tmp_path / "source")


@pytest.mark.parametrize("after", [0, 3, 10])
def test_an_interrupted_run_goes_on_to_the_same_bytes(
    source: Path, tmp_path: Path, after: int
) -> None:
    save_bad(source)
    run(source, tmp_path / "whole")
    target = tmp_path / "target"
    interrupted_run(source, target, after)
    assert (target / "unfinished.txt").exists()
    made = {name: (target / name).stat().st_ino for name in contents(target) if "/" in name}
    assert run(source, target).num_made == len(GOOD) - len(made)
    assert {name: (target / name).stat().st_ino for name in made} == made
    assert contents(target) == contents(tmp_path / "whole")


def test_a_finished_folder_is_unfinished_while_it_is_gone_over_again(
    source: Path, tmp_path: Path
) -> None:
    run(source, tmp_path / "target")
    interrupted_run(source, tmp_path / "target", 0)
    left = contents(tmp_path / "target")
    assert "unfinished.txt" in left
    assert "prepared.json" not in left


KILLED_AT_A_RENAME = """
import os, signal, sys
from pathlib import Path
from training import pictures, prepare
replace, count = os.replace, 0
def kill_or_replace(*paths):
    global count
    count += 1
    if count == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    replace(*paths)
os.replace = kill_or_replace
form = pictures.PictureForm(size=int(sys.argv[4]))
prepare.prepare(Path(sys.argv[1]), Path(sys.argv[2]), form=form, threads=1)
"""


# 8 pictures are renamed, then the mean image, then prepared.json.
@pytest.mark.parametrize(("rename", "num_whole"), [(1, 0), (5, 4), (9, 8), (10, 8)])
def test_a_run_killed_while_it_writes_goes_on_to_the_same_bytes(
    source: Path, tmp_path: Path, rename: int, num_whole: int
) -> None:
    run(source, tmp_path / "whole")
    target = tmp_path / "target"
    command = [sys.executable, "-c", KILLED_AT_A_RENAME, str(source), str(target)]
    killed = subprocess.run([*command, str(rename), str(SIZE)], cwd=ROOT, check=False)
    assert killed.returncode == -9
    left = contents(target)
    assert "prepared.json" not in left
    assert len([name for name in left if name.endswith(".part")]) == 1
    assert len([name for name in left if name in STORED.values()]) == num_whole
    assert run(source, target).num_made == len(GOOD) - num_whole
    assert contents(target) == contents(tmp_path / "whole")


def test_a_full_disk_is_an_error_that_leaves_what_is_stored(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "whole")
    target = tmp_path / "target"
    interrupted_run(source, target, 2)
    # Other threads may have stored all that were left; one has to be stored yet.
    sorted(target.rglob("*.jpg"))[0].unlink()
    before = contents(target)
    with files_limited_to(1000), pytest.raises(OutputError, match=r"\.jpg: cannot be written"):
        run(source, target)
    wait_for_threads()
    assert contents(target).items() >= before.items()
    run(source, target)
    assert contents(target) == contents(tmp_path / "whole")


class Changes(RuleBasedStateMachine):
    """Photographs come, change and go, runs stop; one that ends then equals a fresh one."""

    NAMES = st.sampled_from(["a/1.jpg", "a/2.png", "b/1.jpg", "b/c/3.bmp"])

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.source, self.target, self.fresh = (self.folder / name for name in "stf")
        self.clock = 0
        for name in ("a/0.png", "b/0.png"):
            self.save(name, 0)

    # The clock, because two changes can fall on one tick of the file system's.
    @rule(name=NAMES, seed=st.integers(0, 3))
    def save(self, name: str, seed: int) -> None:
        save_noise(self.source / name, (60 + seed, 70), seed)
        self.clock += 1
        os.utime(self.source / name, ns=(self.clock, self.clock))

    @rule(name=NAMES)
    def remove(self, name: str) -> None:
        for folder, file in (
            (self.source, name),
            (self.target, name),
            (self.target, f"{name}.jpg"),
        ):
            (folder / file).unlink(missing_ok=True)

    @rule(after=st.integers(0, 5))
    def interrupt(self, after: int) -> None:
        interrupted_run(self.source, self.target, after)

    @rule()
    def finish(self) -> None:
        run(self.source, self.target)
        shutil.rmtree(self.fresh, ignore_errors=True)
        run(self.source, self.fresh)
        assert contents(self.target) == contents(self.fresh)

    def teardown(self) -> None:
        shutil.rmtree(self.folder)


def test_after_any_changes_and_interruptions_the_folder_is_that_of_a_fresh_run() -> None:
    few = settings(max_examples=10, stateful_step_count=8)
    run_state_machine_as_test(Changes, settings=few)


def test_two_runs_at_once_do_not_meet(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    refused = []

    def run_again(path: Path, error: str | None) -> None:
        with pytest.raises(OutputError, match="another process is preparing photographs there"):
            run(source, target)
        refused.append(path)

    report = prepare(source, target, form=FORM, on_result=run_again)
    assert len(refused) == report.num_made == len(GOOD)
