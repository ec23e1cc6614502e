"""Mean, standard deviation and confidence interval of paired differences over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt


@dataclass(frozen=True)
class SampleStatistics:
    """Mean and standard deviation of a sample.

    Attributes:
        n (int): Number of values.
        mean (float): Their mean.
        sd (float | None): Standard deviation of the sample, ``sqrt(sum((x - mean)^2) / (n - 1))``; None for one value.
    """

    n: int
    mean: float
    sd: float | None


@dataclass(frozen=True)
class PairedDifference(SampleStatistics):
    """Statistics of paired differences, with the confidence interval of their mean.

    Attributes:
        low (float | None): Lower end of the confidence interval; None for one pair.
        high (float | None): Upper end; None for one pair.
    """

    low: float | None
    high: float | None


def sample_statistics(values: Sequence[float]) -> SampleStatistics:
    """Return mean and standard deviation of a sample.

    Args:
        values (Sequence[float]): At least one value.

    Returns:
        (SampleStatistics): With ``n - 1`` in the denominator of the variance.

    Examples:
        >>> sample_statistics([1.0, 2.0, 3.0])
        SampleStatistics(n=3, mean=2.0, sd=1.0)
    """
    n = len(values)
    mean = sum(values) / n
    sd = sqrt(sum((x - mean) ** 2 for x in values) / (n - 1)) if n > 1 else None
    return SampleStatistics(n, mean, sd)


def paired_difference(arm: Mapping[int, float], baseline: Mapping[int, float], level: float) -> PairedDifference | None:
    """Return the mean difference of an arm from the baseline over seeds, with its confidence interval.

    ``d_i = arm_i - baseline_i`` over the n seeds that both have, ``m = mean(d)``, ``s`` their standard deviation. The
    interval is ``m -+ t s / sqrt(n)``, where ``t`` is the ``(1 + level) / 2`` quantile of Student's t distribution with
    ``n - 1`` degrees of freedom. It assumes that the differences are independent draws of one normal distribution,
    which a few seeds cannot show.

    Args:
        arm (Mapping[int, float]): Value of each seed.
        baseline (Mapping[int, float]): Value of each seed.
        level (float): Share of such intervals that contain the true mean, above 0 and under 1.

    Returns:
        (PairedDifference | None): Without interval for one pair; None if no seed is shared.

    Examples:
        >>> difference = paired_difference({0: 2.0, 1: 4.0}, {0: 1.0, 1: 1.0}, 0.95)
        >>> difference.mean, round(difference.high, 2)
        (2.0, 14.71)
    """
    shared = sorted(arm.keys() & baseline.keys())
    if not shared:
        return None
    sample = sample_statistics([arm[seed] - baseline[seed] for seed in shared])
    if sample.sd is None:
        return PairedDifference(sample.n, sample.mean, None, None, None)
    half = t_quantile((1 + level) / 2, sample.n - 1) * sample.sd / sqrt(sample.n)
    return PairedDifference(sample.n, sample.mean, sample.sd, sample.mean - half, sample.mean + half)


def t_quantile(probability: float, degrees_of_freedom: int) -> float:
    """Return a quantile of Student's t distribution.

    Args:
        probability (float): Above 0 and under 1.
        degrees_of_freedom (int): At least 1.

    Returns:
        (float): The t below which the share `probability` of the distribution lies.

    Examples:
        >>> round(t_quantile(0.975, 2), 4)
        4.3027
    """
    from scipy.special import stdtrit  # a second to import, and the command line does not need it

    return float(stdtrit(degrees_of_freedom, probability))
