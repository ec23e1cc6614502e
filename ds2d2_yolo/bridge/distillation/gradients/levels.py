"""How the gradient of the task loss and of each term spreads over the levels of the student's neck, and its balance."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, median
from typing import TypeGuard

TASK = "task"
MAX_RATIO = 1e6  # bound for a level on which a term's gradient is close to 0


def level_key(name: str, stride: float | None) -> str:
    """Return the key of a gradient norm.

    Args:
        name (str): `TASK` or a term.
        stride (float | None): Stride of its level in pixels; None for all distilled levels together.

    Returns:
        (str): For example 'exlo@8', or 'exlo'.
    """
    return str(name) if stride is None else f"{name}@{stride:g}"


def is_positive(norm: float | None) -> TypeGuard[float]:
    """Return whether a norm was measured, and is positive and finite.

    Args:
        norm (float | None): The norm, None where there is none.

    Returns:
        (bool): Whether it counts.
    """
    return norm is not None and math.isfinite(norm) and norm > 0


def level_fractions(norms: Iterable[Mapping[str, float]], name: str, strides: Sequence[float]) -> list[float]:
    """Return the part of a squared gradient on each level.

    ``|gradient on the level|^2 / sum over the levels of |gradient on the level|^2``, the mean over the batches.

    Args:
        norms (Iterable[Mapping[str, float]]): Norms of each batch, see `norms.measure_gradients`.
        name (str): `TASK` or a term.
        strides (Sequence[float]): Strides of the levels.

    Returns:
        (list[float]): From 0 to 1 by level, of sum 1. Empty where no batch has a gradient.
    """
    keys = [level_key(name, stride) for stride in strides]
    # the norm on a level that no gradient reaches is NaN
    squares = [[norm**2 if is_positive(norm := batch.get(key)) else 0.0 for key in keys] for batch in norms]
    parts = [[square / total for square in batch] for batch in squares if (total := sum(batch)) > 0]
    return [fmean(level) for level in zip(*parts, strict=True)]


def balancing_weights(norms: Iterable[Mapping[str, float]], term: str, strides: Sequence[float]) -> list[float]:
    """Return weights that spread a term's gradient over the levels as the task loss's gradient is spread.

    ``w_l = L r_l / sum r`` for L levels, with r_l the median over the batches of ``|task gradient on l| / |gradient of
    the term on l at weight 1|``, at most `MAX_RATIO`. Their mean is 1: the gain alone sets the size of the
    term. Each level of an explicit term sends gradient into its own level only, so that the norm
    on a level is proportional to its weight. Not part of the published method.

    Args:
        norms (Iterable[Mapping[str, float]]): Norms of each batch, all levels at weight 1, see
            `norms.measure_gradients`.
        term (str): An explicit term.
        strides (Sequence[float]): Strides of the distilled levels.

    Returns:
        (list[float]): Weight of each level, of mean 1; 0 for a level that no gradient of the task loss or of the term
            reaches. Empty where no level has both.
    """
    measured = [batch for batch in norms if is_positive(batch.get(TASK))]
    ratios = []
    for stride in strides:
        pairs = [(batch.get(level_key(TASK, stride)), batch.get(level_key(term, stride))) for batch in measured]
        level = [min(MAX_RATIO, t / norm) if is_positive(t) else 0.0 for t, norm in pairs if is_positive(norm)]
        ratios.append(median(level) if level else 0.0)
    total = sum(ratios)
    return [len(ratios) * ratio / total for ratio in ratios] if total > 0 else []


def weighted_norms(
    batch: Mapping[str, float], weights: Mapping[str, Sequence[float]], strides: Sequence[float]
) -> dict[str, float]:
    """Return the norms of a batch as they are with weights of the levels.

    The norm of a term over all levels is the root of the sum of the squares of those on its levels.

    Args:
        batch (Mapping[str, float]): Norms, all levels at weight 1; empty if the batch could not be measured.
        weights (Mapping[str, Sequence[float]]): Weight of each level by term, for the terms that have such weights.
        strides (Sequence[float]): Strides of the distilled levels.

    Returns:
        (dict[str, float]): Norms with the same keys.
    """
    norms = dict(batch)
    for term, levels in weights.items() if batch else ():
        keys = [level_key(term, stride) for stride in strides]
        norms |= {key: weight * batch.get(key, math.nan) for key, weight in zip(keys, levels, strict=True)}
        norms[term] = math.hypot(*(norm for key in keys if is_positive(norm := norms[key])))
    return norms


def describe_weights(weights: Mapping[str, Sequence[float]], strides: Sequence[float]) -> list[str]:
    """Return one line for each term with measured weights of the levels.

    Args:
        weights (Mapping[str, Sequence[float]]): Weight of each level by term.
        strides (Sequence[float]): Strides of the distilled levels.

    Returns:
        (list[str]): Lines for the log.
    """
    names = ", ".join(f"{stride:g}" for stride in strides)
    return [
        f"measured weights of {term} on strides {names}: {', '.join(f'{weight:.3g}' for weight in levels)}"
        for term, levels in weights.items()
    ]


def describe_levels(norms: Sequence[Mapping[str, float]], terms: Iterable[str], strides: Sequence[float]) -> list[str]:
    """Return one line for each term: the level with most of its gradient, beside the task loss's part there.

    Args:
        norms (Sequence[Mapping[str, float]]): Norms of each batch.
        terms (Iterable[str]): The terms.
        strides (Sequence[float]): Strides of the distilled levels.

    Returns:
        (list[str]): Lines for the log; none where there is one level or nothing was measured.
    """
    task = level_fractions(norms, TASK, strides)
    lines = []
    for term in terms if len(strides) > 1 and task else ():
        if parts := level_fractions(norms, term, strides):
            top = max(range(len(strides)), key=parts.__getitem__)
            lines.append(
                f"{term} acts on stride {strides[top]:g}: {_percent(parts[top])} % of its squared gradient, "
                f"{_percent(task[top])} % of the task loss's"
            )
    return lines


def _percent(part: float) -> str:
    """Return a part in percent with two digits; 100 is not written as 1e+02."""
    return f"{100 * part:.0f}" if part >= 0.1 else f"{100 * part:.2g}"
