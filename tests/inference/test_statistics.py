"""Intervals and McNemar's test, against tables of others and against counting."""

import itertools
from fractions import Fraction
from math import comb

import pytest

from alexnet_deploy.inference.statistics import PairedCounts, wilson_interval


@pytest.mark.parametrize(
    ("right", "number", "low", "high"),
    [
        # R. G. Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (20, 20, 0.8389, 1.0),
        # By hand, with z^2 = 3.8414588: (0.5 + 0.1920729 -+ 1.959964 * 0.1860206) / 1.3841459.
        (5, 10, 0.2366, 0.7634),
        # By hand: (0.56518 + 0.0000384 -+ 1.959964 * 0.0022171) / 1.0000768.
        (28_259, 50_000, 0.5608, 0.5695),
    ],
)
def test_wilsons_interval_is_that_of_tables(
    right: int, number: int, low: float, high: float
) -> None:
    assert wilson_interval(right / number, number) == pytest.approx((low, high), abs=5e-5)


def paired(only_first: int, only_second: int, *, both: int = 0, neither: int = 0) -> PairedCounts:
    return PairedCounts(
        num_photographs=both + neither + only_first + only_second,
        num_both=both,
        num_only_first=only_first,
        num_only_second=only_second,
    )


@pytest.mark.parametrize("num_differing", range(13))
def test_the_p_value_is_the_share_of_all_ways_to_fall_that_are_as_uneven(
    num_differing: int,
) -> None:
    for only_first in range(num_differing + 1):
        uneven = abs(num_differing - 2 * only_first)
        ways = [abs(sum(way)) >= uneven for way in itertools.product((-1, 1), repeat=num_differing)]
        share = Fraction(sum(ways), len(ways))
        # Quotients of whole numbers, so exact in binary.
        assert paired(only_first, num_differing - only_first).p_value == float(share)


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    [
        # Fagerland, Lydersen, Laake, BMC Medical Research Methodology 13:91 (2013).
        (1, 7, 0.0703),
        (6, 16, 0.0525),
        (0, 0, 1.0),
        # From the normal distribution with Edwards's correction, z = 399 / 142.8286: p = 0.00521.
        (10_000, 10_400, 0.00521),
        (0, 2_000, 0.0),
    ],
)
def test_the_p_value_of_few_and_of_very_many(only_first: int, only_second: int, p: float) -> None:
    assert paired(only_first, only_second).p_value == pytest.approx(p, abs=5e-5)
    assert paired(only_second, only_first).p_value == paired(only_first, only_second).p_value


def test_the_interval_of_the_difference_is_bonetts_and_prices() -> None:
    # The first of the examples above, of 21 patients; by hand: p = 8 / 23 and 2 / 23, so
    # -6 / 23 -+ 1.959964 * sqrt((10 / 23 - 36 / 529) / 23).
    counts = paired(7, 1, both=1, neither=12)
    assert counts.difference == pytest.approx(-6 / 21)
    assert counts.difference_interval == pytest.approx((-0.5084, -0.0134), abs=5e-5)
    assert (counts.first_top1, counts.second_top1) == pytest.approx((8 / 21, 2 / 21))
    low, high = paired(0, 1).difference_interval
    assert -1 <= low < high <= 1


@pytest.mark.parametrize(("first", "second"), [(0.05, 0.05), (0.1, 0.2), (0.02, 0.1), (0.3, 0.3)])
def test_the_interval_holds_the_difference_in_95_of_100_samples(
    first: float, second: float
) -> None:
    """All outcomes of 40 photographs, each with its probability."""
    size, covered = 40, 0.0
    for one in range(size + 1):
        for other in range(size + 1 - one):
            ways = comb(size, one) * comb(size - one, other)
            rest = (1 - first - second) ** (size - one - other)
            low, high = paired(one, other, neither=size - one - other).difference_interval
            covered += ways * first**one * second**other * rest * (low <= second - first <= high)
    # Of few photographs whole numbers leave no interval with exactly 95 %.
    assert 0.94 <= covered <= 0.99


@pytest.mark.parametrize(
    ("only_first", "only_second", "said"),
    [
        (11, 23, "right on 23 photographs where the other is wrong, wrong on 11 where it is right: "
         "p = 0.058 (McNemar, exact), so the difference may be chance"),
        (5, 1, "right on 1 photograph where the other is wrong, wrong on 5 where"),
        (2, 40, "p = 4.1e-10 (McNemar, exact), so the difference is hardly chance"),
        (0, 0, "right and wrong on the same photographs"),
    ],
)  # fmt: skip
def test_a_sentence_says_what_the_counts_mean(only_first: int, only_second: int, said: str) -> None:
    assert said in paired(only_first, only_second, both=3).sentence()
