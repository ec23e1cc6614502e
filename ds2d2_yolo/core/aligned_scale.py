"""Scale alignment of an adapted feature before a frozen head. Not part of the published method."""

from __future__ import annotations

import torch
from torch import Tensor

from ds2d2_yolo.core.checks import check_feature_map, check_same_shape

_SMALLEST_VARIANCE = 1e-6  # a channel that does not vary gets the teacher's mean


def align_scale(student: Tensor, teacher: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return the student feature with the teacher's mean and deviation in each channel.

    ``y = (x - mean x) / sqrt(var x + 1e-6) * std T + mean T``, statistics over images and cells. The gradient passes
    through the statistics of x. Not part of the published method.

    Source: CrossKD (arXiv 2306.11369), whose code aligns the scale of features before the frozen teacher's head.

    The computation runs in float32 with autocast off, or in float64 if an input is float64.

    Args:
        student (torch.Tensor): Adapted student feature x of shape (B, C, H, W).
        teacher (torch.Tensor): Teacher feature T of shape (B, C, H, W); gets no gradient.
        valid (torch.Tensor, optional): Boolean mask (B,) of the images over which the statistics are taken; default
            all. Features must be finite in all images.

    Returns:
        (torch.Tensor): Aligned feature of shape (B, C, H, W), in the student's type.

    Raises:
        ValueError: If the shapes differ.
        TypeError: If the student feature is not floating point.

    Examples:
        >>> align_scale(torch.tensor([[[[-10.0, 10.0]]]]), torch.tensor([[[[1.0, 5.0]]]])).flatten()
        tensor([1., 5.])
    """
    check_same_shape(student, teacher, "features")
    check_feature_map(student)
    dtype = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
    with torch.autocast(student.device.type, enabled=False):
        mask = (student.new_ones(len(student)) if valid is None else valid).to(dtype)[:, None, None, None]
        x = student.to(dtype)
        mean, variance = _moments(x, mask)
        teacher_mean, teacher_variance = _moments(teacher.detach().to(dtype), mask)
        scale = teacher_variance.sqrt() / (variance + _SMALLEST_VARIANCE).sqrt()
        return ((x - mean) * scale + teacher_mean).to(student.dtype)


def _moments(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance of each channel over the images of the mask, 1 x C x 1 x 1 each."""
    cells = (mask.sum() * x.shape[2] * x.shape[3]).clamp(min=1)
    mean = (mask * x).sum((0, 2, 3), keepdim=True) / cells
    return mean, (mask * (x - mean).square()).sum((0, 2, 3), keepdim=True) / cells
