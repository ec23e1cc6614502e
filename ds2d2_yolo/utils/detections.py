"""Detections of one image as one typed value: boxes, scores and classes of equal length."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Detections:
    """Boxes, scores and classes of one image, tile or scene.

    Attributes:
        boxes (np.ndarray): Boxes (N, 5), float64: centre x, centre y, w, h in pixels (x right, y down, (0, 0) the outer
            corner of the first pixel) and the angle of the side w in radians, clockwise from x; 0 for upright boxes.
        scores (np.ndarray): Confidences (N,), float64, in [0, 1].
        classes (np.ndarray): Class indices (N,), int64.
        oriented (bool): Whether the boxes are rotated rectangles of an OBB model, or upright ones.

    Raises:
        ValueError: If shapes or lengths do not fit each other.
    """

    boxes: Floats
    scores: Floats
    classes: Ints
    oriented: bool = True

    def __post_init__(self) -> None:
        """Check shapes and lengths."""
        if self.boxes.ndim != 2 or self.boxes.shape[1] != 5:
            raise ValueError(f"boxes must be (N, 5), not {self.boxes.shape}")
        count = (len(self.boxes),)
        if self.scores.shape != count or self.classes.shape != count:
            raise ValueError(f"{count[0]} boxes, scores of shape {self.scores.shape}, classes {self.classes.shape}")

    @classmethod
    def empty(cls, oriented: bool = True) -> Detections:
        """Return no detections."""
        return cls(np.zeros((0, 5)), np.zeros(0), np.zeros(0, np.int64), oriented)

    @classmethod
    def from_rows(cls, rows: Floats, oriented: bool = True) -> Detections:
        """Return detections from rows (N, 7): x, y, w, h, angle, score, class.

        Args:
            rows (np.ndarray): Rows (N, 7).
            oriented (bool): Whether the boxes are rotated.

        Returns:
            (Detections): Views of the rows where types allow it.
        """
        rows = np.asarray(rows, np.float64).reshape(-1, 7)
        return cls(rows[:, :5], rows[:, 5], rows[:, 6].astype(np.int64), oriented)

    @classmethod
    def concatenate(cls, parts: Iterable[Detections], oriented: bool = True) -> Detections:
        """Return the detections of several parts as one, in their order.

        Args:
            parts (Iterable[Detections]): Detections in the same pixel coordinates.
            oriented (bool): Whether the result is oriented.

        Returns:
            (Detections): As many as all parts together.
        """
        every = [cls.empty(oriented), *parts]
        boxes = np.concatenate([part.boxes for part in every])
        scores, classes = np.concatenate([p.scores for p in every]), np.concatenate([p.classes for p in every])
        return cls(boxes, scores, classes, oriented)

    def __len__(self) -> int:
        """Return the number of detections."""
        return len(self.boxes)

    def __getitem__(self, index: slice | Ints | NDArray[np.bool_] | list[int]) -> Detections:
        """Return the detections that a slice, a mask or indices select."""
        which: Any = np.asarray(index, np.int64) if isinstance(index, list) else index
        return Detections(self.boxes[which], self.scores[which], self.classes[which], self.oriented)

    @property
    def rows(self) -> Floats:
        """(np.ndarray): The same as rows (N, 7): x, y, w, h, angle, score, class."""
        return np.concatenate([self.boxes, self.scores[:, None], self.classes[:, None].astype(np.float64)], 1)

    @property
    def corners(self) -> Floats:
        """(np.ndarray): Corners (N, 4, 2) of the boxes, clockwise in the picture (y down)."""
        return box_corners(self.boxes)

    @property
    def areas(self) -> Floats:
        """(np.ndarray): Areas (N,) of the boxes in square pixels."""
        areas: Floats = self.boxes[:, 2] * self.boxes[:, 3]
        return areas

    def shifted(self, x: float, y: float) -> Detections:
        """Return the detections moved by (x, y) pixels, as from a tile into its scene.

        Args:
            x (float): Pixels to the right.
            y (float): Pixels down.

        Returns:
            (Detections): With the same sizes, angles, scores and classes.
        """
        boxes = self.boxes + np.array([x, y, 0.0, 0.0, 0.0])
        return Detections(boxes, self.scores, self.classes, self.oriented)


def box_corners(boxes: Floats) -> Floats:
    """Return the corners of rotated boxes.

    Args:
        boxes (np.ndarray): Boxes (N, 5): x, y, w, h in pixels, angle in radians.

    Returns:
        (np.ndarray): Corners (N, 4, 2), clockwise in the picture (y down).
    """
    cos, sin = np.cos(boxes[:, 4]), np.sin(boxes[:, 4])
    along = np.stack([cos, sin], 1) * boxes[:, 2:3] / 2
    across = np.stack([-sin, cos], 1) * boxes[:, 3:4] / 2
    steps = np.stack([-along - across, along - across, along + across, across - along], 1)
    corners: Floats = boxes[:, None, :2] + steps
    return corners
