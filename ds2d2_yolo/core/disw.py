"""Density-Independent Scale Weight (DISW) of DS2D2, arXiv 2512.04413: every object adds the same weight to a map."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from ds2d2_yolo.core.rotated_cells import row_spans

Extent = Literal["touched", "reference"]

# Shares are added as integers in units of 2^-46. The sum is exact: it depends neither on the order of the boxes nor on
# the device, and the difference arrays leave no residue. 2^17 boxes may share one cell before it overflows.
_UNITS = 2**46
# Coordinates are clamped to this, far beyond any image, which keeps every intermediate value finite.
_FAR = 1e9


@torch.no_grad()
def disw_map(
    boxes: Tensor,
    batch_idx: Tensor,
    batch_size: int,
    grid: tuple[int, int],
    cell: tuple[float, float],
    origin: tuple[float, float] = (0.0, 0.0),
    extent: Extent = "touched",
    valid: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return the weight map ``W = 1 + sum over boxes of [cell in box] / (cells of the box)`` of one level.

    Every box that touches the grid holds at least one cell and adds exactly 1 to the sum of its image's map. The sum
    over a map is therefore the number of cells plus the number of boxes. Boxes are clipped to the grid.

    Source: DISW of DS2D2, arXiv 2512.04413. Published are upright boxes with ``extent="reference"``, the closed extents
    ``floor(x1) .. ceil(x2)`` in cells, which grow a box by a row and a column. Rotated boxes and ``extent="touched"``
    are not part of the published method. With ``"touched"`` a cell is in a box if its open area overlaps the box:

    - upright boxes are half-open intervals;
    - for rotated boxes the rotated rectangle is used, not its bounding box. Overlaps below 1e-4 cells are ignored, so
      that rounding cannot flip a cell.

    Odd boxes:

    - a side of zero length counts as infinitely short: a point holds one cell, a line the cells that it runs through;
    - a box that only touches the grid's upper or left edge from outside, or starts on the lower or right edge, is
      outside (half-open); a box outside adds nothing;
    - a box with a NaN or an infinity adds nothing; coordinates are clamped to -1e9 .. 1e9;
    - corners in the wrong order are sorted, negative sides lose their sign;
    - a box whose ``batch_idx`` is not in 0 .. ``batch_size - 1`` adds nothing.

    The cost is linear in cells plus rows crossed by boxes. Upright boxes need one two-dimensional difference array,
    rotated boxes one difference array per row. On a CPU these are the rows that a box crosses. On other devices and
    under ``torch.compile`` they are all rows of the grid, which needs no host synchronisation.

    Args:
        boxes (torch.Tensor): Ground truth in pixels, (N, 4) as xyxy or (N, 5) as xywhr (radians, any angle).
        batch_idx (torch.Tensor): Image of each box, shape (N,), integer or float.
        batch_size (int): Number of images B.
        grid (tuple[int, int]): Rows and columns (h, w) of the band, see ``wavelet.band_shape``.
        cell (tuple[float, float]): Height and width of a cell in pixels, 2 x stride.
        origin (tuple[float, float]): Pixel (y, x) of the grid's upper left corner, see ``wavelet.band_origin``.
        extent (str): "touched", not part of the published method, or "reference", for upright boxes only.
        valid (torch.Tensor, optional): Boolean mask of shape (N,); boxes that are False add nothing.
        dtype (torch.dtype): Floating-point type of the map.

    Returns:
        (torch.Tensor): Weights of shape (B, 1, h, w) in the given dtype, at least 1.

    Raises:
        ValueError: If a shape, the grid, the cell or the extent is not a valid one.

    Examples:
        >>> disw_map(torch.tensor([[0.0, 0.0, 32.0, 16.0]]), torch.zeros(1), 1, (2, 3), (16, 16))[0, 0]
        tensor([[1.5000, 1.5000, 1.0000],
                [1.0000, 1.0000, 1.0000]])
    """
    _check(boxes, batch_idx, batch_size, grid, cell, extent, valid)
    image = batch_idx.reshape(-1).to(device=boxes.device, dtype=torch.int64)
    keep = (image >= 0) & (image < batch_size)
    if valid is not None:
        keep = keep & valid.reshape(-1).to(boxes.device)
    # One row for each coordinate: contiguous, and without constants that would have to travel to the device.
    columns = boxes.t().to(torch.promote_types(boxes.dtype, torch.float32)).contiguous()
    keep = keep & (columns.abs().amax(0) < math.inf)
    columns = torch.where(keep, columns, 0.0).clamp(-_FAR, _FAR)
    image = torch.where(keep, image, 0)
    if len(columns) == 4:
        shares = _upright(columns, image, keep, batch_size, grid, cell, origin, extent)
    else:
        shares = _rotated(columns, image, keep, batch_size, grid, cell, origin)
    return (shares.to(dtype) / _UNITS + 1).unsqueeze(1)


def _check(
    boxes: Tensor,
    batch_idx: Tensor,
    batch_size: int,
    grid: tuple[int, int],
    cell: tuple[float, float],
    extent: str,
    valid: Tensor | None,
) -> None:
    """Raise if the arguments of ``disw_map`` do not fit together."""
    if boxes.ndim != 2 or boxes.shape[1] not in (4, 5):
        raise ValueError(f"boxes must be (N, 4) xyxy or (N, 5) xywhr, got {tuple(boxes.shape)}")
    for name, tensor in (("batch_idx", batch_idx), ("valid", valid)):
        if tensor is not None and tensor.numel() != boxes.shape[0]:
            raise ValueError(f"{name} must hold one entry per box: {tensor.numel()} entries for {boxes.shape[0]} boxes")
    if batch_size < 1 or min(grid) < 1:
        raise ValueError(f"batch_size and grid must be positive, got batch_size={batch_size}, grid={tuple(grid)}")
    if not all(math.isfinite(side) and side > 0 for side in cell):
        raise ValueError(f"cell must be the positive (height, width) of a cell in pixels, got {tuple(cell)}")
    if extent not in ("touched", "reference"):
        raise ValueError(f"extent must be 'touched' or 'reference', got {extent!r}")
    if extent == "reference" and boxes.shape[1] == 5:
        raise ValueError("extent='reference' is defined for upright boxes (N, 4); use 'touched' for rotated ones")


def _upright(
    columns: Tensor,
    image: Tensor,
    keep: Tensor,
    batch_size: int,
    grid: tuple[int, int],
    cell: tuple[float, float],
    origin: tuple[float, float],
    extent: Extent,
) -> Tensor:
    """Return the summed shares (B, h, w) of upright boxes (4, N), in units of 1 / _UNITS."""
    h, w = grid
    x1, y1, x2, y2 = columns.unbind(0)
    left, right = _interval(x1, x2, w, cell[1], origin[1], extent)
    upper, lower = _interval(y1, y2, h, cell[0], origin[0], extent)
    cells = (right - left) * (lower - upper)
    share = torch.where(keep & (cells > 0), _UNITS // cells.clamp(min=1), 0)
    base = image * ((h + 1) * (w + 1))
    upper, lower = base + upper * (w + 1), base + lower * (w + 1)
    edges = torch.zeros(batch_size * (h + 1) * (w + 1), dtype=torch.int64, device=columns.device)
    index = torch.cat((upper + left, upper + right, lower + left, lower + right))
    edges.index_add_(0, index, torch.cat((share, -share, -share, share)))
    return edges.view(batch_size, h + 1, w + 1).cumsum(1).cumsum(2)[:, :h, :w]


def _interval(a: Tensor, b: Tensor, size: int, cell: float, origin: float, extent: Extent) -> tuple[Tensor, Tensor]:
    """Return the first cell between two coordinates and the one after the last, within 0 .. size, along one axis."""
    if extent == "reference":
        # The published code multiplies by the inverse; its rounding decides on which side of a border an edge lies.
        a, b = (a - origin) * (1 / cell), (b - origin) * (1 / cell)
    else:
        a, b = (a - origin) / cell, (b - origin) / cell
    first, last = torch.minimum(a, b).floor(), torch.maximum(a, b).ceil()
    stop = last + 1 if extent == "reference" else torch.maximum(last, first + 1)
    first = first.clamp(0, size)
    return first.long(), torch.maximum(stop.clamp(max=size), first).long()


def _rotated(
    columns: Tensor,
    image: Tensor,
    keep: Tensor,
    batch_size: int,
    grid: tuple[int, int],
    cell: tuple[float, float],
    origin: tuple[float, float],
) -> Tensor:
    """Return the summed shares (B, h, w) of rotated boxes (5, N), in units of 1 / _UNITS."""
    h, w = grid
    edges = torch.zeros(batch_size * h * (w + 1), dtype=torch.int64, device=columns.device)
    box, row, start, stop = row_spans(columns, keep, grid, cell, origin)
    cells = torch.zeros_like(image).index_add_(0, box, stop - start)
    share = torch.where(cells > 0, _UNITS // cells.clamp(min=1), 0).index_select(0, box)
    base = (image.index_select(0, box) * h + row) * (w + 1)
    edges.index_add_(0, torch.cat((base + start, base + stop)), torch.cat((share, -share)))
    return edges.view(batch_size, h, w + 1).cumsum(2)[:, :, :w]
