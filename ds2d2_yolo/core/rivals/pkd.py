"""PKD: features are compared by their Pearson correlation."""

from __future__ import annotations

import torch
from torch import Tensor

from ds2d2_yolo.core.checks import check_same_shape
from ds2d2_yolo.core.precision import float32_or_64

_EPS = 1e-6  # added to each deviation, as in the published code


def pearson_feature_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared difference of standardised features, halved.

    Each channel is standardised over batch and cells: ``z = (x - mean) / (deviation + 1e-6)`` with the unbiased
    deviation. The loss is ``mean((z_s - z_t)^2) / 2``, which is 1 - r with the Pearson correlation r of a channel,
    averaged over the channels, times (n - 1) / n for n values of a channel.

    Source: Cao et al., "PKD: General Distillation Framework for Object Detectors via Pearson Correlation Coefficient",
    NeurIPS 2022, arXiv 2207.02039. Not part of the published method.

    Args:
        student (torch.Tensor): Features, shape (B, C, H, W) with more than one value of each channel, or empty.
        teacher (torch.Tensor): Features of the teacher, same shape; get no gradient.

    Returns:
        (torch.Tensor): Scalar from 0 to 2, exactly 0 with zero gradient on identical features.

    Raises:
        ValueError: If the shapes differ.

    Examples:
        >>> x = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]])
        >>> pearson_feature_loss(x, x), pearson_feature_loss(x, -x)
        (tensor(0.), tensor(1.5000))
    """
    check_same_shape(student, teacher, "features")
    if not student.numel():
        return float32_or_64(student).sum()
    with torch.autocast(student.device.type, enabled=False):
        difference = _standardise(float32_or_64(student)) - _standardise(float32_or_64(teacher.detach()))
        return difference.square().mean() / 2


def _standardise(features: Tensor) -> Tensor:
    """Return features of mean 0 and deviation 1 per channel, over batch and cells."""
    deviation, mean = torch.std_mean(features, (0, 2, 3), keepdim=True)
    return (features - mean) / (deviation + _EPS)
