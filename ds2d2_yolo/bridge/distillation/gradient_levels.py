"""How the gradient of the task loss and of each term spreads over the levels of the student's neck."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from ds2d2_yolo.bridge.distillation.gains import TASK, is_positive, level_key


def level_fractions(norms: Iterable[Mapping[str, float]], name: str, strides: Sequence[float]) -> list[float]:
    """Return the part of a squared gradient on each level.

    ``|gradient on the level|^2 / sum over the levels of |gradient on the level|^2``, the mean over the batches.

    Args:
        norms (Iterable[Mapping[str, float]]): Norms of each batch, see `gradient_norms.measure_gradients`.
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
                f"{term} acts on stride {strides[top]:g}: {100 * parts[top]:.2g} % of its squared gradient, "
                f"{100 * task[top]:.2g} % of the task loss's"
            )
    return lines
