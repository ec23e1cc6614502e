"""Checks of tensors that several functions of the core share."""

from __future__ import annotations

from torch import Tensor


def check_feature_map(x: Tensor) -> None:
    """Raise unless x is a non-empty floating-point tensor of shape (B, C, H, W).

    Args:
        x (torch.Tensor): Feature map.

    Raises:
        ValueError: If x is not four-dimensional, or has no row or no column.
        TypeError: If x is not floating point.

    Examples:
        >>> import torch
        >>> check_feature_map(torch.zeros(2, 8, 4, 4))
        >>> check_feature_map(torch.zeros(8, 4, 4))
        Traceback (most recent call last):
        ValueError: expected a feature map of shape (B, C, H, W), got (8, 4, 4)
    """
    if x.ndim != 4:
        raise ValueError(f"expected a feature map of shape (B, C, H, W), got {tuple(x.shape)}")
    if not x.is_floating_point():
        raise TypeError(f"expected a floating-point feature map, got {x.dtype}")
    if x.shape[2] == 0 or x.shape[3] == 0:
        raise ValueError(f"a feature map needs at least one row and one column, got {tuple(x.shape)}")


def check_same_shape(student: Tensor, teacher: Tensor, name: str) -> None:
    """Raise unless student and teacher have one shape.

    Args:
        student (torch.Tensor): Tensor of the student.
        teacher (torch.Tensor): Tensor of the teacher.
        name (str): What the tensors are, in the plural, for the message.

    Raises:
        ValueError: If the shapes differ.

    Examples:
        >>> import torch
        >>> check_same_shape(torch.zeros(2, 3), torch.zeros(2, 4), "logits")
        Traceback (most recent call last):
        ValueError: student and teacher logits must have one shape, got (2, 3) and (2, 4)
    """
    if student.shape != teacher.shape:
        raise ValueError(
            f"student and teacher {name} must have one shape, got {tuple(student.shape)} and {tuple(teacher.shape)}"
        )
