"""Boxes of an image or tile: selection, clipping at the border, label lines in Ultralytics' format."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np

from ds2d2_yolo.prepare.records import Box, Corners

MIN_SIDE = 0.1  # pixels; a box with a shorter side is dropped
DEGENERATE, OUTSIDE = "degenerate", "outside the image"


def class_key(name: str) -> str:
    """Normalise a class name for comparison: letters and digits only, in lower case.

    Args:
        name (str): Class name.

    Returns:
        (str): The normalised name.

    Examples:
        >>> class_key("large-vehicle") == class_key("Large Vehicle")
        True
    """
    return "".join(c for c in name.casefold() if c.isalnum())


def fit(corners: Corners, width: float, height: float, oriented: bool) -> Corners | str:
    """Return the part of a box inside an image or tile.

    A box inside is returned unchanged. A horizontal box across the border is clipped. An oriented box across the border
    is cut along its sides: it becomes the rectangle around its visible part, in the direction of its smallest enclosing
    rectangle, with the corners in the published order. Corners of this rectangle outside the image, which a slanted box
    always has, move to the nearest point inside.

    Args:
        corners (Corners): Four corners in pixels of the image or tile, (4, 2).
        width (float): Its width in pixels.
        height (float): Its height in pixels.
        oriented (bool): Whether the box is oriented.

    Returns:
        (Corners | str): Corners within 0..width and 0..height, or the reason for dropping the box: 'degenerate' if a
            side is below 0.1 px, 'outside the image' if a side of its visible part is.
    """
    limit = np.array([width, height], dtype=float)
    if (short_side(corners) if oriented else (corners[2] - corners[0]).min()) < MIN_SIDE:
        return DEGENERATE
    if (corners >= 0).all() and (corners <= limit).all():
        return corners
    if not oriented:
        clipped = corners.clip(0, limit)
        return OUTSIDE if (clipped[2] - clipped[0]).min() < MIN_SIDE else clipped
    visible = _clip(corners, limit)
    if len(visible) < 3 or short_side(visible) < MIN_SIDE:
        return OUTSIDE
    return _around(visible, corners).clip(0, limit)


def short_side(points: Corners) -> float:
    """Return the shorter side of the smallest rectangle around some points.

    Args:
        points (Corners): Points in pixels, (N, 2).

    Returns:
        (float): Length in pixels.
    """
    return float(min(_rectangle(points)[1]))


def _rectangle(points: Corners) -> tuple[Corners, tuple[float, float], float]:
    """Return the smallest rectangle around points: its origin, sides and angle in degrees."""
    origin = points[0]  # OpenCV computes in float32, which is most exact near the origin
    _, sides, angle = cv2.minAreaRect((points - origin).astype(np.float32))
    return origin, sides, angle


def _clip(corners: Corners, limit: Corners) -> Corners:
    """Return the part of a polygon inside 0..limit (Sutherland and Hodgman 1974)."""
    points = corners
    for axis in (0, 1):
        for sign, bound in ((1.0, 0.0), (-1.0, -limit[axis])):
            inner = sign * points[:, axis] - bound  # positive inside
            clipped = []
            for i in range(len(points)):
                if (inner[i - 1] > 0) != (inner[i] > 0):
                    share = inner[i - 1] / (inner[i - 1] - inner[i])
                    clipped.append(points[i - 1] + share * (points[i] - points[i - 1]))
                if inner[i] > 0:
                    clipped.append(points[i])
            points = np.array(clipped).reshape(-1, 2)
    return points


def _around(visible: Corners, corners: Corners) -> Corners:
    """Return the rectangle around the visible part, with the direction and the corner order of the box."""
    angle = np.deg2rad(_rectangle(corners)[2])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    along = visible @ turn
    (x1, y1), (x2, y2) = along.min(0), along.max(0)
    rectangle = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]]) @ turn.T
    orders = [np.roll(way, k, 0) for way in (rectangle, rectangle[::-1]) for k in range(4)]
    # corners in the same direction from the centre of their boxes correspond, independent of the part cut off
    offsets = corners - corners.mean(0)
    return max(orders, key=lambda order: float(((order - order.mean(0)) * offsets).sum()))


def label_line(index: int, corners: Corners, width: float, height: float, oriented: bool) -> str:
    """Return one line of a label file: `class x1 y1 x2 y2 x3 y3 x4 y4`, or `class x y w h`, as shares of the image.

    Args:
        index (int): Class index.
        corners (Corners): Four corners in pixels, (4, 2).
        width (float): Width of the image in pixels.
        height (float): Height of the image in pixels.
        oriented (bool): Whether the line has four corners.

    Returns:
        (str): The line, six decimals per number, without a line end.
    """
    shares = corners / [width, height]
    if not oriented:
        shares = np.array([(shares[0] + shares[2]) / 2, shares[2] - shares[0]])
    return " ".join([str(index), *(f"{value:.6f}" for value in shares.ravel())])


def assign_classes(
    boxes: Iterable[Box], classes: dict[str, int], without_class: Iterable[str], drop_difficult: bool
) -> tuple[list[tuple[Box, int]], list[tuple[Box, str]]]:
    """Assign class indices to boxes and drop unusable ones, before their positions are checked.

    Args:
        boxes (Iterable[Box]): The boxes of an image.
        classes (dict[str, int]): Class indices by `class_key`.
        without_class (Iterable[str]): Keys of published names that intentionally stand for no class.
        drop_difficult (bool): Whether boxes that are marked difficult are dropped.

    Returns:
        assigned (list[tuple[Box, int]]): Boxes with their class indices.
        dropped (list[tuple[Box, str]]): Boxes with the reasons.
    """
    assigned, dropped, seen = [], [], set()
    for box in boxes:
        key = class_key(box.name)
        identity = (key, box.corners.tobytes())
        if key in without_class:
            dropped.append((box, "published without a class"))
        elif key not in classes:
            dropped.append((box, "unknown class"))
        elif drop_difficult and box.difficult:
            dropped.append((box, "difficult"))
        elif identity in seen:  # Ultralytics would remove it when it loads the labels
            dropped.append((box, "duplicate"))
        else:
            seen.add(identity)
            assigned.append((box, classes[key]))
    return assigned, dropped
