"""A disk that fails once, at every operation of everything that writes: nothing is lost or torn.

Each operation that a first run finds fails once with "no space left" and once with "input/output
error". Then old files are whole, an index opens without problems and has all that it said it had
committed, and the next run completes. See `support.faulty_child`.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.support.disk_watch import built_library, run_watched
from tests.support.faulty_child import is_leftover

# Of each scenario, the kinds of operations that must be among those found, at least so often.
KINDS = {
    "new": {"create": 6, "write": 20, "sync": 20, "rename": 2, "unlink": 4, "mkdir": 2},
    "changed": {"create": 5, "write": 15, "sync": 15, "unlink": 6},
    "repaired": {"create": 4, "write": 10, "sync": 15, "unlink": 3},
    "npy": {"create": 9, "write": 20, "sync": 4, "rename": 4, "unlink": 8, "mkdir": 1},
    "parquet": {"create": 6, "write": 17, "sync": 1, "rename": 1, "unlink": 5, "mkdir": 1},
    "export": {"create": 3, "write": 3, "sync": 3, "rename": 3, "unlink": 1},
    "checkpoint": {"create": 2, "write": 2, "sync": 3, "rename": 2, "unlink": 1},
    "pull": {"create": 2, "write": 2, "sync": 2, "rename": 2, "unlink": 1, "mkdir": 2},
}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_library(tmp_path_factory.mktemp("library"))


def try_faults(scenario: str, library: Path, place: Path) -> list[dict[str, Any]]:
    output = run_watched(library, "tests.support.faulty_child", scenario, place)
    return [json.loads(line) for line in output.splitlines()]


@pytest.mark.parametrize("scenario", KINDS)
def test_a_fault_at_any_operation_is_told_and_costs_nothing(
    scenario: str, library: Path, tmp_path: Path
) -> None:
    trials = try_faults(scenario, library, tmp_path)
    wrong = [trial for trial in trials if trial["problem"]]
    assert wrong == []
    kinds = Counter(trial["operation"].split()[0] for trial in trials)
    for kind, number in KINDS[scenario].items():
        assert kinds[kind] >= 2 * number, kinds
    # SQLite does not look whether it could sync the folder of a new journal.
    completed = {trial["operation"] for trial in trials if trial["outcome"] == "completed"}
    assert {each for each in completed if not is_leftover(each)} <= {"sync index"}


def test_a_file_that_is_written_in_place_is_found_torn(library: Path, tmp_path: Path) -> None:
    """Guard the test above."""
    found = [
        (trial["operation"], trial["error"])
        for trial in try_faults("careless", library, tmp_path)
        if "'neither'" in (trial["problem"] or "")
    ]
    assert found == [("write file", "ENOSPC"), ("write file", "EIO")]
