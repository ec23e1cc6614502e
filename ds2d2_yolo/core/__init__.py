"""The method, for any detector: torch and PyWavelets only.

Dual-Stream Spectral Decoupling Distillation (DS2D2, TGRS 2025, arXiv 2512.04413). The explicit stream compares
features in the wavelet domain, weighted by DISW; the implicit stream compares predictions.
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
