"""A supersampled picture in continuous pixel coordinates, with the fills that everything else is made of.

Coordinates are those of labels: pixel (0, 0) covers the square from 0 to 1. OpenCV counts from pixel centres, so half
a pixel of the supersampled picture is taken off on the way in.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from ds2d2_yolo.scenes.drawing.noise import U8
from ds2d2_yolo.scenes.drawing.palette import Colour

Points = NDArray[np.float64]
SCALE = 2
SHIFT = 4


def fixed(points: Points) -> NDArray[np.int32]:
    """Return points in OpenCV's fixed-point pixel-centre coordinates on the supersampled picture."""
    return np.rint(points * (SCALE << SHIFT) - (1 << SHIFT) / 2).astype(np.int32)


def fill_convex(target: U8, points: Points, colour: Colour | int) -> None:
    """Fill a convex polygon on a picture or a mask."""
    value = colour if isinstance(colour, tuple) else (colour,)
    cv2.fillConvexPoly(target, fixed(points), value, cv2.LINE_8, SHIFT)


def fill_disc(target: U8, centre: Points, radius: float, colour: Colour | int) -> None:
    """Fill a disc of the given radius in pixels."""
    value = colour if isinstance(colour, tuple) else (colour,)
    x, y = fixed(centre).tolist()
    cv2.circle(target, (x, y), max(1, round((radius * SCALE - 0.25) * (1 << SHIFT))), value, -1, cv2.LINE_8, SHIFT)


def strip(path: Points, width: float) -> list[Points]:
    """Return the convex quadrilaterals that cover a path (N, 2) at the given width, joints mitred."""
    step = np.diff(path, axis=0)
    step = step / np.maximum(np.sqrt((step**2).sum(axis=1, keepdims=True)), 1e-9)
    tangent = np.vstack([step[:1], step[:-1] + step[1:], step[-1:]])
    tangent = tangent / np.maximum(np.sqrt((tangent**2).sum(axis=1, keepdims=True)), 1e-9)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1) * (width / 2)
    left, right = path + normal, path - normal
    return [np.stack([left[i], left[i + 1], right[i + 1], right[i]]) for i in range(len(path) - 1)]


class Canvas:
    """A square BGR picture drawn at twice the final side.

    Attributes:
        size (int): Final side in pixels.
        side (int): Side of the supersampled picture in supersampled pixels.
        image (np.ndarray): Picture of shape (side, side, 3), uint8.
    """

    def __init__(self, size: int) -> None:
        """Start with a black picture."""
        self.size = size
        self.side = size * SCALE
        self.image: U8 = np.zeros((self.side, self.side, 3), np.uint8)

    def convex(self, points: Points, colour: Colour) -> None:
        """Fill a convex polygon with one colour."""
        fill_convex(self.image, points, colour)

    def disc(self, centre: Points, radius: float, colour: Colour) -> None:
        """Fill a disc with one colour."""
        fill_disc(self.image, centre, radius, colour)

    def stroke(self, path: Points, width: float, colour: Colour) -> None:
        """Paint a path (N, 2) with one colour; at least one pixel of the supersampled picture wide."""
        for quad in strip(path, width):
            fill_convex(self.image, quad, colour)

    def mask_of(self, rings: Sequence[Points]) -> tuple[U8, slice, slice] | None:
        """Return the mask of a union of polygons in its window, or None where nothing of it is in the picture."""
        corners = np.concatenate(list(rings)) * SCALE
        low = np.clip(np.floor(corners.min(axis=0)).astype(int) - 2, 0, self.side)
        high = np.clip(np.ceil(corners.max(axis=0)).astype(int) + 2, 0, self.side)
        if (high <= low).any():
            return None
        mask: U8 = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
        for ring in rings:  # one by one: filled together, overlapping rings would cancel out
            shifted = fixed(ring) - np.array(low, np.int32) * (1 << SHIFT)
            cv2.fillPoly(mask, [shifted.astype(np.int32)], (255,), cv2.LINE_8, SHIFT)
        return mask, slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))

    def textured(self, rings: Sequence[Points], texture: U8) -> None:
        """Fill a union of polygons with a texture of the size of the picture."""
        masked = self.mask_of(rings)
        if masked is not None:
            mask, rows, columns = masked
            cv2.copyTo(texture[rows, columns], mask, self.image[rows, columns])

    def glaze(self, rings: Sequence[Points], colour: Colour, share: float, pattern: U8 | None = None) -> None:
        """Blend a colour over a union of polygons, softly, where a pattern (0..255) lets it through."""
        masked = self.mask_of(rings)
        if masked is None:
            return
        mask, rows, columns = masked
        weight = mask.astype(np.uint16) * np.uint16(round(share * 256)) >> 8
        if pattern is not None:
            weight = weight * pattern[rows, columns] >> 8
        self.blend(rows, columns, weight, colour)

    def blend(self, rows: slice, columns: slice, weight: NDArray[np.integer], colour: Colour) -> None:
        """Blend a colour over a window by weights of 0..255 (uint16: the products just fit)."""
        window = self.image[rows, columns]
        tint = np.array(colour, np.uint16)
        at = np.nonzero(weight != 0)
        if 3 * len(at[0]) < weight.size:  # a thin shape in a large window
            share = weight[at][:, None]
            window[at] = ((window[at] * (256 - share) + tint * share) >> 8).astype(np.uint8)
        else:
            share = weight[:, :, None]
            window[:] = ((window * (256 - share) + tint * share) >> 8).astype(np.uint8)
