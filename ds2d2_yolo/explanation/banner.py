"""A wide picture for documents: image, DISW map, and an amplifier's two maps side by side."""

from __future__ import annotations

from pathlib import Path

from ds2d2_yolo.explanation import canvas as c
from ds2d2_yolo.explanation import panels as p
from ds2d2_yolo.explanation.canvas import Canvas
from ds2d2_yolo.explanation.facts import Explanation, ImageExplanation
from ds2d2_yolo.explanation.image_sections import draw_weight, weight_scale
from ds2d2_yolo.explanation.section import OUTLINE, PANEL_TITLE
from ds2d2_yolo.explanation.stream_sections import objects_note


def draw_banner(explanation: Explanation, image: ImageExplanation, file: Path) -> None:
    """Draw four panels of an image into a PNG file: ground truth, DISW of the finest level, and `imfu`.

    Args:
        explanation (Explanation): The pair of models.
        image (ImageExplanation): One of its images.
        file (Path): The file.
    """
    places = c.columns(4)
    left, upper, right, lower = image.area
    height = places[0][1] * (lower - upper) / (right - left)
    canvas = Canvas(c.MARGIN + PANEL_TITLE + height + p.BAR_SPACE)
    top, level, maps = c.MARGIN, image.levels[0], image.amplifiers["imfu"]
    axes = [p.image_axes(canvas, image, (x, top + PANEL_TITLE, width, height)) for x, width in places]
    count = len(image.truth.labels)
    p.title(canvas, places[0][0], top, "ground truth", f"{count} object{'s' * (count != 1)}")
    p.draw_photo(axes[0], image)
    p.draw_boxes(axes[0], image.truth, p.palette(explanation.classes))
    p.title(canvas, places[1][0], top, f"DISW, stride {level.stride}", "each object adds 1 to the map's sum")
    draw_weight(axes[1], image, level)
    p.colour_bar(canvas, weight_scale(level), places[1][0], top + PANEL_TITLE + height, places[1][1], "weight per cell")
    drawn = (
        ("feature difference", maps.features, f"|A S - T| / mean |T|, stride {maps.stride}"),
        ("after the amplifier", maps.scores, f"difference of class scores, stride {maps.stride}"),
    )
    for (x, width), panel, (heading, values, unit) in zip(places[2:], axes[2:], drawn, strict=True):
        p.title(canvas, x, top, heading, objects_note(maps, values))
        scale = p.Scale.of(values)
        p.draw_map(panel, values, maps.stride, scale)
        p.draw_boxes(panel, image.truth, OUTLINE, 0.6)
        p.colour_bar(canvas, scale, x, top + PANEL_TITLE + height, width, unit)
    canvas.save(file)
