"""Adapters in closed form, for pairs of models without trained ones. Not part of the published method."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from ds2d2_yolo.errors import DS2D2Error

RIDGE = 1e-3  # of the mean energy of a student's channel: small, and enough for channels that depend on each other

SMALLEST_MU = 1e-12  # for features of zeros, whose adapter is then zero


@torch.no_grad()
def fit_adapters(batches: Iterable[tuple[list[Tensor], list[Tensor]]], ridge: float = RIDGE) -> list[Tensor]:
    """Fit the adapter of each level by ridge regression.

    ``A = (sum T S') (sum S S' + mu I)^-1`` with S (Cs x n) and T (Ct x n) the features at all n cells of a batch, the
    sums over the batches, and ``mu = ridge x mean diagonal of sum S S'``. It minimises ``sum |A S - T|^2 + mu |A|^2``.
    Not part of the published method, which trains the adapters.

    Args:
        batches (Iterable[tuple[list[Tensor], list[Tensor]]]): Student's and teacher's features of each batch,
            B x C x H x W by level.
        ridge (float): Factor of mu, above 0.

    Returns:
        (list[Tensor]): Weight of each adapter, Ct x Cs x 1 x 1, float32, on the device of the features.

    Raises:
        DS2D2Error: If the features are not finite.
        ValueError: If there is no batch.
    """
    sums: list[tuple[Tensor, Tensor]] = []
    for student, teacher in batches:
        products = [_products(s, t) for s, t in zip(student, teacher, strict=True)]
        sums = [(a + c, b + d) for (a, b), (c, d) in zip(sums, products, strict=True)] if sums else products
    if not sums:
        raise ValueError("there is no batch to fit the adapters to")
    return [_solve(student, cross, ridge) for student, cross in sums]


def explained_variance(adapted: Tensor, teacher: Tensor) -> float:
    """Return R^2 of adapted student features: ``1 - sum (A S - T)^2 / sum (T - mean T)^2``, means by channel.

    Args:
        adapted (Tensor): A S, B x C x H x W.
        teacher (Tensor): T, of the same shape.

    Returns:
        (float): At most 1; below 0 where the mean of each channel is nearer to T than A S is.
    """
    variance = (teacher - teacher.mean((0, 2, 3), keepdim=True)).double().square().sum()
    error = (adapted - teacher).double().square().sum()
    return float(1 - error / variance.clamp(min=torch.finfo(torch.float64).tiny))


def _products(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Return S S' (Cs x Cs) and T S' (Ct x Cs) of a batch, in float64 on the CPU."""
    s, t = (x.float().transpose(0, 1).flatten(1).cpu().double() for x in (student, teacher))
    return s @ s.T, t @ s.T


def _solve(student: Tensor, cross: Tensor, ridge: float) -> Tensor:
    """Return an adapter's weight from the sums of S S' and T S'."""
    mu = (ridge * student.diagonal().mean()).clamp(min=SMALLEST_MU)
    regular = student + mu * torch.eye(len(student), dtype=student.dtype)
    if not (regular.isfinite().all() and cross.isfinite().all()):
        raise DS2D2Error("the features of teacher or student are not finite: no adapters can be fitted")
    weight = torch.linalg.solve(regular, cross.T).T  # the matrix is symmetric
    return weight.float()[:, :, None, None].contiguous()
