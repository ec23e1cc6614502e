"""Scenes of bright rectangles, and TIFF files of them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from ds2d2_yolo.utils.detections import box_corners

rasterio = pytest.importorskip("rasterio")

NAMES = {0: "small vehicle", 1: "ship"}


def objects_of(width: int, height: int, count: int, seed: int = 0) -> NDArray[np.float64]:
    """Return rectangles (N, 7) that keep 8 px from each other and fit 60 px."""
    rng = np.random.default_rng(seed)
    taken = np.zeros((height, width), bool)
    rows: list[list[float]] = []
    while len(rows) < count:
        w, h = rng.uniform(16, 42, 2)
        x, y = rng.uniform(36, width - 36), rng.uniform(36, height - 36)
        row = [x, y, w, h, rng.uniform(0, np.pi / 2), 0.9, float(len(rows) % 2)]
        low, high = (f(box_corners(np.array([row]))[0], 0) for f in (np.min, np.max))
        area = taken[int(low[1]) - 8 : int(high[1]) + 8, int(low[0]) - 8 : int(high[0]) + 8]
        if not area.any():
            area[:] = True
            rows.append(row)
    return np.array(rows)


def drawn(objects: NDArray[np.float64], width: int, height: int) -> NDArray[np.uint8]:
    """Return RGB pixels (3, H, W)."""
    image = np.full((height, width, 3), 40, np.uint8)
    for row, corners in zip(objects, box_corners(objects), strict=True):
        points = np.rint(corners * 16 - 8).astype(np.int32)
        cv2.fillConvexPoly(image, points, (240, 100, 90) if row[6] else (90, 100, 240), cv2.LINE_8, 4)
    return image.transpose(2, 0, 1)


def write_raster(path: Path, pixels: NDArray[Any], **keys: Any) -> Path:
    """Write bands (C, H, W) as a tiled TIFF, or as `keys` say."""
    tiled = {"driver": "GTiff", "tiled": True, "blockxsize": 128, "blockysize": 128, "compress": "deflate"}
    every = {**tiled, "count": len(pixels), "height": pixels.shape[1], "width": pixels.shape[2], **keys}
    profile = {k: v for k, v in every.items() if v is not None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path, "w", dtype=pixels.dtype, **profile) as out:
            out.write(pixels)
    return path
