"""KFIoU: the overlap of two rotated boxes as the product of their Gaussians, as a Kalman filter updates one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ds2d2_yolo.core.iou import MIN_SIDE, check_pairs, gaussian_excess

BOUND = 1 / 3  # of KFIoU in two dimensions, reached by boxes of one size and one angle
_BETA = 1 / 9  # offset at which the centre term changes from square to linear, of the published code


def kfiou(a: Tensor, b: Tensor) -> Tensor:
    """Return the KFIoU of paired rotated boxes, whose centres it does not see.

    A box is the Gaussian of covariance ``S = R(r) diag(w^2, h^2) / 4 R(r)^T`` and has the area ``V = 4 sqrt(det S)``.
    The product of two Gaussians has the covariance ``S1 (S1 + S2)^-1 S2`` and the area V3;
    ``KFIoU = V3 / (V1 + V2 - V3)``. It is at most 1/3.

    Source: Yang et al., "The KFIoU Loss for Rotated Object Detection", ICLR 2023, arXiv 2201.12558.
    Not part of the published method.

    Args:
        a (torch.Tensor): Boxes (..., 5) as xywhr, r in radians, any angle.
        b (torch.Tensor): Boxes (..., 5) as xywhr, broadcastable to ``a``.

    Returns:
        (torch.Tensor): KFIoU above 0 and at most 1/3, shape (...). Sides are floored at 1e-3, below which they get no
            gradient.

    Raises:
        ValueError: If the last axis does not hold 5 columns.

    Examples:
        >>> a = torch.tensor([5.0, 5.0, 10.0, 4.0, 0.0])
        >>> kfiou(a, a), kfiou(a, a + torch.tensor([1.0, 0.0, 0.0, 0.0, 0.2]))
        (tensor(0.3333), tensor(0.3240))
    """
    areas, overlap, _ = _areas(a, b)
    return overlap / (areas - overlap)


def kfiou_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the distance of paired rotated boxes: ``1 - 3 KFIoU``, plus a term of the centres.

    The factor 3 stretches KFIoU to 1 for boxes of one size and angle, which have a distance of 0 then. The term of the
    centres is the smooth L1 norm (beta 1/9) of the student's centre in the frame of the teacher's box, over its sides.
    The publication takes the offsets that an anchor-based head regresses, over the sides of the anchor; a head without
    anchors has none, so that the teacher's box takes the place of the anchor.

    ``1 - 3 KFIoU`` is computed from sums of squares: with E of ``gaussian_excess``, V1 and V2 the areas,
    ``x = E / (4 V1 V2)``, ``s = sqrt(1 + x)`` and ``V3 = sqrt(V1 V2) / (2 s)`` it is ::

        ((sqrt(V1) - sqrt(V2))^2 + 2 sqrt(V1 V2) x / (s (s + 1))) / (V1 + V2 - V3)

    The angle has no gradient where one of the boxes is a square, whose Gaussian is round, nor where the boxes are
    parallel or at right angles.

    Source: see ``kfiou``. Not part of the published method.

    Args:
        student (torch.Tensor): Boxes (..., 5) as xywhr, r in radians, any angle.
        teacher (torch.Tensor): Boxes (..., 5) as xywhr, broadcastable to ``student``.

    Returns:
        (torch.Tensor): Distance of at least 0, shape (...), exactly 0 with zero gradient for identical boxes; not
            bounded: it grows linearly with the distance of the centres.

    Raises:
        ValueError: If the last axis does not hold 5 columns.

    Examples:
        >>> a = torch.tensor([5.0, 5.0, 10.0, 4.0, 0.0])
        >>> kfiou_distance(a, a), kfiou_distance(a + torch.tensor([5.0, 0.0, 0.0, 0.0, 0.0]), a)
        (tensor(0.), tensor(0.4444))
    """
    areas, overlap, excess = _areas(student, teacher)
    return excess / (areas - overlap) + _centre_distance(student, teacher)


def _areas(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return V1 + V2, V3 and V1 + V2 - 4 V3."""
    check_pairs(a, b, 5, "xywhr")
    aw, ah, bw, bh = (side.clamp(min=MIN_SIDE) for side in (a[..., 2], a[..., 3], b[..., 2], b[..., 3]))
    a_area, b_area = aw * ah, bw * bh
    root = a_area.sqrt() * b_area.sqrt()
    x = gaussian_excess(aw, ah, bw, bh, a[..., 4] - b[..., 4]) / (4 * a_area * b_area)
    s = (1 + x).sqrt()
    excess = (a_area.sqrt() - b_area.sqrt()).square() + 2 * root * x / (s * (s + 1))
    return a_area + b_area, root / (2 * s), excess


def _centre_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the smooth L1 norm of the student's centre in the teacher's frame, over the teacher's sides."""
    dx, dy = student[..., 0] - teacher[..., 0], student[..., 1] - teacher[..., 1]
    cos, sin = teacher[..., 4].cos(), teacher[..., 4].sin()
    offsets = torch.stack((dx * cos + dy * sin, dy * cos - dx * sin), -1) / teacher[..., 2:4].clamp(min=MIN_SIDE)
    return F.smooth_l1_loss(offsets, torch.zeros_like(offsets), reduction="none", beta=_BETA).sum(-1)
