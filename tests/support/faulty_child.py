"""Let each operation of a scenario fail once, with each error; see tests/test_faults.py.

    python -m tests.support.faulty_child SCENARIO PLACE [every]

It is started by `disk_watch.run_watched`. A first run without a fault finds the operations. Each
fault is a line of JSON on standard output: operation, error, outcome, and what was wrong
afterwards, or null. All are tried in this one process, so a lock or a file that a failure leaves
open is found, too.

SQLite writes page after page: of such a row of writes to one file the first fails, with `every`
each one.
"""

import errno
import json
import os
import shutil
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from alexnet_deploy.errors import OutputError
from tests.support.disk_watch import Operation, Watch
from tests.support.fault_scenarios import Scenario, scenarios

ERRORS = (errno.ENOSPC, errno.EIO)


class Trial:
    """A scenario, and a place to fail in.

    Args:
        scenario: what runs.
        place: an empty folder.
    """

    def __init__(self, scenario: Scenario, place: Path) -> None:
        self._scenario = scenario
        self._watch = Watch()
        self._work, self._template = place / "work", place / "template"
        self._work.mkdir()
        scenario.prepare(self._work)
        self._work.rename(self._template)

    def operations(self) -> list[str]:
        """Run undisturbed, and return what was done, as "sync index/ledger.sqlite"."""
        self._begin()
        operations: list[Operation] = []
        with self._watch.recording(self._work, operations):
            self._scenario.run(self._work)
        self._scenario.check_done(self._work)
        return [f"{each.kind} {os.path.relpath(each.path, self._work)}" for each in operations]

    def fail(self, number: int, operation: str, error: int) -> tuple[str, str | None]:
        """Run with a fault; return what became of it, and what was wrong then or later."""
        self._begin()
        try:
            with self._watch.failing(self._work, number, error):
                outcome = self._outcome()
            if outcome == "completed":
                self._scenario.check_done(self._work)
            self._scenario.check(self._work)
            # One that could not be removed is left to the next process that writes there.
            if not is_leftover(operation):
                assert not list(self._work.glob(".alexnet-deploy-*.part"))
            with self._watch.failing(self._work, -1, 0):  # for its quick syncs
                self._scenario.run(self._work)
            self._scenario.check_done(self._work)
        except Exception:
            return "", traceback.format_exc()
        return outcome, None

    def _outcome(self) -> str:
        try:
            self._scenario.run(self._work)
        except OutputError as error:
            return f"OutputError: {error}"
        return "completed"

    def _begin(self) -> None:
        shutil.rmtree(self._work, ignore_errors=True)
        shutil.copytree(self._template, self._work)


def is_leftover(operation: str) -> bool:
    """Return whether an operation removes a temporary file, or what an unfinished run had."""
    return operation.startswith(("unlink .alexnet-deploy-", "unlink .vectors."))


def scenario_of(name: str) -> Scenario:
    """Return a scenario by its name."""
    if name == "checkpoint":
        from tests.support.checkpoint_scenario import CheckpointScenario

        return CheckpointScenario()
    if name == "pull":
        from tests.support.pull_scenario import PullScenario

        return PullScenario()
    return dict(scenarios())[name]


def chosen(operations: Sequence[str], *, every: bool) -> Iterator[int]:
    """Yield the numbers of the operations that are to fail."""
    before = ""
    for number, operation in enumerate(operations):
        is_next_page = operation == before and "/ledger.sqlite" in operation
        if every or not is_next_page:
            yield number
        before = operation


def main() -> None:
    """Try all faults of a scenario."""
    name, place, *every = sys.argv[1:]
    trial = Trial(scenario_of(name), Path(place).resolve())
    operations = trial.operations()
    for number in chosen(operations, every=bool(every)):
        for error in ERRORS:
            outcome, problem = trial.fail(number, operations[number], error)
            line = {"operation": operations[number], "error": errno.errorcode[error]}
            text = json.dumps(line | {"outcome": outcome, "problem": problem})
            sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    main()
