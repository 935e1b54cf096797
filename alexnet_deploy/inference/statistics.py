"""How far chance reaches: an interval of an accuracy, and two models on the same photographs.

Only photographs that one model has right and the other wrong tell the two apart. Right is what has
the true class as its prediction, of equally likely classes the first.
"""

import math
from dataclasses import dataclass

import numpy as np

from alexnet_deploy.inference.predictions import Predictions

_Z_95 = 1.959963984540054  # of the normal distribution, 95 % within


def wilson_interval(share: float, number: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of a share of all photographs like these (Wilson 1927).

    On the very photographs of a published figure, the same network comes much closer to it.

    Args:
        share: 0..1, measured; a sum of fractions for ties is as good as a count.
        number: of photographs, 1 or more.
    """
    squared = _Z_95**2 / number
    middle = (share + squared / 2) / (1 + squared)
    half = math.sqrt(squared * (share * (1 - share) + squared / 4)) / (1 + squared)
    return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedCounts:
    """How often two models are right on the same photographs.

    Attributes:
        num_photographs: 1 or more.
        num_both: both are right.
        num_only_first: the first is right, the second wrong.
        num_only_second: the second is right, the first wrong.
    """

    num_photographs: int
    num_both: int
    num_only_first: int
    num_only_second: int

    @property
    def first_top1(self) -> float:
        """The first's accuracy, 0..1."""
        return (self.num_both + self.num_only_first) / self.num_photographs

    @property
    def second_top1(self) -> float:
        """The second's accuracy, 0..1."""
        return (self.num_both + self.num_only_second) / self.num_photographs

    @property
    def difference(self) -> float:
        """The second's accuracy less the first's, -1..1."""
        return (self.num_only_second - self.num_only_first) / self.num_photographs

    @property
    def difference_interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of `difference`.

        Wald's with one photograph added to each of the two counts that differ, after Bonett and
        Price (Journal of Educational and Behavioral Statistics 37, 2012), as Fagerland, Lydersen
        and Laake recommend (Statistics in Medicine 33, 2014).
        """
        size = self.num_photographs + 2
        first, second = (self.num_only_first + 1) / size, (self.num_only_second + 1) / size
        half = _Z_95 * math.sqrt((first + second - (second - first) ** 2) / size)
        return max(-1.0, second - first - half), min(1.0, second - first + half)

    @property
    def p_value(self) -> float:
        """McNemar's exact test, two-sided (Psychometrika 12, 1947).

        The chance that the two counts differ by as much or more, were each photograph on which the
        models differ as likely to fall to either. In whole numbers, so neither approximated nor
        overflowing.
        """
        differ = self.num_only_first + self.num_only_second
        fewer = min(self.num_only_first, self.num_only_second)
        ways = total = 1
        for chosen in range(fewer):
            ways = ways * (differ - chosen) // (chosen + 1)
            total += ways
        return min(1.0, 2 * total / (1 << differ))

    def sentence(self) -> str:
        """Say in plain words what the counts and the p-value mean."""
        if not self.num_only_first + self.num_only_second:
            return "right and wrong on the same photographs, every one"
        p = self.p_value
        judged = (
            "so the difference may be chance"
            if p >= 0.05
            else "so the difference is hardly chance, on photographs such as these"
        )
        return (
            f"right on {_counted(self.num_only_second)} where the other is wrong, wrong on "
            f"{self.num_only_first:,} where it is right: "
            f"p = {p:.2g} (McNemar, exact), {judged}"
        )


def paired_counts(first: Predictions, second: Predictions) -> PairedCounts:
    """Count, over the photographs that both have read."""
    counted = first.is_counted & second.is_counted
    one, other = first.is_right[counted], second.is_right[counted]
    return PairedCounts(
        num_photographs=int(counted.sum()),
        num_both=int(np.count_nonzero(one & other)),
        num_only_first=int(np.count_nonzero(one & ~other)),
        num_only_second=int(np.count_nonzero(other & ~one)),
    )


def _counted(number: int) -> str:
    return f"{number:,} photograph{'' if number == 1 else 's'}"
