"""CWD: each channel of a feature map is a distribution over the cells."""

from __future__ import annotations

from torch import Tensor

from ds2d2_yolo.core.checks import check_same_shape
from ds2d2_yolo.core.losses.implicit import softmax_kd


def channel_wise_loss(student: Tensor, teacher: Tensor, tau: float = 1.0) -> Tensor:
    """Return the Kullback-Leibler divergence between the cell distributions of the channels.

    ``tau^2 / (B C) sum_b,c sum_i q log(q / p)`` with p and q the softmax of a channel of student and teacher over its
    cells i, at temperature tau.

    Source: Shu et al., "Channel-wise Knowledge Distillation for Dense Prediction", ICCV 2021, arXiv 2011.13256.
    Not part of the published method.

    Args:
        student (torch.Tensor): Features, shape (B, C, H, W).
        teacher (torch.Tensor): Features of the teacher, same shape; get no gradient.
        tau (float): Temperature, above 0.

    Returns:
        (torch.Tensor): Scalar of at least 0, exactly 0 with zero gradient on identical features.

    Raises:
        ValueError: If the shapes differ or tau is not positive.

    Examples:
        >>> import torch
        >>> x = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]])
        >>> channel_wise_loss(x, x), channel_wise_loss(x, -x)
        (tensor(0.), tensor(1.9853))
    """
    check_same_shape(student, teacher, "features")
    rows = softmax_kd(student.flatten(2), teacher.flatten(2), tau)
    return rows.sum() / max(rows.numel(), 1)
