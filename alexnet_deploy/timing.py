"""Comparable times: pieces of work in turns, round after round; medians, spread, paired ratios.

Seconds of two pieces are compared within a round only, since whatever else the machine does slows
one round more than another.
"""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The median of some values and their quartiles, between which half of them lie."""

    median: float
    lower: float
    upper: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Self:
        """Return the spread of one value or more."""
        found = sorted(values)
        if len(found) == 1:
            found *= 2
        lower, median, upper = statistics.quantiles(found, n=4, method="inclusive")
        return cls(median=median, lower=lower, upper=upper)


def in_turns(
    timers: Mapping[str, Callable[[], float]],
    num_rounds: int,
    on_round: Callable[[int], object] = lambda number: None,
    *,
    pause_s: float = 0.0,
) -> dict[str, list[float]]:
    """Take each time once per round, so that all see the same variations of the machine.

    Args:
        timers: each does its work and returns its seconds; every other round they are called in
            reverse order.
        num_rounds: how many rounds.
        on_round: called with the number of each round, from 1, when it begins.
        pause_s: seconds to wait before each, for instance until the threads of a runtime that wait
            for more work stop spinning.

    Returns:
        By name; equal indices are the same round.
    """
    taken: dict[str, list[float]] = {name: [] for name in timers}
    for number in range(num_rounds):
        on_round(number + 1)
        for name in list(timers)[:: -1 if number % 2 else 1]:
            time.sleep(pause_s)
            taken[name].append(timers[name]())
    return taken


def seconds_of(
    work: Callable[[], object],
    *,
    at_least_s: float = 0.0,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Return the mean seconds per call, of one call or as many as `at_least_s` takes."""
    start, count = clock(), 0
    while not count or clock() - start < at_least_s:
        work()
        count += 1
    return (clock() - start) / count


def median_ratio(dividends: Sequence[float], divisors: Sequence[float]) -> float:
    """Return the median over rounds of the ratio of two times of the same round."""
    return statistics.median(a / b for a, b in zip(dividends, divisors, strict=True))
