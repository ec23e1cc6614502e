"""Where an object lies: poses and rectangles in continuous pixel coordinates."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ds2d2_yolo.scenes.drawing.canvas import Points


@dataclass(frozen=True)
class Pose:
    """Where an object lies: unit coordinates (along, across) in -0.5..0.5 map to pixels.

    Attributes:
        centre (np.ndarray): Centre in pixels.
        along (np.ndarray): Vector of the full length in pixels, towards the nose.
        across (np.ndarray): Vector of the full width in pixels.
    """

    centre: Points
    along: Points
    across: Points

    def map(self, unit: Points) -> Points:
        """Return unit coordinates (N, 2) in pixels."""
        return self.centre + unit[:, :1] * self.along + unit[:, 1:] * self.across

    @property
    def corners(self) -> Points:
        """The four corners in pixels, in order around the rectangle."""
        return self.map(RECTANGLE)

    @property
    def drawn(self) -> Pose:
        """The pose to draw with: OpenCV's fills reach a quarter of a pixel beyond their outline."""
        inset = 0.5
        return Pose(
            self.centre,
            self.along * max(0.5, 1 - inset / self.length),
            self.across * max(0.5, 1 - inset / self.width),
        )

    @property
    def length(self) -> float:
        """Length in pixels."""
        return math.hypot(*self.along)

    @property
    def width(self) -> float:
        """Width in pixels."""
        return math.hypot(*self.across)


RECTANGLE: Points = np.array([[0.5, -0.5], [0.5, 0.5], [-0.5, 0.5], [-0.5, -0.5]])


def box(u0: float, v0: float, u1: float, v1: float) -> Points:
    """Return the corners of an upright rectangle."""
    return np.array([[u0, v0], [u1, v0], [u1, v1], [u0, v1]], np.float64)
