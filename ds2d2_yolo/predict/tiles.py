"""Where the tiles of a scene lie."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def starts(size: int, tile: int, overlap: int) -> list[int]:
    """Return where tiles begin along one side, spread evenly.

    Args:
        size (int): Side of the scene in pixels.
        tile (int): Side of a tile in pixels; a smaller scene has one tile of its own size.
        overlap (int): Pixels that neighbours share at least, less than `tile`.

    Returns:
        (list[int]): First pixel of each tile; the last tile ends where the scene ends.
    """
    if size <= tile:
        return [0]
    steps = -(-(size - tile) // (tile - overlap))
    return [i * (size - tile) // steps for i in range(steps + 1)]


def windows(width: int, height: int, tile: int, overlap: int) -> NDArray[np.int64]:
    """Return the tiles of a scene row by row, as (N, 4) pixels left, top, right, bottom.

    Args:
        width (int): Width of the scene in pixels.
        height (int): Height of the scene in pixels.
        tile (int): Side of a tile in pixels.
        overlap (int): Pixels that neighbours share at least.

    Returns:
        (np.ndarray): Tiles (N, 4), int64.
    """
    lefts, tops = (starts(side, tile, overlap) for side in (width, height))
    grid = [(x, y, min(x + tile, width), min(y + tile, height)) for y in tops for x in lefts]
    return np.array(grid, np.int64)
