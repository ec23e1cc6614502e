"""Share of a teacher's feature that an adapted student feature explains. Not part of the published method."""

from __future__ import annotations

import torch
from torch import Tensor

from ds2d2_yolo.core.checks import check_feature_map, check_same_shape


def explained_variance(student: Tensor, teacher: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return the coefficient of determination R^2 of an adapted student feature for a teacher feature.

    ``R^2 = 1 - sum (T - A S)^2 / sum (T - m)^2`` with the mean m of each channel of T over images and cells: 1 for a
    perfect fit, 0 for one that is as good as m, negative for a worse one. Not part of the published method.

    The computation runs in float32 with autocast off, or in float64 if an input is float64. It has no gradient and
    needs no wait for a GPU.

    Args:
        student (torch.Tensor): Adapted student feature A S of shape (B, C, H, W).
        teacher (torch.Tensor): Teacher feature T of shape (B, C, H, W).
        valid (torch.Tensor, optional): Boolean mask (B,) of the images that count; default all.

    Returns:
        (torch.Tensor): Scalar; 0 where T does not vary or no image counts.

    Raises:
        ValueError: If the shapes differ.
        TypeError: If the student feature is not floating point.

    Examples:
        >>> teacher = torch.tensor([[[[0.0, 2.0]]]])
        >>> explained_variance(teacher, teacher), explained_variance(torch.ones(1, 1, 1, 2), teacher)
        (tensor(1.), tensor(0.))
    """
    check_same_shape(student, teacher, "features")
    check_feature_map(student)
    student, teacher = student.detach(), teacher.detach()
    dtype = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
    counted = teacher.new_ones(len(teacher), dtype=torch.bool) if valid is None else valid
    with torch.autocast(student.device.type, enabled=False):
        sums = torch.where(counted[:, None], teacher.sum((2, 3), dtype=dtype), 0).sum(0)
        cells = counted.sum().clamp(min=1) * teacher[0, 0].numel() if len(teacher) else 1
        mean = (sums / cells)[:, None, None]
        residual, total = student.new_zeros((), dtype=dtype), student.new_zeros((), dtype=dtype)
        for s, t, counts in zip(student, teacher, counted, strict=True):  # image by image, to avoid copies of the batch
            residual += torch.where(counts, torch.linalg.vector_norm(t.to(dtype) - s).square(), 0)
            total += torch.where(counts, torch.linalg.vector_norm(t.to(dtype) - mean).square(), 0)
    return torch.where(total > 0, 1 - residual / total, 0)
