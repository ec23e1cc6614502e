"""A detector that knows the objects: in each tile it returns what is visible of them there."""

from __future__ import annotations

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray

from ds2d2_yolo.utils.detections import Detections, box_corners


def visible_rows(
    objects: NDArray[np.float64], window: NDArray[np.int64], rng: np.random.Generator, oriented: bool = True,
    least: float = 0.05, jitter: float = 0.0,
) -> NDArray[np.float64]:  # fmt: skip
    """Return rows (N, 7) of what a tile shows of objects (M, 7), in pixels of the scene, with scores of its own."""
    frame = shapely.box(*window)
    rows = []
    for row, corners in zip(objects, box_corners(objects), strict=True):
        if (corners.max(0) <= window[:2]).any() or (corners.min(0) >= window[2:]).any():
            continue
        shape = shapely.Polygon(corners)
        seen = shape.intersection(frame)
        if seen.area < least * shape.area:
            continue
        place = row[:5].copy()
        if seen.area < shape.area * (1 - 1e-9):
            points = shapely.get_coordinates(seen)
            if oriented:
                middle = points.mean(0)
                (x, y), (w, h), degrees = cv2.minAreaRect((points - middle).astype(np.float32))
                place = np.array([x + middle[0], y + middle[1], w, h, np.deg2rad(degrees)])
            else:
                low, high = points.min(0), points.max(0)
                place = np.array([*(low + high) / 2, *(high - low), 0.0])
        place[:4] += rng.normal(0, jitter, 4) if jitter else 0
        place[2:4] = place[2:4].clip(0.5)
        rows.append([*place, rng.uniform(0.3, 0.95), row[6]])
    return np.array(rows, np.float64).reshape(-1, 7)


def detections(
    objects: NDArray[np.float64], grid: NDArray[np.int64], seed: int, **keys: float
) -> tuple[Detections, NDArray[np.int64]]:
    """Return the detections of all tiles in random order, and the tile of each."""
    rng = np.random.default_rng(seed)
    tile_rows = [visible_rows(objects, window, rng, **keys) for window in grid]  # type: ignore[arg-type]
    rows = np.concatenate(tile_rows)
    tile = np.repeat(np.arange(len(grid)), [len(r) for r in tile_rows])
    order = rng.permutation(len(rows))
    return Detections.from_rows(rows[order], bool(keys.get("oriented", True))), tile[order]
