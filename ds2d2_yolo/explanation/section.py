"""A part of a sheet, and what the parts have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ds2d2_yolo.explanation import canvas as c
from ds2d2_yolo.explanation.canvas import Canvas
from ds2d2_yolo.explanation.facts import ImageExplanation

COLUMNS = 4
PANEL_TITLE = 2 * c.line_height(c.BODY)  # height of title and note above a panel
OUTLINE = "white"  # of objects over a map of magnitudes


@dataclass(frozen=True)
class Section:
    """A part of a sheet.

    Attributes:
        height (float): Inches.
        draw (Callable[[Canvas, float], None]): Draws it at a distance from the top in inches.
    """

    height: float
    draw: Callable[[Canvas, float], None]


def aspect(image: ImageExplanation) -> float:
    """Return height over width of the image.

    Args:
        image (ImageExplanation): The image.

    Returns:
        (float): Above 0.
    """
    left, top, right, bottom = image.area
    return (bottom - top) / (right - left)
