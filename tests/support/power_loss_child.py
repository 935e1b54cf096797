"""Let the power fail at any moment of an update; see tests/index/test_power_loss.py.

    python -m tests.support.power_loss_child SCENARIO PLACE SEED NUM_MIXED

It is started by `disk_watch.run_watched`. The update runs once, and its operations are recorded,
SQLite's too. Then, after each of them, what the disk may hold is made: without all that was not
synced, with all of it, and NUM_MIXED times with parts of it. If NUM_MIXED is 1, not after every
one of the pages that SQLite writes to one file in a row. Each time the index must open without
problems, hold what it had said was committed, and be searched; now and then it is updated, too.
"careless" is "new" with a fault that this must find.
Prints the number of operations and of states that were tried, and what was wrong, as JSON.
"""

import json
import os
import random
import shutil
import sys
import traceback
from pathlib import Path

from alexnet_deploy.index import storage
from alexnet_deploy.index.ledger import PART_NAME
from alexnet_deploy.index.segments import Segments
from alexnet_deploy.inference.run import PhotographResult
from tests.support.disk_watch import Operation, Watch
from tests.support.fault_scenarios import IndexScenario, scenarios
from tests.support.faulty_child import chosen
from tests.support.power_loss import Disk, Fate

MAX_WRONG = 5
FINISHED_OF = 10
"""Of so many mixed states one is updated to the end."""


class Trial:
    """An update, and the states that the loss of power may leave.

    Args:
        scenario: the update.
        place: an empty folder.
    """

    def __init__(self, scenario: IndexScenario, place: Path) -> None:
        self._scenario = scenario
        self._watch = Watch()
        self._place = place
        self._work, self._disk = place / "work", place / "disk"
        self._work.mkdir()
        scenario.prepare(self._work)
        self.operations: list[Operation] = []
        # Of a rename both names may be on the disk; nobody reads the old one.
        scenario.harmless = {PART_NAME, f"{PART_NAME}-journal"}
        self.num_states = 0
        self.wrong: list[str] = []

    def record(self) -> Disk:
        """Run undisturbed; return the disk as it was before."""
        disk = Disk(self._work)
        note = self._scenario.note

        def marked(result: PhotographResult[Path]) -> None:
            self._watch.mark(str(result.source))
            note(result)

        vars(self._scenario)["note"] = marked
        with self._watch.recording(self._work, self.operations):
            self._scenario.run(self._work)
        self._scenario.check_done(self._work)
        vars(self._scenario)["note"] = note
        return disk

    def lose_power(self, disk: Disk, seed: int, num_mixed: int) -> None:
        """Try the states after each operation."""
        self._work.rename(self._disk)
        committed: list[Path] = []
        mixed: Fate = "mixed"
        after_each: list[Fate] = ["kept", *[mixed] * num_mixed]
        texts = [f"{each.kind} {each.path}" for each in self.operations]
        tried = set(chosen(texts, every=num_mixed > 1))
        for number, operation in enumerate(self.operations):
            disk.do(operation)
            if operation.kind == "mark":
                committed.append(Path(operation.path))
            # Only then is there something new to lose.
            fates: list[Fate] = ["lost"] if operation.kind in ("sync", "mark") else []
            if number in tried:
                fates += after_each
            for variant, fate in enumerate(fates):
                rng = random.Random(f"{seed} {number} {variant}")
                where = f"{number} {operation.kind} {os.path.relpath(operation.path, self._work)}"
                self._try(disk, fate, rng, committed, f"{where}, {fate} {variant}")
                if len(self.wrong) >= MAX_WRONG:
                    return

    def _try(
        self, disk: Disk, fate: Fate, rng: random.Random, committed: list[Path], where: str
    ) -> None:
        shutil.rmtree(self._work, ignore_errors=True)
        disk.write_to(self._work, fate, rng)
        shutil.rmtree(self._work / "photos")
        shutil.copytree(self._disk / "photos", self._work / "photos")
        self.num_states += 1
        self._scenario.committed = list(committed)
        try:
            with self._watch.failing(self._work, -1, 0):  # for its quick syncs
                self._scenario.check(self._work)
                if fate == "mixed" and rng.randrange(FINISHED_OF) == 0:
                    self._scenario.run(self._work)
                    self._scenario.check_done(self._work)
        except Exception:
            self.wrong.append(f"after {where}: {traceback.format_exc()}")


class _Careless(Segments):
    """A planted fault: vectors are named before they are on the disk."""

    def sync(self, start: int, stop: int) -> None:
        """Do nothing."""


def main() -> None:
    """Lose power, and print what came of it."""
    name, place, seed, num_mixed = sys.argv[1:]
    if name == "careless":
        name = "new"
        vars(storage)["Segments"] = _Careless
    scenario = dict(scenarios())[name]
    assert isinstance(scenario, IndexScenario)
    trial = Trial(scenario, Path(place).resolve())
    disk = trial.record()
    trial.lose_power(disk, int(seed), int(num_mixed))
    figures = {
        "operations": len(trial.operations),
        "states": trial.num_states,
        "wrong": trial.wrong,
    }
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
