"""LD: the distributions of the box edges are distilled like class distributions."""

from __future__ import annotations

import torch
from torch import Tensor

from ds2d2_yolo.core.checks import check_same_shape
from ds2d2_yolo.core.losses.implicit import softmax_kd
from ds2d2_yolo.core.precision import float32_or_64

_EPS = torch.finfo(torch.float32).eps


def localization_loss(
    student_logits: Tensor, teacher_logits: Tensor, weight: Tensor, temperature: float = 10.0, divisor: float = 4.0
) -> Tensor:
    """Return the weighted mean over the cells of the divergence between the distributions of the box edges.

    ``sum_a w_a sum_e K_ae / (d sum_a w_a)``. K_ae is ``softmax_kd`` of edge e of cell a, divided by the number of bins,
    as the published code averages over the bins.

    Source: Zheng et al., "Localization Distillation for Dense Object Detection", CVPR 2022, arXiv 2102.12252, main
    distillation region, with d = 4; "Localization Distillation for Object Detection", TPAMI 2023, arXiv 2204.05957,
    sums over the edges of an oriented box, d = 1. Not part of the published method.

    Args:
        student_logits (torch.Tensor): Logits of the bins, shape (B, N, E, bins) for E edges of N cells.
        teacher_logits (torch.Tensor): Logits of the teacher, same shape; get no gradient.
        weight (torch.Tensor): Weight w of each cell, shape (B, N); 0 leaves a cell out. Gets no gradient.
        temperature (float): Temperature T of ``softmax_kd``, above 0.
        divisor (float): d, above 0.

    Returns:
        (torch.Tensor): Scalar of at least 0, exactly 0 with zero gradient on identical logits, and without weight.

    Raises:
        ValueError: If the shapes do not fit together or the temperature is not positive.

    Examples:
        >>> student, teacher = torch.zeros(1, 2, 4, 3), torch.zeros(1, 2, 4, 3)
        >>> teacher[0, 0, 0, 0] = 5.0
        >>> localization_loss(student, teacher, torch.tensor([[1.0, 1.0]]))
        tensor(0.1257)
    """
    check_same_shape(student_logits, teacher_logits, "logits")
    if weight.shape != student_logits.shape[:2]:
        raise ValueError(f"one weight per cell: got {tuple(weight.shape)} for logits {tuple(student_logits.shape)}")
    edges = softmax_kd(student_logits, teacher_logits, temperature).sum(-1) / student_logits.shape[-1]
    with torch.autocast(student_logits.device.type, enabled=False):
        weight = float32_or_64(weight.detach())
        return (weight * edges).sum() / (divisor * weight.sum() + _EPS)
