"""One sheet: image and detections, DISW, band energies, amplifiers, and shares of the levels, from top to bottom."""

from __future__ import annotations

from pathlib import Path

from ds2d2_yolo.explanation import canvas as c
from ds2d2_yolo.explanation.canvas import Canvas
from ds2d2_yolo.explanation.facts import Explanation, ImageExplanation
from ds2d2_yolo.explanation.image_sections import photos, weights
from ds2d2_yolo.explanation.section import Section
from ds2d2_yolo.explanation.stream_sections import amplifiers, large_band, level_bars, small_bands

NOTES = {
    "image": "Labelled objects, and what teacher and student detect from a score of {conf:g}.",
    "disw": "Each object adds exactly 1 to the sum of the map, shared by the cells that it touches; every cell starts "
    "at 1. A small object raises a few cells by much, a large one many cells by little.",
    "energy": "The features are split by a wavelet ({wavelet}) into a low band (areas) and high bands (edges and "
    "detail); A S are the student's features behind the adapter. Teacher and adapted student have one colour scale. "
    "Blue: the student has less energy than the teacher; red: more. The weighted error is the energy of A S - T times "
    "the DISW weight; its mean over the cells is this level's part of the term.",
    "amplifier": "A frozen head turns feature differences into differences of predictions: the teacher's head (imfu), "
    "and a copy trained on hf, the high frequencies of the features (imhi). Each pair of panels shows the level with "
    "the largest part of the term. The percentages say how much of a map lies on objects, before and after the "
    "amplifier.",
    "levels": "Part of each level in the value of each term, for this image. It is not the part of the gradient.",
}


def draw_sheet(explanation: Explanation, image: ImageExplanation, file: Path) -> None:
    """Draw the sheet of an image into a PNG file of 1,800 px width.

    Args:
        explanation (Explanation): The pair of models.
        image (ImageExplanation): One of its images.
        file (Path): The file.
    """
    sections = [
        _head(explanation, image),
        _heading("1  Objects and detections", NOTES["image"].format(conf=explanation.conf)),
        photos(explanation, image),
        _heading("2  DISW: the weight of each cell in the explicit terms", NOTES["disw"]),
        weights(image),
        _heading("3  Explicit stream: features in the wavelet domain", NOTES["energy"].format(**vars(explanation))),
        large_band(image, image.levels[0], "low"),
        large_band(image, image.levels[0], "high"),
        *(small_bands(image, level) for level in image.levels[1:]),
        _heading("4  Implicit stream: the amplifiers at work", NOTES["amplifier"]),
        amplifiers(explanation, image),
        _heading("5  Which level the terms act on", NOTES["levels"]),
        level_bars(image),
    ]
    canvas = Canvas(sum(s.height for s in sections) + c.MARGIN)
    top = 0.0
    for section in sections:
        section.draw(canvas, top)
        top += section.height
    canvas.save(file)


def _heading(text: str, note: str) -> Section:
    """Return the heading of a part, with what it shows."""
    width = c.WIDTH - 2 * c.MARGIN
    lines = len(c.wrap(note, width, c.BODY))

    def draw(canvas: Canvas, top: float) -> None:
        canvas.rule(top + 0.1)
        canvas.text(c.MARGIN, top + 0.2, text, c.HEADING, weight="bold")
        canvas.paragraph(c.MARGIN, top + 0.2 + c.line_height(c.HEADING), width, note, c.BODY)

    return Section(0.2 + c.line_height(c.HEADING) + lines * c.line_height(c.BODY) + 0.14, draw)


def _head(explanation: Explanation, image: ImageExplanation) -> Section:
    """Return the title of the sheet."""
    e = explanation
    models = f"teacher T: {_model(e.teacher)}      student S: {_model(e.student)}"
    data = f"{c.shorten(e.data, 60)}, split={e.split}, {e.imgsz} px; {e.shared}"
    fits = " / ".join(f"{r2:.2f}" for r2 in e.r2)
    strides = " / ".join(str(level.stride) for level in image.levels)
    fitted = (
        f"adapters A: fitted on {e.fitted_to} (ridge regression); "
        f"R² of A S for T on the images shown: {fits} (stride {strides})"
    )
    width = c.WIDTH - 2 * c.MARGIN
    lines = [line for text in (models, data, fitted) for line in c.wrap(text, width, c.BODY)]

    def draw(canvas: Canvas, top: float) -> None:
        canvas.text(c.MARGIN, top + c.MARGIN, c.shorten(image.file, 70), c.TITLE, weight="bold")
        at = top + c.MARGIN + c.line_height(c.TITLE) + 0.03
        for line in lines:
            canvas.text(c.MARGIN, at, line, c.BODY)
            at += c.line_height(c.BODY)

    return Section(c.MARGIN + c.line_height(c.TITLE) + len(lines) * c.line_height(c.BODY) + 0.05, draw)


def _model(path: str) -> str:
    """Return the part of a checkpoint's path that tells it from others: the file, and the run for 'best.pt'."""
    parts = Path(path).parts
    return c.shorten("/".join(parts[-3:] if len(parts) > 3 and parts[-2] == "weights" else parts[-1:]), 48)
