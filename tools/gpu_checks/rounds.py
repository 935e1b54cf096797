"""Comparable times: measured in turns, round after round."""

import statistics
from collections.abc import Callable, Mapping, Sequence

Seconds = Mapping[str, Sequence[float]]
"""By name; equal indices are the same round."""


def in_turns(timers: Mapping[str, Callable[[], float]], num_rounds: int) -> Seconds:
    """Take each time once per round, so that all see the same variations of the machine.

    Args:
        timers: each does its work and returns its seconds; every other round they are called in
            reverse order.
        num_rounds: how many rounds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in timers}
    for number in range(num_rounds):
        for name in list(timers)[:: -1 if number % 2 else 1]:
            seconds[name].append(timers[name]())
    return seconds


def median_ratio(dividends: Sequence[float], divisors: Sequence[float]) -> float:
    """Return the median over rounds of the ratio of two times of the same round."""
    return statistics.median(a / b for a, b in zip(dividends, divisors, strict=True))
