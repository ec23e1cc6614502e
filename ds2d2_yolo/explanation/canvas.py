"""A figure whose parts are placed in inches from its upper left corner, so that nothing depends on a layout engine."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ds2d2_yolo.utils.atomic_files import replacing

WIDTH = 12.0  # inches of a sheet
MARGIN = 0.3
GAP = 0.25  # between columns
DPI = 150
INK = "#222222"
GREY = "#5f6368"
RULE = "#c8ccd0"
TITLE, HEADING, BODY, SMALL = 15.0, 12.5, 10.0, 9.0  # points; at 100 px an inch the smallest text is 12.5 px
LINE = 1.35  # height of a line over the size of its font
POINTS = 72.0  # an inch
CHARACTER = 0.52  # mean width of a character over the size of its font


def line_height(size: float) -> float:
    """Return the height of a line of text in inches.

    Args:
        size (float): Size of the font in points.

    Returns:
        (float): Inches.
    """
    return size * LINE / POINTS


def wrap(text: str, width: float, size: float) -> list[str]:
    """Break text into lines.

    Args:
        text (str): The text; its line ends stay.
        width (float): Largest width of a line in inches.
        size (float): Size of the font in points.

    Returns:
        (list[str]): Lines.
    """
    characters = max(8, int(width * POINTS / (size * CHARACTER)))
    return [line for part in text.split("\n") for line in textwrap.wrap(part, characters) or [""]]


def shorten(text: str, length: int) -> str:
    """Return a text of at most `length` characters: of a longer one the beginning and the end.

    Args:
        text (str): The text, such as a file name.
        length (int): Number of characters, at least 5.

    Returns:
        (str): Such as 'scene_0...42.png'.
    """
    if len(text) <= length:
        return text
    head = (length - 3) // 2
    return f"{text[:head]}...{text[len(text) - (length - 3 - head) :]}"


def columns(count: int, gap: float = GAP) -> list[tuple[float, float]]:
    """Return left edge and width of equal columns in inches.

    Args:
        count (int): Number of columns.
        gap (float): Space between them.

    Returns:
        (list[tuple[float, float]]): From left to right.
    """
    width = (WIDTH - 2 * MARGIN - (count - 1) * gap) / count
    return [(MARGIN + i * (width + gap), width) for i in range(count)]


class Canvas:
    """A matplotlib figure of a fixed width without global state.

    Args:
        height (float): Inches.
    """

    def __init__(self, height: float) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.height = height
        self.figure: Any = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor="white")
        FigureCanvasAgg(self.figure)

    def axes(self, left: float, top: float, width: float, height: float) -> Any:
        """Add axes.

        Args:
            left (float): Inches from the left.
            top (float): Inches from the top.
            width (float): Inches.
            height (float): Inches.

        Returns:
            (Any): Matplotlib's axes.
        """
        place = (left / WIDTH, 1 - (top + height) / self.height, width / WIDTH, height / self.height)
        return self.figure.add_axes(place)

    def text(self, left: float, top: float, text: str, size: float = BODY, color: str = INK, **style: Any) -> None:
        """Write a line of text; it may hold any characters, dollar signs too.

        Args:
            left (float): Inches from the left.
            top (float): Inches from the top to the upper edge of the line.
            text (str): The line.
            size (float): Points.
            color (str): Colour.
            **style (Any): Further properties of matplotlib's text.
        """
        place = left / WIDTH, 1 - top / self.height
        self.figure.text(*place, text, size=size, color=color, va="top", parse_math=False, **style)

    def paragraph(
        self, left: float, top: float, width: float, text: str, size: float = SMALL, color: str = GREY
    ) -> float:
        """Write wrapped text.

        Args:
            left (float): Inches from the left.
            top (float): Inches from the top.
            width (float): Inches.
            text (str): The text.
            size (float): Points.
            color (str): Colour.

        Returns:
            (float): Inches from the top to the lower edge.
        """
        for line in wrap(text, width, size):
            self.text(left, top, line, size, color)
            top += line_height(size)
        return top

    def rule(self, top: float) -> None:
        """Draw a line across the sheet.

        Args:
            top (float): Inches from the top.
        """
        axes = self.axes(MARGIN, top, WIDTH - 2 * MARGIN, 0.01)
        axes.set_axis_off()
        axes.axhline(0, color=RULE, linewidth=1)

    def save(self, file: Path) -> None:
        """Write the figure as PNG, atomically.

        Args:
            file (Path): The file.
        """
        with replacing(file) as temporary:
            self.figure.savefig(temporary, format="png", dpi=DPI)


def grey_levels(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an RGB image as grey, so that the colours of a map over it keep their meaning.

    Args:
        pixels (NDArray[np.uint8]): H x W x 3.

    Returns:
        (NDArray[np.uint8]): H x W x 3.
    """
    grey = pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    return np.repeat(grey[..., None], 3, 2).astype(np.uint8)
