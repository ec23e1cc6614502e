"""The panels of a sheet: images with boxes, maps with colour bars, and bars of shares."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ds2d2_yolo.explanation.canvas import BODY, GREY, INK, SMALL, Canvas, grey_levels, line_height
from ds2d2_yolo.explanation.facts import Boxes, ImageExplanation, Map

MAGNITUDES = "viridis"
DIFFERENCES = "RdBu_r"
BAR = 0.09  # height of a colour bar in inches
BAR_SPACE = 0.08 + BAR + 0.52  # height of a colour bar with ticks and unit below a panel
CLIP = 99.5  # percentile of a map's values at which its colours end: single cells would make the others look equal


@dataclass(frozen=True)
class Scale:
    """Colours of a map.

    Attributes:
        low (float): Value at the lower end.
        high (float): Value at the upper end, above `low`.
        colours (str): Matplotlib's name of the colour map.
        clipped (bool): Whether some values lie beyond the ends.
    """

    low: float
    high: float
    colours: str = MAGNITUDES
    clipped: bool = False

    @classmethod
    def of(cls, *maps: Map, low: float = 0.0) -> Scale:
        """Return the common scale of maps of magnitudes.

        Args:
            *maps (Map): The maps.
            low (float): Value at the lower end.

        Returns:
            (Scale): Up to the `CLIP` percentile of all values.
        """
        values = np.concatenate([m.ravel() for m in maps])
        high = float(np.percentile(values, CLIP))
        return cls(low, high if high > low else low + 1, clipped=bool(values.max() > high > low))

    @classmethod
    def around_zero(cls, values: Map) -> Scale:
        """Return the scale of a map of differences, symmetric around 0.

        Args:
            values (Map): The map.

        Returns:
            (Scale): Up to the `CLIP` percentile of the absolute values.
        """
        high = float(np.percentile(np.abs(values), CLIP))
        return cls(
            -high if high > 0 else -1, high if high > 0 else 1, DIFFERENCES, bool(np.abs(values).max() > high > 0)
        )


def palette(classes: Sequence[str]) -> dict[str, tuple[float, float, float]]:
    """Return a colour for each class; the hues are evenly spaced.

    Args:
        classes (Sequence[str]): Class names.

    Returns:
        (dict[str, tuple[float, float, float]]): Red, green and blue from 0 to 1.
    """
    return {name: colorsys.hsv_to_rgb(i / max(len(classes), 1), 0.95, 1.0) for i, name in enumerate(classes)}


def title(canvas: Canvas, left: float, top: float, text: str, note: str = "") -> None:
    """Write the title of a panel, and a note under it.

    Args:
        canvas (Canvas): The sheet.
        left (float): Inches from the left.
        top (float): Inches from the top.
        text (str): The title.
        note (str): A line in small type.
    """
    canvas.text(left, top, text, BODY, weight="bold")
    if note:
        canvas.text(left, top + line_height(BODY), note, SMALL, GREY)


def image_axes(canvas: Canvas, image: ImageExplanation, place: tuple[float, float, float, float]) -> Any:
    """Add axes that show the area of the image, in pixels of the network's input.

    Args:
        canvas (Canvas): The sheet.
        image (ImageExplanation): The image.
        place (tuple[float, float, float, float]): Left, top, width and height in inches.

    Returns:
        (Any): Axes without ticks.
    """
    axes = canvas.axes(*place)
    left, top, right, bottom = image.area
    axes.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[])
    axes.set_autoscale_on(False)
    for spine in axes.spines.values():
        spine.set(color="#999999", linewidth=0.6)
    return axes


def draw_boxes(axes: Any, boxes: Boxes, colours: Mapping[str, Any] | str, width: float = 1.1) -> None:
    """Draw outlines of boxes.

    Args:
        axes (Any): Axes in pixels.
        boxes (Boxes): The boxes.
        colours (Mapping[str, Any] | str): Colour of each class, or one for all.
        width (float): Width of the lines in points.
    """
    from matplotlib.collections import PolyCollection

    edges = [colours if isinstance(colours, str) else colours[label] for label in boxes.labels]
    if edges:
        axes.add_collection(
            PolyCollection(list(boxes.corners), facecolors="none", edgecolors=edges, linewidths=width), autolim=False
        )


def draw_photo(axes: Any, image: ImageExplanation, grey: bool = False) -> None:
    """Draw the network's input.

    Args:
        axes (Any): Axes in pixels.
        image (ImageExplanation): The image.
        grey (bool): Whether it is drawn without colours.
    """
    pixels = grey_levels(image.pixels) if grey else image.pixels
    height, width = pixels.shape[:2]
    axes.imshow(pixels, extent=(0, width, height, 0), interpolation="bilinear", aspect="auto", vmin=0, vmax=255)


def draw_map(
    axes: Any, values: Map, cell: float, scale: Scale, origin: tuple[float, float] = (0.0, 0.0), alpha: Any = None
) -> Any:
    """Draw a map, a square for each cell.

    Args:
        axes (Any): Axes in pixels.
        values (Map): h x w.
        cell (float): Side of a cell in pixels.
        scale (Scale): Colours.
        origin (tuple[float, float]): Pixel (y, x) of the upper left corner.
        alpha (Any): Opacity, one for all cells or one for each; None is opaque.

    Returns:
        (Any): What a colour bar describes.
    """
    (height, width), (y, x) = values.shape, origin
    extent = (x, x + width * cell, y + height * cell, y)
    return axes.imshow(
        values, extent=extent, cmap=scale.colours, vmin=scale.low, vmax=scale.high, interpolation="nearest",
        aspect="auto", alpha=alpha,
    )  # fmt: skip


def colour_bar(
    canvas: Canvas, scale: Scale, left: float, top: float, width: float, unit: str, few: bool = False
) -> None:
    """Draw a horizontal colour bar with its unit.

    Args:
        canvas (Canvas): The sheet.
        scale (Scale): Colours.
        left (float): Inches from the left.
        top (float): Inches from the top: the lower edge of the panel.
        width (float): Inches.
        unit (str): Text under the ticks.
        few (bool): Whether there is little room for ticks.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    axes = canvas.axes(left, top + 0.08, width, BAR)
    mapped = ScalarMappable(Normalize(scale.low, scale.high), scale.colours)
    lower = scale.clipped and scale.low < 0
    extend = "neither" if not scale.clipped else "both" if lower else "max"
    places = ticks(scale, few)
    bar = canvas.figure.colorbar(
        mapped, cax=axes, orientation="horizontal", extend=extend, extendfrac=0.03, ticks=places
    )
    bar.set_ticklabels([f"{place:.3g}".replace("e+0", "e").replace("e-0", "e-") for place in places])
    bar.outline.set_linewidth(0.5)
    axes.tick_params(labelsize=SMALL - 0.5, length=2.5, pad=2, colors=INK)
    canvas.text(left, top + 0.08 + BAR + 0.24, unit, SMALL, GREY)


def ticks(scale: Scale, few: bool = False) -> list[float]:
    """Return round values on a colour bar, with its lower end if that is no difference.

    Args:
        scale (Scale): Colours.
        few (bool): Whether there is little room: both ends, rounded towards 0 to one digit.

    Returns:
        (list[float]): Ascending.
    """
    from matplotlib.ticker import MaxNLocator

    if few:
        digit = 10.0 ** np.floor(np.log10(scale.high))
        end = float(np.floor(scale.high / digit) * digit)
        return [-end, end] if scale.low < 0 else [scale.low, end]
    values = MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]).tick_values(scale.low, scale.high)
    inside = [float(v) for v in values if scale.low < v <= scale.high]
    first = [] if scale.low < 0 else [scale.low]
    apart = 0.15 * (scale.high - scale.low)
    return first + [v for v in inside if not first or v - scale.low > apart]


def shares(values: Sequence[float]) -> NDArray[np.float64]:
    """Return the share of each value in their sum.

    Args:
        values (Sequence[float]): Values of at least 0.

    Returns:
        (NDArray[np.float64]): Their sum is 1, or 0 if all values are.
    """
    array = np.asarray(values, dtype=np.float64)
    return array / array.sum() if array.sum() > 0 else array


def percent(share: float) -> str:
    """Return a share as text.

    Args:
        share (float): 0 to 1.

    Returns:
        (str): Such as '12 %'; '<1 %' for one that is small and not 0.
    """
    return "<1 %" if 0 < share < 0.005 else f"{100 * share:.0f} %"
