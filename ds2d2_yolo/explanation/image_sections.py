"""The parts of a sheet about the image itself: detections, and the weights of its cells."""

from __future__ import annotations

from typing import Any

from ds2d2_yolo.explanation import canvas as c
from ds2d2_yolo.explanation import panels as p
from ds2d2_yolo.explanation.canvas import Canvas
from ds2d2_yolo.explanation.facts import Explanation, ImageExplanation, LevelMaps
from ds2d2_yolo.explanation.section import COLUMNS, OUTLINE, PANEL_TITLE, Section, aspect


def photos(explanation: Explanation, image: ImageExplanation) -> Section:
    """Return image with ground truth, with the detections of both models, and the classes.

    Args:
        explanation (Explanation): The pair of models.
        image (ImageExplanation): One of its images.

    Returns:
        (Section): For the sheet.
    """
    places = c.columns(COLUMNS)
    height = places[0][1] * aspect(image)
    colours = p.palette(explanation.classes)
    sources = {"labelled": image.truth, "teacher": image.teacher, "student": image.student}

    def draw(canvas: Canvas, top: float) -> None:
        for (left, width), (name, boxes) in zip(places, sources.items(), strict=False):
            count = len(boxes.labels)
            text = {"labelled": "ground truth"}.get(name, f"{name}'s detections")
            p.title(canvas, left, top, f"{text}: {count}")
            axes = p.image_axes(canvas, image, (left, top + c.line_height(c.BODY), width, height))
            p.draw_photo(axes, image)
            p.draw_boxes(axes, boxes, colours)
        left, width = places[-1]
        _classes(canvas, left, top, height, image, explanation, colours)

    return Section(c.line_height(c.BODY) + height + 0.1, draw)


def _classes(
    canvas: Canvas,
    left: float,
    top: float,
    height: float,
    image: ImageExplanation,
    explanation: Explanation,
    colours: dict[str, tuple[float, float, float]],
) -> None:
    """Write the classes of the boxes in this image with their colours and numbers."""
    columns = (image.truth, image.teacher, image.student)
    present = [k for k in explanation.classes if any(k in b.labels for b in columns)]
    line = c.line_height(c.BODY)
    rows = max(1, int(height / line) - 1)
    shown = present if len(present) <= rows else present[: rows - 1]
    p.title(canvas, left, top, "truth / teacher / student")
    for i, name in enumerate(shown):
        at = top + (i + 1) * line + 0.04
        swatch = canvas.axes(left, at + 0.03, 0.14, 0.11)
        swatch.set(xticks=[], yticks=[], facecolor=colours[name])
        counts = " / ".join(str(b.labels.count(name)) for b in columns)
        canvas.text(left + 0.22, at, f"{c.shorten(name, 20)}: {counts}")
    if len(present) > len(shown):
        canvas.text(left, top + (len(shown) + 1) * line + 0.04, f"and {len(present) - len(shown)} more classes")
    if not present:
        canvas.text(left, top + line + 0.04, "no boxes in this image", color=c.GREY)


def weights(image: ImageExplanation) -> Section:
    """Return the DISW maps of all levels over the image.

    Args:
        image (ImageExplanation): One of its images.

    Returns:
        (Section): For the sheet.
    """
    places = c.columns(max(COLUMNS, len(image.levels)))
    height = places[0][1] * aspect(image)

    def draw(canvas: Canvas, top: float) -> None:
        for (left, width), level in zip(places, image.levels, strict=False):
            rows, columns = level.weight.shape
            p.title(canvas, left, top, f"stride {level.stride}", f"{columns} x {rows} cells of {2 * level.stride} px")
            axes = p.image_axes(canvas, image, (left, top + PANEL_TITLE, width, height))
            draw_weight(axes, image, level)
            scale = weight_scale(level)
            p.colour_bar(canvas, scale, left, top + PANEL_TITLE + height, width, "weight per cell")
        if len(image.levels) < COLUMNS:
            left, width = places[-1]
            p.title(canvas, left, top, "sum of the map", "number of cells + number of objects")
            at = top + PANEL_TITLE + 0.04
            for level in image.levels:
                cells, total = level.weight.size, float(level.weight.sum(dtype="float64"))
                text = f"stride {level.stride}: {cells} + {total - cells:.0f} = {total:.0f}"
                at = canvas.paragraph(left, at, width, text, c.BODY, c.INK) + 0.06

    return Section(PANEL_TITLE + height + p.BAR_SPACE, draw)


def weight_scale(level: LevelMaps) -> p.Scale:
    """Return the colours of a DISW map: from 1, the weight of a cell without objects, to the largest weight.

    Args:
        level (LevelMaps): The level.

    Returns:
        (Scale): Not clipped.
    """
    high = float(level.weight.max())
    return p.Scale(1.0, high if high > 1 else 2.0)


def draw_weight(axes: Any, image: ImageExplanation, level: LevelMaps) -> None:
    """Draw a DISW map over the grey image: cells of weight 1 stay nearly transparent.

    Args:
        axes (Any): Axes in pixels.
        image (ImageExplanation): The image.
        level (LevelMaps): The level.
    """
    scale = weight_scale(level)
    relative = (level.weight - scale.low) / (scale.high - scale.low)
    alpha = 0.2 + 0.6 * relative.clip(0, 1) ** 0.5
    p.draw_photo(axes, image, grey=True)
    p.draw_map(axes, level.weight, 2 * level.stride, scale, level.origin, alpha)
    p.draw_boxes(axes, image.truth, OUTLINE, 0.7)
