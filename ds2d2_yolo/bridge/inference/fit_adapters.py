"""Adapters in closed form, for pairs of models without trained ones. Not part of the published method."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from ds2d2_yolo.core.ridge import PENALTY, ridge_map, second_moments
from ds2d2_yolo.errors import DS2D2Error


@torch.no_grad()
def fit_adapters(batches: Iterable[tuple[list[Tensor], list[Tensor]]], penalty: float = PENALTY) -> list[Tensor]:
    """Fit the adapter of each level by ridge regression, see `core.ridge.ridge_map`.

    The sums are taken in float64 on the CPU. Not part of the published method, which trains the adapters.

    Args:
        batches (Iterable[tuple[list[Tensor], list[Tensor]]]): Student's and teacher's features of each batch,
            B x C x H x W by level.
        penalty (float): Strength of the penalty, above 0.

    Returns:
        (list[Tensor]): Weight of each adapter, Ct x Cs x 1 x 1, float32; zeros for a student's feature of zeros.

    Raises:
        DS2D2Error: If the features are not finite.
        ValueError: If there is no batch.
    """
    sums: list[tuple[Tensor, Tensor]] = []
    for student, teacher in batches:
        moments = [second_moments(s.cpu().double(), t.cpu().double()) for s, t in zip(student, teacher, strict=True)]
        sums = [(a + c, b + d) for (a, b), (c, d) in zip(sums, moments, strict=True)] if sums else moments
    if not sums:
        raise ValueError("there is no batch to fit the adapters to")
    if not all(moment.isfinite().all() for level in sums for moment in level):
        raise DS2D2Error("the features of teacher or student are not finite: no adapters can be fitted")
    # sums of zeros have no solution
    weights = [ridge_map(cross, gram, penalty).nan_to_num(0) for cross, gram in sums]
    return [weight.float()[:, :, None, None].contiguous() for weight in weights]
