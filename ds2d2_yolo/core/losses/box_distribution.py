"""Distillation of box distributions and angles, optional parts of the implicit box term.

Not part of the published method, whose implicit box term compares decoded boxes only. Both losses are means over the
anchors, ``sum_i v_i loss_i / sum_i v_i``, with v_i the weight of anchor i from `confident_scores`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ds2d2_yolo.core.checks import check_same_shape
from ds2d2_yolo.core.losses.implicit import softmax_kd
from ds2d2_yolo.core.precision import float32_or_64

# Added to the normaliser: without confident anchors the numerator is exactly 0, and so is the loss.
_EPS = torch.finfo(torch.float32).eps
MIN_SCORE = 0.05
# Ultralytics' `lambda_val` in `v8OBBLoss.calculate_angle_loss` (8.4.190)
ASPECT_SCALE = 3.0
# Floor of a side in pixels: the aspect ratio stays finite, and a box with one side of 0 gets next to no weight.
MIN_SIDE = 1e-9


def confident_scores(teacher_logits: Tensor, threshold: float = MIN_SCORE) -> Tensor:
    """Return the weight of each anchor: ``v = max_c q_c`` where it exceeds the threshold, 0 elsewhere.

    Not part of the published method, which weighs by ``max_c q_c`` everywhere. Anchors on the background are many, and
    the box that a head predicts there is arbitrary.

    Args:
        teacher_logits (torch.Tensor): Class logits of the teacher, shape (B, N, nc) with nc of at least 1, limited to
            the distilled classes; q is their sigmoid. Get no gradient.
        threshold (float): Score from 0 to below 1.

    Returns:
        (torch.Tensor): Weights of shape (B, N), 0 or in (threshold, 1].

    Raises:
        ValueError: If the threshold is not in [0, 1).

    Examples:
        >>> confident_scores(torch.tensor([[[0.0, -9.0], [-9.0, -9.0]]]))
        tensor([[0.5000, 0.0000]])
    """
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold must be from 0 to below 1, got {threshold}")
    with torch.autocast(teacher_logits.device.type, enabled=False):
        scores = float32_or_64(teacher_logits.detach()).amax(-1).sigmoid()
        return torch.where(scores > threshold, scores, 0)


def box_distribution_loss(
    student_bins: Tensor, teacher_bins: Tensor, weight: Tensor, normalizer: Tensor | float, temperature: float = 1.0
) -> Tensor:
    """Return the divergence of box distributions, ``sum_i v_i (1/4) sum_e KL_ie / sum_i v_i``.

    ``KL_ie = tau^2 KL(softmax(z_T / tau) || softmax(z_S / tau))`` (`softmax_kd`) over the bins of edge e, z the logits
    of the distance from the anchor to that edge. Not part of the published method.

    Source: Zheng et al., "Localization Distillation for Dense Object Detection", CVPR 2022, arXiv 2102.12252, which
    Rotated-LD applies to oriented boxes. Temperature 1 is that of CrossKD (Wang et al., CVPR 2024, arXiv 2306.11369).

    Args:
        student_bins (torch.Tensor): Logits of the bins from the student's features, shape (B, N, 4, bins).
        teacher_bins (torch.Tensor): Logits of the bins from the teacher's features, same shape; get no gradient.
        weight (torch.Tensor): Weight v of each anchor, shape (B, N).
        normalizer (torch.Tensor | float): Sum of the weights. A sum over more images than the given ones leaves the
            loss a part of theirs.
        temperature (float): tau > 0.

    Returns:
        (torch.Tensor): Scalar, exactly 0 with zero gradient on identical logits and where all weights are 0.

    Raises:
        ValueError: If the shapes do not fit together, or the temperature is not positive.

    Examples:
        >>> student, teacher = torch.zeros(1, 1, 4, 2), torch.tensor([3.0, 0.0]).expand(1, 1, 4, 2)
        >>> box_distribution_loss(student, teacher, torch.ones(1, 1), 1)
        tensor(0.5023)
    """
    check_same_shape(student_bins, teacher_bins, "distributions")
    if student_bins.ndim != 4 or student_bins.shape[2] != 4 or weight.shape != student_bins.shape[:2]:
        raise ValueError(
            f"distributions must be (B, N, 4, bins) and weights (B, N), got {tuple(student_bins.shape)} "
            f"and {tuple(weight.shape)}"
        )
    return _normalized_sum(softmax_kd(student_bins, teacher_bins, temperature).mean(-1), weight, normalizer)


def box_angle_loss(student_boxes: Tensor, teacher_boxes: Tensor, weight: Tensor, normalizer: Tensor | float) -> Tensor:
    """Return the difference of angles, ``sum_i v_i exp(-ln^2(w_i / h_i) / 9) sin^2(2 d_i) / sum_i v_i``.

    d is the student's angle minus the teacher's, w and h are the sides of the teacher's box. Not part of the published
    method.

    The period is 90 degrees for all shapes: (w, h, angle) and (h, w, angle + 90 degrees) are the same box, so the angle
    alone is defined modulo 90 degrees. The orientation of a long box modulo 180 degrees shows in the overlap of
    `implicit_box_loss`. That overlap, of Gaussians, does not show the angle of a square at all. The aspect weight is
    therefore largest for squares: 1, against 0.95 at 2:1 and 0.81 at 4:1.

    Source: Ultralytics' own angle loss, `v8OBBLoss.calculate_angle_loss` (8.4.190), which has this aspect weight and
    this sine. Both losses thus have the same minima.

    Args:
        student_boxes (torch.Tensor): Decoded boxes from the student's features, xywhr in radians, shape (B, N, 5). Only
            the angle gets a gradient.
        teacher_boxes (torch.Tensor): Decoded boxes from the teacher's features, same shape; get no gradient.
        weight (torch.Tensor): Weight v of each anchor, shape (B, N).
        normalizer (torch.Tensor | float): As in `box_distribution_loss`.

    Returns:
        (torch.Tensor): Scalar, exactly 0 with zero gradient on identical boxes and where all weights are 0.

    Raises:
        ValueError: If the shapes do not fit together.

    Examples:
        >>> student, teacher = torch.tensor([[[0.0, 0.0, 4.0, 4.0, 0.3]]]), torch.tensor([[[0.0, 0.0, 4.0, 4.0, 0.1]]])
        >>> box_angle_loss(student, teacher, torch.ones(1, 1), 1)
        tensor(0.1516)
    """
    check_same_shape(student_boxes, teacher_boxes, "boxes")
    if student_boxes.ndim != 3 or student_boxes.shape[2] != 5 or weight.shape != student_boxes.shape[:2]:
        raise ValueError(
            f"boxes must be (B, N, 5) xywhr and weights (B, N), got {tuple(student_boxes.shape)} "
            f"and {tuple(weight.shape)}"
        )
    with torch.autocast(student_boxes.device.type, enabled=False):
        teacher = float32_or_64(teacher_boxes.detach())
        log_width, log_height = teacher[..., 2:4].clamp(min=MIN_SIDE).log().unbind(-1)
        aspect_weight = torch.exp(-(((log_width - log_height) / ASPECT_SCALE) ** 2))
        difference = float32_or_64(student_boxes)[..., 4] - teacher[..., 4]
        return _normalized_sum(aspect_weight * torch.sin(2 * difference) ** 2, weight, normalizer)


def _normalized_sum(loss: Tensor, weight: Tensor, normalizer: Tensor | float) -> Tensor:
    """Return the weighted sum of a loss of each anchor (B, N) over the normaliser."""
    with torch.autocast(loss.device.type, enabled=False):
        return (loss * weight.detach()).sum() / (normalizer + _EPS)
