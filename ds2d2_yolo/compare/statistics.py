"""Mean, spread and confidence interval of paired differences, over seeds; plain numbers, no model and no file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import atan, cos, pi, sin, sqrt


@dataclass(frozen=True)
class Spread:
    """Mean of several values and how far they lie apart.

    Attributes:
        n (int): Number of values.
        mean (float): Their mean.
        sd (float | None): Standard deviation of the sample, ``sqrt(sum((x - mean)^2) / (n - 1))``; None for one value.
    """

    n: int
    mean: float
    sd: float | None


@dataclass(frozen=True)
class Difference(Spread):
    """Mean of paired differences and the interval that it is known to.

    Attributes:
        low (float | None): Lower end of the confidence interval; None for one pair.
        high (float | None): Upper end.
    """

    low: float | None
    high: float | None


def spread(values: Sequence[float]) -> Spread:
    """Return mean and standard deviation of values.

    Args:
        values (Sequence[float]): At least one.

    Returns:
        (Spread): Of the sample, with ``n - 1`` in the denominator.

    Examples:
        >>> spread([1.0, 2.0, 3.0])
        Spread(n=3, mean=2.0, sd=1.0)
    """
    n = len(values)
    mean = sum(values) / n
    sd = sqrt(sum((x - mean) ** 2 for x in values) / (n - 1)) if n > 1 else None
    return Spread(n, mean, sd)


def paired_difference(arm: Mapping[int, float], baseline: Mapping[int, float], level: float) -> Difference | None:
    """Return the mean of an arm's differences from the baseline, seed by seed, with its confidence interval.

    ``d_i = arm_i - baseline_i`` over the n seeds that both have, ``m = mean(d)``, ``s`` their standard deviation; the
    interval is ``m -+ t s / sqrt(n)`` with ``t`` the ``(1 + level) / 2`` quantile of Student's t with ``n - 1`` degrees
    of freedom. It takes the differences as independent draws of one normal distribution, which few seeds cannot show.

    Args:
        arm (Mapping[int, float]): Value of each seed.
        baseline (Mapping[int, float]): Likewise.
        level (float): Share of such intervals that hold the true mean, above 0 and under 1.

    Returns:
        (Difference | None): Without interval for one pair; None where no seed is shared.

    Examples:
        >>> found = paired_difference({0: 2.0, 1: 4.0}, {0: 1.0, 1: 1.0}, 0.95)
        >>> found.mean, round(found.high, 2)
        (2.0, 14.71)
    """
    shared = sorted(arm.keys() & baseline.keys())
    if not shared:
        return None
    found = spread([arm[seed] - baseline[seed] for seed in shared])
    if found.sd is None:
        return Difference(found.n, found.mean, None, None, None)
    half = t_quantile((1 + level) / 2, found.n - 1) * found.sd / sqrt(found.n)
    return Difference(found.n, found.mean, found.sd, found.mean - half, found.mean + half)


def t_quantile(probability: float, freedom: int) -> float:
    """Return the quantile of Student's t distribution, by bisection of its distribution function.

    Args:
        probability (float): From 0.5 to under 1.
        freedom (int): Degrees of freedom, a whole number of at least 1.

    Returns:
        (float): The t under which a share `probability` of the distribution lies.

    Examples:
        >>> round(t_quantile(0.975, 2), 4)
        4.3027
    """
    low, high = 0.0, 1.0
    while t_within(high, freedom) < 2 * probability - 1:
        low, high = high, 2 * high
    for _ in range(100):  # halves the interval to the last bit
        middle = (low + high) / 2
        low, high = (middle, high) if t_within(middle, freedom) < 2 * probability - 1 else (low, middle)
    return (low + high) / 2


def t_within(t: float, freedom: int) -> float:
    """Return the probability that Student's t lies within -t and t.

    With ``a = atan(t / sqrt(n))``: for even n ``sin a (1 + 1/2 cos^2 a + 1 3/(2 4) cos^4 a + ...)`` of n/2 terms; for
    odd n ``2/pi (a + sin a (cos a + 2/3 cos^3 a + 2 4/(3 5) cos^5 a + ...))`` of (n-1)/2 terms in the inner bracket.

    Args:
        t (float): 0 or more.
        freedom (int): Degrees of freedom n, a whole number of at least 1.

    Returns:
        (float): From 0 to 1.

    Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4.
    """
    angle = atan(t / sqrt(freedom))
    odd = freedom % 2
    term, total = (cos(angle) if odd else 1.0), 0.0
    for k in range(freedom // 2):
        total += term
        term *= cos(angle) ** 2 * (2 * k + 1 + odd) / (2 * k + 2 + odd)
    return 2 / pi * (angle + sin(angle) * total) if odd else sin(angle) * total
