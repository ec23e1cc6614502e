"""Ridge regression of a teacher's feature on a student's, from sums over cells. Not part of the published method."""

from __future__ import annotations

import torch
from torch import Tensor

from ds2d2_yolo.core.checks import check_feature_map

PENALTY = 1e-3  # of the adapters that are fitted to features, relative to the mean squared student channel


def second_moments(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sums ``T S'`` and ``S S'`` over the cells of a batch. Not part of the published method.

    The computation runs in float32 with autocast off, or in float64 if an input is float64.

    Args:
        student (torch.Tensor): Student feature S of shape (B, Cs, H, W).
        teacher (torch.Tensor): Teacher feature T of shape (B, Ct, H, W).

    Returns:
        cross (torch.Tensor): Sum of T S' of shape (Ct, Cs).
        gram (torch.Tensor): Sum of S S' of shape (Cs, Cs).

    Raises:
        ValueError: If the features differ in images, rows or columns.
        TypeError: If a feature is not floating point.

    Examples:
        >>> cross, gram = second_moments(torch.ones(1, 2, 1, 3), torch.full((1, 1, 1, 3), 2.0))
        >>> cross.tolist(), gram.tolist()
        ([[6.0, 6.0]], [[3.0, 3.0], [3.0, 3.0]])
    """
    check_feature_map(student)
    check_feature_map(teacher)
    if student.shape[0] != teacher.shape[0] or student.shape[2:] != teacher.shape[2:]:
        raise ValueError(f"features do not fit together: {tuple(student.shape)} and {tuple(teacher.shape)}")
    dtype = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
    with torch.autocast(student.device.type, enabled=False):
        s, t = student.to(dtype).flatten(2), teacher.to(dtype).flatten(2)
        cross, gram = t @ s.mT, s @ s.mT  # image by image: no transposed copy of the features
    return cross.sum(0), gram.sum(0)


def ridge_map(cross: Tensor, gram: Tensor, penalty: float) -> Tensor:
    """Return the linear map A that fits T by A S. Not part of the published method.

    ``A = (sum T S') (sum S S' + mu I)^-1`` with ``mu = penalty x mean diagonal of sum S S'`` minimises
    ``sum |T - A S|^2 + mu |A|^2``. It does not change if both sums are multiplied by one factor.

    Args:
        cross (torch.Tensor): Sum of T S' of shape (Ct, Cs).
        gram (torch.Tensor): Sum of S S' of shape (Cs, Cs).
        penalty (float): Strength of the penalty, above 0.

    Returns:
        (torch.Tensor): A of shape (Ct, Cs), in the type of the sums. NaN if the sums cannot be inverted, such as zeros.

    Examples:
        >>> ridge_map(torch.tensor([[4.0]]), torch.tensor([[2.0]]), penalty=1.0)
        tensor([[1.]])
        >>> ridge_map(torch.zeros(1, 1), torch.zeros(1, 1), penalty=1.0)
        tensor([[nan]])
    """
    diagonal = torch.full_like(gram.diagonal(), penalty) * gram.diagonal().mean()
    factor, info = torch.linalg.cholesky_ex(gram + torch.diag(diagonal))
    solution = torch.cholesky_solve(cross.mT, factor).mT
    return torch.where(info == 0, solution, torch.nan)
