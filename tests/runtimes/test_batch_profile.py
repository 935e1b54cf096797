"""Batch sizes of an engine: any that make sense, and a clear refusal of the others."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alexnet_deploy.errors import UsageError
from alexnet_deploy.runtimes.batch_profile import BatchProfile


@pytest.mark.parametrize(("asked", "nearest"), [(1, 2), (2, 2), (3, 3), (8, 8), (9, 8), (10**6, 8)])
def test_the_nearest_batch_that_is_allowed(asked: int, nearest: int) -> None:
    assert BatchProfile(min=2, opt=4, max=8).nearest(asked) == nearest


@given(sizes=st.lists(st.integers(1, 2**16), min_size=3, max_size=3).map(sorted))
def test_ascending_sizes_become_three_shapes(sizes: list[int]) -> None:
    smallest, usual, largest = sizes
    profile = BatchProfile(min=smallest, opt=usual, max=largest)
    assert profile.shapes((224, 224, 3)) == (
        (smallest, 224, 224, 3),
        (usual, 224, 224, 3),
        (largest, 224, 224, 3),
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"min": 0}, r"profile.min is 0, expected 1"),
        ({"opt": -3}, r"profile.opt is -3"),
        ({"max": 2**40}, r"profile.max is 1099511627776, expected 1 to 65536"),
        ({"max": True}, r"profile.max is True"),
        ({"opt": 64}, r"profile.min=1, profile.opt=64, profile.max=32: expected min <= opt <= max"),
        ({"min": 33, "max": 64}, r"profile.min=33, profile.opt=32"),
    ],
)
def test_sizes_that_cannot_be_are_refused_by_their_names(
    wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        BatchProfile(**wrong)
