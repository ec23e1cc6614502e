"""The cells of a grid that rotated rectangles touch, row by row. Not part of the published method.

The published code has upright boxes only.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Overlap in cells below which a rectangle does not touch a row, a column or the grid: above the rounding of float32, so
# that 0 and 90 degrees give the cells of the upright box.
_TOLERANCE = 1e-4
# Rows are cut this much wider, in cells, so that an edge which is level but for rounding lies in one row completely.
_SLACK = 1e-5
_TINY = 1e-12


def row_spans(
    columns: Tensor, keep: Tensor, grid: tuple[int, int], cell: tuple[float, float], origin: tuple[float, float]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the run of cells that each rotated rectangle touches in each row that it crosses.

    A rectangle cut by a row is convex, so the cells that it touches there are one run, from the leftmost to the
    rightmost point of the cut. The leftmost (rightmost) point lies on an edge next to the leftmost (rightmost) corner
    of the rectangle, at the height nearest to that corner.

    The number K of runs is the number of crossings on a CPU, and N h on other devices and under ``torch.compile``.

    Args:
        columns (torch.Tensor): Finite rectangles (5, N), rows x, y, w, h in pixels and r in radians.
        keep (torch.Tensor): Boolean mask (N,); rectangles that are False get no cells.
        grid (tuple[int, int]): Rows and columns (h, w).
        cell (tuple[float, float]): Height and width of a cell in pixels.
        origin (tuple[float, float]): Pixel (y, x) of the grid's upper left corner.

    Returns:
        box (torch.Tensor): Index of the rectangle of each run, shape (K,), int64.
        row (torch.Tensor): Row of each run, shape (K,), int64.
        start (torch.Tensor): First column of each run, shape (K,), int64.
        stop (torch.Tensor): Column after the last one of each run, shape (K,), int64; equal to start if it is empty.

    Examples:
        >>> rectangle = torch.tensor([[32.0], [16.0], [40.0], [8.0], [0.0]])
        >>> box, row, start, stop = row_spans(rectangle, torch.tensor([True]), (2, 4), (16, 16), (0, 0))
        >>> row.tolist(), start.tolist(), stop.tolist()
        ([0, 1], [0, 0], [4, 4])
    """
    h, w = grid
    shape = _corners(columns, cell, origin)
    center_x, center_y, half_w, half_h = shape[:4].unbind(0)
    top, bottom = center_y - half_h, center_y + half_h
    inside = keep & _reaches(top, bottom, h) & _reaches(center_x - half_w, center_x + half_w, w)
    top, bottom = top.clamp(0, h), bottom.clamp(0, h)
    first, last = _covered(top, bottom, h)
    count = torch.where(inside, last - first + 1, 0)
    box, row, crossed = _enumerate_rows(first, count, h)
    param = torch.cat((shape, torch.stack((top, bottom)))).index_select(1, box)
    left, right = _cut(param, row)
    crossed &= _reaches(left, right, w)
    start, end = _covered(left.clamp(0, w), right.clamp(0, w), w)
    return box, row, start, torch.where(crossed, end + 1, start)


def _reaches(low: Tensor, high: Tensor, size: int) -> Tensor:
    """Return whether [low, high] reaches into [0, size) by the tolerance, or starts there if it is a point."""
    return (low < size - _TOLERANCE) & ((high > _TOLERANCE) | (low >= -_TOLERANCE))


def _covered(low: Tensor, high: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return the first and last unit interval of 0 .. size - 1 that [low, high] reaches into by the tolerance."""
    first, last = (low + _TOLERANCE).floor(), (high - _TOLERANCE).ceil() - 1
    # An interval too short to reach into any takes the one that contains its middle.
    middle = ((low + high) / 2 + _TOLERANCE).floor()
    none = last < first
    first, last = torch.where(none, middle, first), torch.where(none, middle, last)
    return first.long().clamp(0, size - 1), last.long().clamp(0, size - 1)


def _corners(columns: Tensor, cell: tuple[float, float], origin: tuple[float, float]) -> Tensor:
    """Describe each rectangle, in cells, by the nine numbers that its cuts by rows need, shape (9, N).

    With half axes p = (px, py) and q = (-qx, qy), chosen so that px, py, qx, qy >= 0 (a quarter turn exchanges them),
    the corners -p + q, -p - q, p - q, p + q are the leftmost, top, rightmost and bottom one. Rows of the result: centre
    (x, y), half of the hull's width and height, height of the leftmost corner over the centre, 2 px, 2 qx, 1 / 2 py,
    1 / 2 qy.
    """
    x, y, width, height, angle = columns.unbind(0)
    width, height = width.abs() / 2, height.abs() / 2
    cos, sin = angle.cos(), angle.sin()
    first_quadrant = cos * sin >= 0
    cos, sin = cos.abs(), sin.abs()
    long, short = torch.where(first_quadrant, width, height), torch.where(first_quadrant, height, width)
    along, across = torch.where(first_quadrant, cos, sin), torch.where(first_quadrant, sin, cos)
    px, py = long * along / cell[1], long * across / cell[0]
    qx, qy = short * across / cell[1], short * along / cell[0]
    return torch.stack(
        (
            (x - origin[1]) / cell[1],
            (y - origin[0]) / cell[0],
            px + qx,
            py + qy,
            qy - py,
            2 * px,
            2 * qx,
            0.5 / py.clamp(min=_TINY),
            0.5 / qy.clamp(min=_TINY),
        )
    )


def _enumerate_rows(first: Tensor, count: Tensor, h: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return rectangle, row and whether the rectangle crosses the row, for every pair that matters, as (K,) tensors."""
    if first.device.type == "cpu" and not torch.compiler.is_compiling():
        box = torch.repeat_interleave(count)
        row = torch.arange(box.shape[0]) + (first - count.cumsum(0) + count).index_select(0, box)
        return box, row, torch.ones_like(row, dtype=torch.bool)
    # The host does not know the number of crossings: take all rows.
    row = torch.arange(h, device=first.device).expand(first.shape[0], h)
    crossed = (row >= first[:, None]) & (row < (first + count)[:, None])
    number = torch.arange(first.shape[0], device=first.device)
    return number[:, None].expand(-1, h).reshape(-1), row.reshape(-1), crossed.reshape(-1)


def _cut(param: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
    """Return the leftmost and the rightmost x, in cells, of each rectangle inside its row, shape (K,) each."""
    x, y, half_w, _, rise, px, qx, per_py, per_qy, top, bottom = param.unbind(0)
    low = torch.maximum(row.to(y.dtype), top) - y - _SLACK
    high = torch.minimum(row.to(y.dtype) + 1, bottom) - y + _SLACK
    above = torch.clamp(rise, low, high) - rise
    left = x - half_w + (above * per_py).clamp(0, 1) * px + (above * -per_qy).clamp(0, 1) * qx
    below = torch.clamp(-rise, low, high) + rise
    right = x + half_w - (below * per_qy).clamp(0, 1) * qx - (below * -per_py).clamp(0, 1) * px
    return left, right
