"""Times are taken in turns, compared within a round, and summed up by medians; no real clock."""

from collections.abc import Callable

import pytest

from alexnet_deploy.timing import Spread, in_turns, median_ratio, seconds_of


def test_what_is_timed_takes_turns() -> None:
    calls: list[str] = []
    rounds: list[int] = []

    def timer(name: str, seconds: list[float]) -> Callable[[], float]:
        def take() -> float:
            calls.append(name)
            return seconds.pop(0)

        return take

    timers = {"a": timer("a", [1, 2, 3]), "b": timer("b", [2, 8, 3])}
    seconds = in_turns(timers, 3, rounds.append)
    assert "".join(calls) == "abbaab"
    assert rounds == [1, 2, 3]
    assert seconds == {"a": [1, 2, 3], "b": [2, 8, 3]}
    assert median_ratio(seconds["b"], seconds["a"]) == 2


@pytest.mark.parametrize(("at_least_s", "calls"), [(0, 1), (5, 3), (6, 3), (7, 4)])
def test_short_work_is_repeated_until_the_clock_can_tell(at_least_s: float, calls: int) -> None:
    now, done = 100.0, 0

    def work() -> None:
        nonlocal now, done
        now, done = now + 2, done + 1

    assert seconds_of(work, at_least_s=at_least_s, clock=lambda: now) == 2
    assert done == calls


def test_half_of_the_values_lie_between_the_quartiles() -> None:
    assert Spread.of([5, 1, 4, 2, 3]) == Spread(median=3, lower=2, upper=4)
    assert Spread.of([7.0]) == Spread(median=7, lower=7, upper=7)
