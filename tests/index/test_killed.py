"""What changes an index is killed inside a step, killed again, and then finished.

A small version of tools/kill_index.py, with a runner that sees colours only.
"""

import dataclasses
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import alexnet_deploy.index.model
from alexnet_deploy.index.storage import open_storage_to_write
from tests.support.fake_runner import save_photograph
from tests.support.index_killing import Account, Life, lost_photographs
from tests.support.killed_child import open_colour_runner
from tests.support.killed_runs import STEPS, Kill, Log, Run, aimed_kill, random_kill
from tests.support.killed_scenarios import Difference, Scenario, State, make_scenarios, settle

NUM_PHOTOGRAPHS, BATCH_SIZE = 40, 12
SEGMENT_BYTES = 10 * 2 * 4096  # ten vectors: each batch crosses from one segment into the next
NUM_INSIDE, NUM_KILLS = 2, 40
SCENARIO_OF = {
    "prune": "changed",
    "compress": "changed",
    "removal": "exact",
    "coder": "coder",
    "import": "added",
    "migration": "hashed",
    "hash": "hashed",
    "export": "exported",
}
"""In which a step is looked for; the others in `new`."""


@pytest.fixture(autouse=True)
def _searches_use_the_fake_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alexnet_deploy.index.model, "open_runner_of", open_colour_runner)


def save_photographs(folder: Path) -> Path:
    """Save photographs of different colours, two copies and a damaged one; return the first."""
    rng = np.random.default_rng(0)
    for number in range(NUM_PHOTOGRAPHS):
        red, green, blue = map(int, rng.integers(1, 256, 3))
        save_photograph(folder / f"{number:02d}.png", (red, green, blue))
    for copy in (9, 33):
        (folder / f"{copy:02d}.png").write_bytes((folder / "04.png").read_bytes())
    (folder / "30.png").write_bytes(b"no photograph")
    for path in folder.iterdir():
        settle(path)
    return folder / "00.png"


@pytest.fixture(scope="module")
def scenarios(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Scenario]:
    place = tmp_path_factory.mktemp("killed").resolve()
    spare = [save_photograph(place / "spare" / f"{n}.png", (9 * n, 77, 200)) for n in range(10)]
    return make_scenarios(
        Run(directory=str(place), segment_bytes=SEGMENT_BYTES, is_fake=True, batch_size=BATCH_SIZE),
        save_photographs,
        spare,
        random.Random(0),
    )


@pytest.mark.parametrize("step", STEPS)
def test_a_run_killed_inside_a_step_is_finished_as_if_nothing_had_happened(
    scenarios: dict[str, Scenario], step: str, tmp_path: Path
) -> None:
    rng, account = random.Random(step), Account()
    scenario = scenarios[SCENARIO_OF.get(step, "new")]

    def next_kill() -> Kill | None:
        is_enough = account.num_inside(step) >= NUM_INSIDE
        return None if is_enough else aimed_kill(step, scenario.log, rng)

    # A kill may come too late for its step, and a run may finish before it.
    while account.num_inside(step) < NUM_INSIDE and account.aimed.total() < NUM_KILLS:
        directory = tmp_path.resolve() / "index"
        Life(scenario=scenario, directory=directory, account=account, rng=rng).run(next_kill)
    assert account.num_inside(step) >= NUM_INSIDE


def test_a_run_killed_at_any_moment_is_finished_as_if_nothing_had_happened(
    scenarios: dict[str, Scenario], tmp_path: Path
) -> None:
    rng, account = random.Random(0), Account()
    for scenario in scenarios.values():
        kill = random_kill(scenario.log, rng)
        directory = tmp_path.resolve() / "index"
        life = Life(scenario=scenario, directory=directory, account=account, rng=rng)
        life.run(iter([kill, None]).__next__)
    assert account.num_finished == len(scenarios)


def test_the_undisturbed_runs_go_through_all_steps(scenarios: dict[str, Scenario]) -> None:
    embedding = {"append", "sync", "insert", "commit"}
    for name, steps in {
        "new": {*embedding, "creation", "compress"},
        "changed": {*embedding, "prune", "compress"},
        "exact": {"removal"},
        "coder": {"coder"},
        "imported": {"creation", "import"},
        "added": {"import"},
        "hashed": {"migration", "hash"},
        "exported": {"export"},
    }.items():
        log = scenarios[name].log
        assert {step for step in STEPS if any(log.visits(step))} == steps, name


def test_the_undisturbed_runs_do_what_each_is_for(scenarios: dict[str, Scenario]) -> None:
    new, changed, exact = (scenarios[name] for name in ("new", "changed", "exact"))
    assert any(changed.log.visits("compress/record/old file"))
    assert changed.before.hashes.keys() > changed.after.hashes.keys() > set()
    assert exact.before.num_compressed == len(exact.before.vectors)
    assert exact.after.num_compressed == 0
    assert scenarios["coder"].after.coder_widths == (8, 64)
    hashed, added = scenarios["hashed"], scenarios["added"]
    assert (len(hashed.before.hashes), len(hashed.after.hashes)) == (0, len(new.after.vectors))
    assert (len(added.before.imported), len(added.after.imported)) == (1, 2)
    assert not added.before.imported.items() <= added.after.imported.items()
    assert len(scenarios["exported"].after.exported) > 1
    for scenario, part in (
        (changed, "prune/append"),
        (scenarios["imported"], "import/append"),
        (hashed, "hash/rows"),
    ):
        assert len(list(scenario.log.visits(part))) > 1, part
    assert sorted(row[-2] for row in new.after.rows.values()).count("failed") == 1
    # Two copies and the damaged one have no vector of their own.
    assert len(new.after.vectors) == NUM_PHOTOGRAPHS - 3
    assert sum(map(len, new.log.batches)) == NUM_PHOTOGRAPHS - 3


A, B, C = (bytes([number]) * 32 for number in range(3))


@pytest.mark.parametrize(
    ("batches", "there", "lost"),
    [
        ([(A, B)], (A, B), ()),
        ([(A, B)], (), (A, B)),
        ([(A,), (B, C)], (A,), (B, C)),
    ],
)
def test_a_kill_may_cost_the_batch_at_hand(
    batches: list[tuple[bytes, ...]], there: tuple[bytes, ...], lost: tuple[bytes, ...]
) -> None:
    log = Log(was_killed=True, batches=batches)
    assert lost_photographs(log, State(), State(vectors=dict.fromkeys(there, b""))) == lost


@pytest.mark.parametrize(
    ("batches", "before", "there", "was_killed", "reason"),
    [
        ([(A,), (A, B)], (), (A, B), True, "embedded twice"),
        ([(A, A)], (), (A,), True, "embedded twice"),
        ([(A, B)], (B,), (A, B), True, "embedded twice"),
        ([(A, B)], (), (A,), True, "1 of a batch of 2"),
        ([(A,), (B,)], (), (B,), True, "0 of a batch of 1"),
        ([(A,), (B,)], (), (A,), False, "0 of a batch of 1"),
    ],
)
def test_the_account_finds_what_is_embedded_twice_or_in_part(
    batches: list[tuple[bytes, ...]],
    before: tuple[bytes, ...],
    there: tuple[bytes, ...],
    was_killed: bool,
    reason: str,
) -> None:
    log = Log(was_killed=was_killed, batches=batches)
    states = [State(vectors=dict.fromkeys(known, b"")) for known in (before, there)]
    with pytest.raises(Difference, match=reason):
        lost_photographs(log, *states)


@pytest.mark.parametrize(
    ("name", "field", "reason"),
    [
        ("new", "vectors", "the vector of .* is another one"),
        ("hashed", "hashes", "the hashes of .* are other ones"),
        ("exported", "exported", "of an export there is"),
    ],
)
def test_one_bit_is_a_difference(
    scenarios: dict[str, Scenario], name: str, field: str, reason: str, tmp_path: Path
) -> None:
    scenario = scenarios[name]
    *others, (key, value) = getattr(scenario.after, field).items()
    changed: dict[str, Any] = {
        field: {**dict(others), key: bytes([value[0] ^ 1]) + value[1:]},
    }
    after = dataclasses.replace(scenario.after, **changed)
    life = Life(
        scenario=dataclasses.replace(scenario, after=after),
        directory=tmp_path.resolve() / "index",
        account=Account(),
        rng=random.Random(0),
    )
    with pytest.raises(Difference, match=reason):
        life.run(iter([None]).__next__)


def test_a_row_that_is_counted_and_not_there_is_a_difference(
    scenarios: dict[str, Scenario], tmp_path: Path
) -> None:
    directory = Path(scenarios["imported"].run.directory)
    shutil.copytree(directory, tmp_path / "index")
    with open_storage_to_write(tmp_path / "index") as index, index.ledger.transaction():
        index.ledger.execute("DELETE FROM photographs WHERE id = 1")
    with pytest.raises(Difference, match=r"has \d+ of \d+ rows of .*a\.parquet"):
        State.read(tmp_path / "index")
