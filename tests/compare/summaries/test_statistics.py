"""Mean, spread and intervals of paired differences: against closed forms, textbook values and SciPy."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from ds2d2_yolo.compare.summaries.statistics import (
    PairedDifference,
    SampleStatistics,
    paired_difference,
    sample_statistics,
    t_quantile,
)

TABLE = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 9: 2.262, 30: 2.042}  # two-sided 95 %, from any textbook


def test_spread_by_hand() -> None:
    assert sample_statistics([0.30, 0.34, 0.38]) == SampleStatistics(3, pytest.approx(0.34), pytest.approx(0.04))
    assert sample_statistics([0.5]) == SampleStatistics(1, 0.5, None)


def t_within(t: float, freedom: int) -> float:
    """Return the probability that Student's t lies within -t and t.

    Closed forms for whole degrees of freedom: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 (odd)
    and 26.7.4 (even).
    """
    angle = math.atan(t / math.sqrt(freedom))
    odd = freedom % 2
    term, total = (math.cos(angle) if odd else 1.0), 0.0
    for k in range(freedom // 2):
        total += term
        term *= math.cos(angle) ** 2 * (2 * k + 1 + odd) / (2 * k + 2 + odd)
    return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total


@pytest.mark.parametrize(("freedom", "expected"), TABLE.items())
def test_quantile_of_the_textbook(freedom: int, expected: float) -> None:
    assert t_quantile(0.975, freedom) == pytest.approx(expected, abs=5e-4)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 8, 9, 10, 31, 100])
@pytest.mark.parametrize("probability", [0.5, 0.75, 0.95, 0.975, 0.9995])
def test_quantile_and_distribution_of_scipy(freedom: int, probability: float) -> None:
    t = t_quantile(probability, freedom)
    assert t == pytest.approx(float(stats.t.ppf(probability, freedom)), rel=1e-9, abs=1e-12)
    assert t_within(t, freedom) == pytest.approx(2 * probability - 1, abs=1e-12)


def test_paired_difference_by_hand() -> None:
    arm, base = {0: 0.40, 1: 0.44, 2: 0.42}, {0: 0.35, 1: 0.36, 2: 0.40}
    difference = paired_difference(arm, base, 0.95)  # differences 0.05, 0.08, 0.02: mean 0.05, sd 0.03
    t = 0.95 * math.sqrt(2 / (1 - 0.95**2))  # with 2 degrees of freedom the quantile has this closed form
    half = t * 0.03 / math.sqrt(3)
    assert difference == PairedDifference(
        3, *(pytest.approx(x, abs=1e-12) for x in (0.05, 0.03, 0.05 - half, 0.05 + half))
    )


def test_paired_interval_is_scipys() -> None:
    arm = dict(enumerate([0.41, 0.47, 0.39, 0.44, 0.45]))
    base = dict(enumerate([0.40, 0.42, 0.38, 0.45, 0.41]))
    for level in (0.5, 0.9, 0.99):
        expected = stats.ttest_rel(list(arm.values()), list(base.values())).confidence_interval(level)
        difference = paired_difference(arm, base, level)
        assert difference is not None
        assert (difference.low, difference.high) == (pytest.approx(expected.low), pytest.approx(expected.high))


def test_pairs_are_the_shared_seeds_alone() -> None:
    difference = paired_difference({0: 1.0, 1: 2.0, 7: 100.0}, {0: 0.5, 1: 1.0, 2: -100.0}, 0.95)
    assert difference is not None
    assert (difference.n, difference.mean) == (2, 0.75)


def test_one_pair_has_no_interval_and_none_no_difference() -> None:
    assert paired_difference({0: 0.5}, {0: 0.25}, 0.95) == PairedDifference(1, 0.25, None, None, None)
    assert paired_difference({0: 0.5}, {1: 0.25}, 0.95) is None


def test_what_all_seeds_share_does_not_widen_the_interval() -> None:
    base = {0: 0.2, 1: 0.5, 2: 0.3}  # seeds differ much, the arm gains the same on each
    difference = paired_difference({s: v + 0.1 for s, v in base.items()}, base, 0.95)
    assert difference is not None
    assert difference.low == pytest.approx(0.1)
    assert difference.high == pytest.approx(0.1)
