"""Implicit stream of DS2D2 (arXiv 2512.04413): predictions of a knowledge amplifier are compared.

The amplifier is a frozen head on the adapted student's features and on the teacher's. Every loss detaches the teacher
and is computed in float32 with autocast off (in float64 for float64 inputs): in float16 the sigmoid saturates.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ds2d2_yolo.core.checks import check_same_shape
from ds2d2_yolo.core.iou import giou, probiou
from ds2d2_yolo.core.losses.kfiou import kfiou_distance
from ds2d2_yolo.core.precision import float32_or_64

# Added to every normaliser, as in the published code: a zero normaliser gives a huge loss, not a division by zero.
_EPS = torch.finfo(torch.float32).eps


def quality_focal_kd(student_logits: Tensor, teacher_logits: Tensor, beta: float = 1.0) -> Tensor:
    """Return the quality focal loss of student scores against teacher scores, element by element.

    ``|sigmoid(p) - q|^beta BCE(p, q)`` with q = sigmoid(teacher logit). The factor is not detached.

    Source: quality focal loss of Li et al., "Generalized Focal Loss", 2020, arXiv 2006.04388, with the teacher's score
    as the target, as DS2D2 uses it (beta = 1).

    Args:
        student_logits (torch.Tensor): Class logits p, any shape.
        teacher_logits (torch.Tensor): Class logits of the teacher, same shape; get no gradient.
        beta (float): Exponent of the factor, at least 1: below 1 identical scores have no finite gradient.

    Returns:
        (torch.Tensor): Loss of each element, exactly 0 where the logits are equal.

    Raises:
        ValueError: If the shapes differ or beta is below 1.

    Examples:
        >>> quality_focal_kd(torch.tensor([0.0, 2.0]), torch.tensor([0.0, 0.0]))
        tensor([0.0000, 0.4291])
    """
    check_same_shape(student_logits, teacher_logits, "logits")
    if beta < 1:
        raise ValueError(f"beta must be at least 1, got {beta}")
    with torch.autocast(student_logits.device.type, enabled=False):
        logits, target = float32_or_64(student_logits), float32_or_64(teacher_logits.detach()).sigmoid()
        factor = (logits.sigmoid() - target).abs()
        if beta != 1:
            factor = factor.pow(beta)
        return factor * F.binary_cross_entropy_with_logits(logits, target, reduction="none")


def softmax_kd(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 3.0) -> Tensor:
    """Return the Kullback-Leibler divergence of softened class distributions, row by row.

    ``T^2 sum_c q_c log(q_c / p_c)`` with p and q the softmax of the student's and the teacher's logits over T.

    Source: Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, arXiv 1503.02531. DS2D2 uses it for
    two-stage detectors with T = 3.

    Args:
        student_logits (torch.Tensor): Class logits (..., K), background included.
        teacher_logits (torch.Tensor): Class logits of the teacher, same shape; get no gradient.
        temperature (float): T > 0.

    Returns:
        (torch.Tensor): Divergence of each row, shape (...); exactly 0 with zero gradient where the rows are equal.

    Raises:
        ValueError: If the shapes differ or the temperature is not positive.

    Examples:
        >>> softmax_kd(torch.tensor([[1.0, 1.0], [3.0, 0.0]]), torch.tensor([[1.0, 1.0], [0.0, 0.0]]))
        tensor([0.0000, 1.0810])
    """
    check_same_shape(student_logits, teacher_logits, "logits")
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    with torch.autocast(student_logits.device.type, enabled=False):
        log_p = F.log_softmax(float32_or_64(student_logits) / temperature, -1)
        log_q = F.log_softmax(float32_or_64(teacher_logits.detach()) / temperature, -1)
        p, q = log_p.exp(), log_q.exp()
        # p - q sums to 0. With it, the gradient of each summand is (p - q) d(log p): exactly 0 on equal rows.
        return temperature**2 * (p - q + q * (log_q - log_p)).sum(-1)


def implicit_class_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    normalizer: Tensor | float,
    beta: float = 1.0,
    weight: Tensor | None = None,
) -> Tensor:
    """Return the class term of the implicit stream of a dense detector: ``sum(v quality_focal_kd) / P``.

    Source: implicit distillation of DS2D2, arXiv 2512.04413, for one-stage detectors.

    Args:
        student_logits (torch.Tensor): Logits of the amplifier on the adapted student, shape (B, N, nc).
        teacher_logits (torch.Tensor): Logits of the amplifier on the teacher, shape (B, N, nc); get no gradient.
        normalizer (torch.Tensor | float): P, the sum over images of max(positives, 1).
        beta (float): Exponent of the focal factor.
        weight (torch.Tensor, optional): Weight v of each anchor, shape (B, N).

    Returns:
        (torch.Tensor): Scalar.

    Raises:
        ValueError: If the shapes differ or beta is below 1.

    Examples:
        >>> implicit_class_loss(torch.tensor([[[0.0], [2.0]]]), torch.zeros(1, 2, 1), 2)
        tensor(0.2146)
    """
    loss = quality_focal_kd(student_logits, teacher_logits, beta)
    if weight is not None:
        loss = loss * weight.unsqueeze(-1)
    return loss.sum() / (normalizer + _EPS)


def implicit_box_loss(
    student_boxes: Tensor,
    teacher_boxes: Tensor,
    teacher_logits: Tensor,
    normalizer: Tensor | float,
    distance: Literal["iou", "kfiou"] = "iou",
) -> Tensor:
    """Return the box term of the implicit stream of a dense detector: ``sum(max_c q_c (1 - IoU*)) / P``.

    IoU* is ``giou`` for upright boxes (xyxy) and ``probiou`` for rotated ones (xywhr), q_c the teacher's scores. With
    the distance 'kfiou', ``kfiou_distance`` takes the place of 1 - IoU* for rotated boxes.

    Source: implicit distillation of DS2D2, arXiv 2512.04413, for one-stage detectors with upright boxes. Rotated boxes
    and 'kfiou' are not part of the published method.

    Args:
        student_boxes (torch.Tensor): Decoded boxes of the amplifier on the adapted student, (B, N, 4) or (B, N, 5).
        teacher_boxes (torch.Tensor): Decoded boxes of the amplifier on the teacher, same shape; get no gradient.
        teacher_logits (torch.Tensor): Logits of the amplifier on the teacher, shape (B, N, nc); get no gradient.
        normalizer (torch.Tensor | float): P, the sum over images of max(positives, 1).
        distance (str): 'iou', or 'kfiou' for rotated boxes.

    Returns:
        (torch.Tensor): Scalar, exactly 0 with zero gradient on identical boxes.

    Raises:
        ValueError: If the shapes do not fit together.

    Examples:
        >>> student, teacher = torch.tensor([[[5.0, 0.0, 15.0, 10.0]]]), torch.tensor([[[0.0, 0.0, 10.0, 10.0]]])
        >>> implicit_box_loss(student, teacher, torch.zeros(1, 1, 3), 1)
        tensor(0.3333)
    """
    check_same_shape(student_boxes, teacher_boxes, "boxes")
    if student_boxes.shape[-1] not in (4, 5):
        raise ValueError(f"boxes must be (B, N, 4) xyxy or (B, N, 5) xywhr, got {tuple(student_boxes.shape)}")
    if teacher_logits.shape[:-1] != teacher_boxes.shape[:-1]:
        raise ValueError(
            f"one row of logits per box: got {tuple(teacher_logits.shape)} for boxes {tuple(teacher_boxes.shape)}"
        )
    if distance not in ("iou", "kfiou") or (distance == "kfiou" and student_boxes.shape[-1] == 4):
        raise ValueError(f"distance must be 'iou', or 'kfiou' for xywhr boxes, got {distance!r}")
    with torch.autocast(student_boxes.device.type, enabled=False):
        student, teacher = float32_or_64(student_boxes), float32_or_64(teacher_boxes.detach())
        confidence = float32_or_64(teacher_logits.detach()).amax(-1).sigmoid()
        if distance == "kfiou":
            return (confidence * kfiou_distance(student, teacher)).sum() / (normalizer + _EPS)
        overlap = giou(student, teacher) if student.shape[-1] == 4 else probiou(student, teacher)
        return (confidence * (1 - overlap)).sum() / (normalizer + _EPS)


def region_class_loss(
    student_logits: Tensor, teacher_logits: Tensor, normalizer: Tensor | float, temperature: float = 3.0
) -> Tensor:
    """Return the class term of the implicit stream of a two-stage detector: ``sum(softmax_kd) / normalizer``.

    Source: implicit distillation of DS2D2, arXiv 2512.04413, for two-stage detectors.

    Args:
        student_logits (torch.Tensor): Logits of the amplifier on the adapted student's regions, shape (R, K).
        teacher_logits (torch.Tensor): Logits of the amplifier on the teacher's regions, shape (R, K); get no gradient.
        normalizer (torch.Tensor | float): Number of sampled regions.
        temperature (float): T of ``softmax_kd``.

    Returns:
        (torch.Tensor): Scalar.

    Raises:
        ValueError: If the shapes differ or the temperature is not positive.

    Examples:
        >>> region_class_loss(torch.tensor([[1.0, 1.0], [3.0, 0.0]]), torch.zeros(2, 2), 2)
        tensor(0.5405)
    """
    return softmax_kd(student_logits, teacher_logits, temperature).sum() / (normalizer + _EPS)


def region_box_loss(student_deltas: Tensor, teacher_deltas: Tensor, teacher_scores: Tensor) -> Tensor:
    """Return the box term of the implicit stream of a two-stage detector.

    ``sum_r w_r |d_s - d_t|_1 / (4 sum_r w_r)`` with w_r the largest foreground probability of region r and d the four
    deltas of that class.

    Source: implicit distillation of DS2D2, arXiv 2512.04413, for two-stage detectors.

    Args:
        student_deltas (torch.Tensor): Box deltas on the adapted student's regions, shape (R, K, 4), background left
            out.
        teacher_deltas (torch.Tensor): Box deltas on the teacher's regions, shape (R, K, 4); get no gradient.
        teacher_scores (torch.Tensor): Foreground probabilities of the teacher, shape (R, K), background left out.

    Returns:
        (torch.Tensor): Scalar, 0 without regions.

    Raises:
        ValueError: If the shapes do not fit together.

    Examples:
        >>> student, teacher = torch.ones(2, 3, 4), torch.zeros(2, 3, 4)
        >>> region_box_loss(student, teacher, torch.tensor([[0.2, 0.5, 0.1], [0.9, 0.0, 0.0]]))
        tensor(1.)
    """
    check_same_shape(student_deltas, teacher_deltas, "deltas")
    if student_deltas.shape != (*teacher_scores.shape, 4):
        raise ValueError(
            f"deltas must be (R, K, 4) for scores (R, K), got {tuple(student_deltas.shape)} "
            f"and {tuple(teacher_scores.shape)}"
        )
    with torch.autocast(student_deltas.device.type, enabled=False):
        confidence, label = float32_or_64(teacher_scores.detach()).max(1)
        distance = (float32_or_64(student_deltas) - float32_or_64(teacher_deltas.detach())).abs().sum(2)
        distance = distance.gather(1, label[:, None]).squeeze(1)
        return (confidence * distance).sum() / (4 * confidence.sum() + _EPS)
