"""Differentiable overlap of paired boxes: exactly 1 on identical boxes, finite gradients on degenerate ones."""

from __future__ import annotations

import torch
from torch import Tensor

_MIN_AREA = 1e-6
MIN_SIDE = 1e-3


def check_pairs(a: Tensor, b: Tensor, columns: int, layout: str) -> None:
    """Refuse boxes of another number of columns.

    Args:
        a (torch.Tensor): Boxes.
        b (torch.Tensor): Boxes.
        columns (int): Size that their last axis must have.
        layout (str): Layout of a box for the message, such as 'xyxy'.

    Raises:
        ValueError: If one of the last axes has another size.
    """
    if a.shape[-1:] != (columns,) or b.shape[-1:] != (columns,):
        raise ValueError(f"expected boxes (..., {columns}) as {layout}, got {tuple(a.shape)} and {tuple(b.shape)}")


def giou(a: Tensor, b: Tensor, empty: float = 1.0) -> Tensor:
    """Return the generalised IoU of paired upright boxes.

    ``GIoU = I / U - (C - U) / C`` with the areas of intersection I, union U and smallest enclosing box C. U and C are
    floored at 1e-6. A box with x2 < x1 or y2 < y1 counts as one of zero width or height at (x1, y1), which keeps
    the value in [-1, 1].

    Source: Rezatofighi et al., "Generalized Intersection over Union", CVPR 2019, arXiv 1902.09630.

    Args:
        a (torch.Tensor): Boxes (..., 4) as xyxy.
        b (torch.Tensor): Boxes (..., 4) as xyxy, broadcastable to ``a``.
        empty (float): Value for identical boxes whose area is below the floor (0 / 0). The published code of DS2D2
            has 0.0.

    Returns:
        (torch.Tensor): GIoU in [-1, 1], shape (...); exactly 1 with zero gradient for identical boxes.

    Raises:
        ValueError: If the last axis does not hold 4 columns.

    Examples:
        >>> a, b = torch.tensor([0.0, 0.0, 10.0, 10.0]), torch.tensor([2.0, 2.0, 4.0, 4.0])
        >>> giou(a, a), giou(a, b)
        (tensor(1.), tensor(0.0400))
    """
    check_pairs(a, b, 4, "xyxy")
    a_low, b_low = a[..., :2], b[..., :2]
    # where() rather than maximum(): the gradient of a box of zero width goes to that box's upper side only.
    a_high = torch.where(a[..., 2:] < a_low, a_low, a[..., 2:])
    b_high = torch.where(b[..., 2:] < b_low, b_low, b[..., 2:])
    inner = (torch.minimum(a_high, b_high) - torch.maximum(a_low, b_low)).clamp(min=0)
    outer = torch.maximum(a_high, b_high) - torch.minimum(a_low, b_low)
    a_side, b_side = a_high - a_low, b_high - b_low
    intersection = inner[..., 0] * inner[..., 1]
    area = a_side[..., 0] * a_side[..., 1] + b_side[..., 0] * b_side[..., 1] - intersection
    union = area.clamp(min=_MIN_AREA)
    enclosing = (outer[..., 0] * outer[..., 1]).clamp(min=_MIN_AREA)
    value = intersection / union - (enclosing - union) / enclosing
    undefined = (a == b).all(-1) & (area < _MIN_AREA)
    return torch.where(undefined, torch.full_like(value, empty), value)


def probiou(a: Tensor, b: Tensor) -> Tensor:
    """Return the ProbIoU of paired rotated boxes.

    A box is the Gaussian of mean (x, y) and covariance ``R(r) diag(w^2, h^2) / 12 R(r)^T``;
    ``ProbIoU = 1 - sqrt(1 - exp(-BD))`` with the Bhattacharyya distance BD. With d the angle between the boxes and
    (u_i, v_i) the distance of the centres in the frame of box i, it is computed from sums of squares::

        E  = (w1 h1 - w2 h2)^2 + cos(d)^2 (w1 h2 - h1 w2)^2 + sin(d)^2 (w1 w2 - h1 h2)^2
        BD = 3 sum_i (w_i^2 v_i^2 + h_i^2 u_i^2) / (4 w1 h1 w2 h2 + E) + 1/2 log(1 + E / (4 w1 h1 w2 h2))

    Identical boxes therefore give exactly 1 (Ultralytics' epsilons leave 1 - 4.5e-4), and nearly identical boxes keep
    their digits. The value does not depend on the angle of a square.

    Source: Llerena et al., "Gaussian Bounding Boxes and Probabilistic Intersection-over-Union for Object Detection",
    2021, arXiv 2106.06072.

    Args:
        a (torch.Tensor): Boxes (..., 5) as xywhr, r in radians, any angle.
        b (torch.Tensor): Boxes (..., 5) as xywhr, broadcastable to ``a``.

    Returns:
        (torch.Tensor): ProbIoU in [0, 1], shape (...). Sides are floored at 1e-3, below which they get no gradient.

    Raises:
        ValueError: If the last axis does not hold 5 columns.

    Examples:
        >>> a = torch.tensor([5.0, 5.0, 10.0, 4.0, 0.0])
        >>> probiou(a, a), probiou(a, a + torch.tensor([1.0, 0.0, 0.0, 0.0, 0.2]))
        (tensor(1.), tensor(0.8090))
    """
    check_pairs(a, b, 5, "xywhr")
    ax, ay, aw, ah, ar = a.unbind(-1)
    bx, by, bw, bh, br = b.unbind(-1)
    aw, ah, bw, bh = (side.clamp(min=MIN_SIDE) for side in (aw, ah, bw, bh))
    dx, dy, turn = ax - bx, ay - by, ar - br
    excess = gaussian_excess(aw, ah, bw, bh, turn)
    scale = 4 * aw * ah * bw * bh
    spread = _spread(dx, dy, aw, ah, ar) + _spread(dx, dy, bw, bh, br)
    distance = 3 * spread / (scale + excess) + 0.5 * torch.log1p(excess / scale)
    squared = -torch.expm1(-distance)
    # The square root has no derivative at zero: identical boxes take the constant branch.
    apart = squared > 0
    return 1 - torch.where(apart, torch.where(apart, squared, 1.0).sqrt(), 0.0)


def gaussian_excess(aw: Tensor, ah: Tensor, bw: Tensor, bh: Tensor, turn: Tensor) -> Tensor:
    """Return E of ``probiou``: how far the sum of two boxes' covariances is from twice their geometric mean.

    ``|R1 diag(w1^2, h1^2) R1^T + R2 diag(w2^2, h2^2) R2^T| = 4 w1 h1 w2 h2 + E``.

    Args:
        aw (torch.Tensor): Widths w1, any shape.
        ah (torch.Tensor): Heights h1, same shape.
        bw (torch.Tensor): Widths w2.
        bh (torch.Tensor): Heights h2.
        turn (torch.Tensor): Angle between the boxes in radians.

    Returns:
        (torch.Tensor): A sum of squares, exactly 0 for boxes of one size and one angle.
    """
    return (
        (aw * ah - bw * bh).square()
        + turn.cos().square() * (aw * bh - ah * bw).square()
        + turn.sin().square() * (aw * bw - ah * bh).square()
    )


def _spread(dx: Tensor, dy: Tensor, w: Tensor, h: Tensor, r: Tensor) -> Tensor:
    """Return ``w^2 v^2 + h^2 u^2``, (u, v) being (dx, dy) in the frame of a box of sides w, h turned by r."""
    cos, sin = r.cos(), r.sin()
    return (w * (dy * cos - dx * sin)).square() + (h * (dx * cos + dy * sin)).square()
