"""The method for any detector; needs torch and PyWavelets only.

Dual-Stream Spectral Decoupling Distillation (DS2D2), IEEE TGRS 2025, arXiv 2512.04413. The explicit stream compares
features in the wavelet domain, weighted by DISW. The implicit stream compares predictions.

Examples:
    >>> import torch
    >>> from ds2d2_yolo.core import disw_map, explicit_loss
    >>> student, teacher = torch.zeros(1, 8, 4, 4), torch.ones(1, 8, 4, 4)
    >>> weight = disw_map(torch.tensor([[0.0, 0.0, 16.0, 16.0]]), torch.zeros(1), 1, grid=(2, 2), cell=(16, 16))
    >>> low, high = explicit_loss(student, teacher, weight)
    >>> low.item(), high.item()
    (5.0, 0.0)
"""

from __future__ import annotations

from ds2d2_yolo.core.disw import disw_map
from ds2d2_yolo.core.iou import giou, probiou
from ds2d2_yolo.core.losses.explicit import explicit_loss
from ds2d2_yolo.core.losses.implicit import (
    implicit_box_loss,
    implicit_class_loss,
    quality_focal_kd,
    region_box_loss,
    region_class_loss,
    softmax_kd,
)
from ds2d2_yolo.core.score_map import score_map
from ds2d2_yolo.core.wavelet import dwt2, high_frequency

__all__ = [
    "disw_map",
    "dwt2",
    "explicit_loss",
    "giou",
    "high_frequency",
    "implicit_box_loss",
    "implicit_class_loss",
    "probiou",
    "quality_focal_kd",
    "region_box_loss",
    "region_class_loss",
    "score_map",
    "softmax_kd",
]
