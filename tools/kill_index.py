"""Test that an index survives SIGKILL at random moments, and inside each step of what changes it.

    python tools/kill_index.py TEST [--runs 200] [--json FILE]

Each scenario is first run undisturbed:

    new       an index of 180 photographs is created, including copies and a damaged file, and its
              vectors are compressed, with binary codes
    changed   half of them are gone, others renamed, replaced and added, and the run prunes, so
              vectors move, with their perceptual hashes, and are compressed anew
    exact     what is compressed is removed
    coder     the binary codes are made anew, by a coder of the user's
    hashed    `duplicates` stores perceptual hashes in an index of before there were any
    exported  the vectors are written into several files
    imported  an index is created of a file of vectors
    added     two files of vectors are imported into an index of photographs: one that has changed
              since an earlier import, and a new one

Segments are small, so that batches cross their boundaries. Runs are processes, killed from outside:
`--runs` of them at a random moment of the run, then at least ten inside each step and three inside
parts of steps, between two lines that the process writes on entering and leaving them. Vectors are
written in chunks of 4 KiB, so that a kill can fall between two.

After each kill the index is checked and searched, and the next run continues from there, killed
again or not. Each finished index must have the same ids, paths, vectors, hashes and exported files,
bit for bit, as the undisturbed one; of an export all files are there or not the first. How often a
photograph went through the network is counted from the logs. The tool stops at the first
difference, and prints what led to it.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from alexnet_deploy.photographs.finding import find_photographs
from alexnet_deploy.photographs.pipeline import default_threads
from tests.support.index_killing import Account, Life
from tests.support.killed_runs import STEPS, Kill, Run, aimed_kill, random_kill
from tests.support.killed_scenarios import Scenario, make_scenarios, settle

NUM_PHOTOGRAPHS = 180
NUM_SPARE = 60
SEGMENT_BYTES = 200_000  # 24 vectors of FC7; a batch has 32
NUM_BITS = 64  # of binary codes, for which that many vectors must be left
NUM_INSIDE_STEP, NUM_INSIDE_PART = 10, 3
PARTS = (
    *("creation/ledger", "creation/model", "creation/manifest"),
    *("prune/append", "prune/sync", "prune/other commit"),
    *("compress/axes", "compress/rows", "compress/record", "compress/record/old file"),
    *("removal/old file", "coder/axes", "coder/rows", "coder/record", "coder/record/old file"),
    *("import/append", "import/sync", "import/insert", "import/commit", "import/compress"),
    *("migration/other commit", "hash/rows", "export/file", "export/rename"),
)
AGAIN = 0.8  # share of killed runs followed by another killed run


class Plan:
    """The remaining kills, random ones first."""

    def __init__(self, num_random: int, account: Account) -> None:
        self._num_random = num_random
        self._account = account

    def steps(self) -> list[str]:
        """Return the steps, and parts of steps, not hit often enough."""
        targets = [(step, NUM_INSIDE_STEP) for step in STEPS]
        targets += [(part, NUM_INSIDE_PART) for part in PARTS]
        return [step for step, number in targets if self._account.num_inside(step) < number]

    def lives(self, scenarios: Collection[Scenario]) -> Iterator[Scenario]:
        """Yield by turns the scenarios that have kills left, until none remain."""
        for scenario in cycle(scenarios):
            if self._has_random() or self._possible(scenario):
                yield scenario
            elif not self.steps():
                return

    def kills(self, scenario: Scenario, rng: random.Random) -> Iterator[Kill | None]:
        """Yield the kills of one index, then None."""
        while (kill := self._kill(scenario, rng)) is not None:
            yield kill
            if rng.random() >= AGAIN:
                break
        yield None

    def _kill(self, scenario: Scenario, rng: random.Random) -> Kill | None:
        if self._has_random():
            return random_kill(scenario.log, rng)
        possible = self._possible(scenario)
        return aimed_kill(rng.choice(possible), scenario.log, rng) if possible else None

    def _has_random(self) -> bool:
        return self._account.random.total() < self._num_random

    def _possible(self, scenario: Scenario) -> list[str]:
        """Return the steps that a run of it goes through."""
        return [step for step in self.steps() if any(scenario.log.visits(step))]


def main() -> None:
    """Kill, compare and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=200, help="killed at random moments")
    parser.add_argument("--jobs", type=int, default=2, help="indexes under way at a time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    rng, account, start = random.Random(arguments.seed), Account(), time.monotonic()
    place = Path(tempfile.mkdtemp(prefix="alexnet-deploy-kill-")).resolve()
    photographs = rng.sample(
        list(find_photographs([arguments.folder])), NUM_PHOTOGRAPHS + NUM_SPARE
    )
    scenarios = make_scenarios(
        Run(directory=str(place), segment_bytes=SEGMENT_BYTES, ann=NUM_BITS),
        partial(copy_photographs, photographs[:NUM_PHOTOGRAPHS]),
        [path.resolve() for path in photographs[NUM_PHOTOGRAPHS:]],
        rng,
    )
    plan = Plan(arguments.runs, account)
    with ThreadPoolExecutor(arguments.jobs) as pool:

        def lived(number: int, scenario: Scenario) -> Account:
            rng, own = random.Random(f"{arguments.seed} {number}"), Account()
            directory = place / f"killed-{number}"
            life = Life(scenario=scenario, directory=directory, account=own, rng=rng)
            life.run(plan.kills(scenario, rng).__next__)
            return own

        lives = (pool.submit(lived, *life) for life in enumerate(plan.lives(scenarios.values())))
        waiting = set(islice(lives, arguments.jobs))
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for life in done:
                account.add(life.result())
                print(
                    f"{time.monotonic() - start:6.0f} s: {account.random.total()} kills at random, "
                    f"{account.aimed.total()} aimed, {account.num_finished} indexes finished, "
                    "all the same",
                    file=sys.stderr,
                )
            waiting |= set(islice(lives, len(done)))
    shutil.rmtree(place)
    figures = {
        "seed": arguments.seed,
        "cores": default_threads(),
        "jobs": arguments.jobs,
        **figures_of(scenarios, account),
        "minutes": round((time.monotonic() - start) / 60, 1),
    }
    text = json.dumps(figures, indent=1)
    print(text)
    if arguments.json is not None:
        arguments.json.write_text(f"{text}\n")


def copy_photographs(photographs: Sequence[Path], folder: Path) -> Path:
    """Copy the photographs, two of them twice, and damage the last; return one of the first."""
    targets = []
    for number, source in enumerate(photographs):
        targets.append(folder / f"{number // 20:02d}" / f"{number:03d}{source.suffix}")
        targets[-1].parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, targets[-1])
    shutil.copyfile(targets[0], targets[1])  # within one batch
    shutil.copyfile(targets[5], targets[-2])  # across batches
    targets[-1].write_bytes(targets[-1].read_bytes()[:1000])
    for target in targets:
        settle(target)
    return targets[2]


def figures_of(scenarios: Mapping[str, Scenario], account: Account) -> dict[str, Any]:
    """Return the figures of the test."""
    return {
        "scenarios": {
            name: {
                "killed": account.by_index[scenario.run.directory],
                "photographs": len(scenario.after.rows),
                "failed": sum(row[-2] == "failed" for row in scenario.after.rows.values()),
                "seconds_undisturbed": round(scenario.log.wall_s, 2),
                "embedded_undisturbed": sum(map(len, scenario.log.batches)),
            }
            for name, scenario in scenarios.items()
        },
        "killed": account.by_index.total(),
        "killed_at_random": account.random.total(),
        "killed_at_random_in": dict(account.random.most_common()),
        "killed_inside_step": {step: account.num_inside(step) for step in STEPS},
        "killed_inside_part": dict(sorted(account.aimed.items())),
        "indexes_finished_and_the_same": account.num_finished,
        "embedded": account.num_embedded,
        "embedded_again_of_uncommitted_batches": account.num_lost,
        "embedded_again_otherwise": account.num_embedded - account.num_lost - account.num_needed,
        "searches_after_kills": account.num_searches,
        "searches_during_runs": account.num_searches_meanwhile,
    }


if __name__ == "__main__":
    main()
