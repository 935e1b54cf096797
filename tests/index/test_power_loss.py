"""The power fails after any operation of an update: all that it said was committed is there.

See `support.power_loss` for what is modelled and what is not. A longer run, with 50 mixed states
after each operation and another seed:

    POWER_LOSS="7 50" python -m pytest tests/index/test_power_loss.py
"""

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from tests.support.disk_watch import Operation, built_library, run_watched
from tests.support.power_loss import Disk, Fate

SEED, NUM_MIXED = os.environ.get("POWER_LOSS", "0 1").split()


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_library(tmp_path_factory.mktemp("library"))


def lose_power(scenario: str, library: Path, place: Path) -> dict[str, Any]:
    module = "tests.support.power_loss_child"
    figures: dict[str, Any] = json.loads(
        run_watched(library, module, scenario, place, SEED, NUM_MIXED)
    )
    return figures


@pytest.mark.parametrize("scenario", ["new", "changed", "repaired"])
def test_nothing_committed_is_lost_with_the_power(
    scenario: str, library: Path, tmp_path: Path
) -> None:
    figures = lose_power(scenario, library, tmp_path)
    assert figures["wrong"] == []
    assert figures["operations"] > 100
    assert figures["states"] > 100


def test_vectors_that_are_not_synced_are_found_missing(library: Path, tmp_path: Path) -> None:
    """Guard the test above."""
    assert "is missing, its segment was" in str(lose_power("careless", library, tmp_path)["wrong"])


def done(kind: str, path: Path, **fields: object) -> Operation:
    values = {"other": "", "inode": 0, "offset": 0, "data": b""} | fields
    return Operation(kind=kind, path=str(path), **values)  # type: ignore[arg-type]


def contents(disk: Disk, target: Path, fate: Fate, seed: int = 0) -> dict[str, bytes]:
    place = target / f"{fate}{seed}"
    disk.write_to(place, fate, random.Random(seed))
    return {path.name: path.read_bytes() for path in place.iterdir()}


def test_the_disk_has_what_was_synced_and_may_have_the_rest(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "old").write_bytes(b"old" * 400)
    inode = (root / "old").stat().st_ino
    disk = Disk(root)
    disk.do(done("write", root / "old", inode=inode, data=b"new" * 400))
    disk.do(done("create", root / "other", inode=1))
    disk.do(done("write", root / "other", inode=1, data=b"x"))
    disk.do(done("sync", root / "other", inode=1))
    assert contents(disk, tmp_path, "lost") == {"old": b"old" * 400}
    assert contents(disk, tmp_path, "kept") == {"old": b"new" * 400, "other": b"x"}
    mixed = [contents(disk, tmp_path, "mixed", seed) for seed in range(40)]
    assert {frozenset(state) for state in mixed} == {
        frozenset({"old", "other"}),
        frozenset({"old"}),
    }
    assert {state["other"] for state in mixed if "other" in state} == {b"x"}
    torn = {(b"old" * 400)[: 512 * n] + (b"new" * 400)[512 * n :] for n in (1, 2)}
    assert torn & {state["old"] for state in mixed}
    # Now the name is on the disk as well; a rename is not, until the next sync.
    disk.do(done("sync", root, inode=root.stat().st_ino))
    disk.do(done("rename", root / "other", other=str(root / "old")))
    assert contents(disk, tmp_path, "lost", 1) == {"old": b"old" * 400, "other": b"x"}
    assert contents(disk, tmp_path, "kept", 1) == {"old": b"x"}
