"""Random changes and searches of one index against a plain model: no difference, ever.

ALEXNET_OPERATIONS=10000 makes it as many of each kind of index.
"""

import os
from pathlib import Path

import pytest

from tests.support.changing_index import DIMENSION, ChangingIndex

NUM_OPERATIONS = int(os.environ.get("ALEXNET_OPERATIONS", "150"))
LIMITS = {
    "compressed_search._FEWEST": 8,
    "compressed_search._FEW": 4,
    "compressed_scan._SHARD_ROWS": 128,
    "compressed_files._BLOCK_ROWS": 50,
    "compressing._BLOCK_NUMBERS": 70 * DIMENSION,
}
"""So that in a small index everything happens that does in a large one."""


@pytest.fixture(autouse=True)
def _everything_happens_in_a_small_index(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in LIMITS.items():
        monkeypatch.setattr(f"alexnet_deploy.index.{name}", value)


@pytest.mark.parametrize("kind", ["exact", "compressed", "with codes"])
def test_whatever_happens_a_search_finds_what_is_there(kind: str, tmp_path: Path) -> None:
    is_compressed = kind != "exact"
    index = ChangingIndex(tmp_path, 0, is_compressed=is_compressed, has_codes=kind == "with codes")
    try:
        for _ in range(NUM_OPERATIONS):
            index.step()
    finally:
        index.close()
    proved = [line for line in index.told if "vectors were compared" in line]
    unusable = [line for line in index.told if "every vector is compared" in line]
    ignored = [line for line in index.told if "whatever the effort" in line]
    assert set(index.told) == set(proved + unusable + ignored)
    assert not [line for line in unusable if "of a later state of this one" not in line]
    assert bool(proved) == bool(unusable) == is_compressed
    assert ignored or is_compressed
