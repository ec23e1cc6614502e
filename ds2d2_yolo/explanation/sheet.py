"""One sheet: image and detections, DISW, band energies, amplifiers, and shares of the levels, from top to bottom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ds2d2_yolo.explanation import canvas as c
from ds2d2_yolo.explanation import panels as p
from ds2d2_yolo.explanation.canvas import Canvas
from ds2d2_yolo.explanation.facts import AmplifierMaps, BandMaps, Explanation, ImageExplanation, LevelMaps, Map

COLUMNS = 4
SMALL_COLUMNS = 8
SMALL_GAP = 0.12
PANEL_TITLE = 2 * c.line_height(c.BODY)  # height of title and note above a panel
OUTLINE = "white"
ENERGY = "mean squared coefficient"
BANDS = {"low": "low band", "high": "high bands"}
BAND_TERM = {"low": "exlo", "high": "exhi"}
TERMS = {
    "exlo": "exlo: low band of the features",
    "exhi": "exhi: high bands of the features",
    "imfu": "imfu: predictions of the teacher's head",
    "imhi": "imhi: predictions from high frequencies",
}
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


@dataclass(frozen=True)
class Section:
    """A part of a sheet.

    Attributes:
        height (float): Inches.
        draw (Callable[[Canvas, float], None]): Draws it at a distance from the top in inches.
    """

    height: float
    draw: Callable[[Canvas, float], None]


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
        _photos(explanation, image),
        _heading("2  DISW: the weight of each cell in the explicit terms", NOTES["disw"]),
        _weights(image),
        _heading("3  Explicit stream: features in the wavelet domain", NOTES["energy"].format(**vars(explanation))),
        _large_band(image, image.levels[0], "low"),
        _large_band(image, image.levels[0], "high"),
        *(_small_bands(image, level) for level in image.levels[1:]),
        _heading("4  Implicit stream: the amplifiers at work", NOTES["amplifier"]),
        _amplifiers(explanation, image),
        _heading("5  Which level the terms act on", NOTES["levels"]),
        _level_bars(image),
    ]
    canvas = Canvas(sum(s.height for s in sections) + c.MARGIN)
    top = 0.0
    for section in sections:
        section.draw(canvas, top)
        top += section.height
    canvas.save(file)


def _aspect(image: ImageExplanation) -> float:
    """Return height over width of the image."""
    left, top, right, bottom = image.area
    return (bottom - top) / (right - left)


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
    data = f"{c.shorten(e.data, 60)}, split={e.split}, {e.imgsz} px"
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


def _photos(explanation: Explanation, image: ImageExplanation) -> Section:
    """Return image with ground truth, with the detections of both models, and the classes."""
    places = c.columns(COLUMNS)
    height = places[0][1] * _aspect(image)
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


def _weights(image: ImageExplanation) -> Section:
    """Return the DISW maps of all levels over the image."""
    places = c.columns(max(COLUMNS, len(image.levels)))
    height = places[0][1] * _aspect(image)

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


def draw_weight(axes: object, image: ImageExplanation, level: LevelMaps) -> None:
    """Draw a DISW map over the grey image: cells of weight 1 stay nearly transparent.

    Args:
        axes (object): Axes in pixels.
        image (ImageExplanation): The image.
        level (LevelMaps): The level.
    """
    scale = weight_scale(level)
    relative = (level.weight - scale.low) / (scale.high - scale.low)
    alpha = 0.2 + 0.6 * relative.clip(0, 1) ** 0.5
    p.draw_photo(axes, image, grey=True)
    p.draw_map(axes, level.weight, 2 * level.stride, scale, level.origin, alpha)
    p.draw_boxes(axes, image.truth, OUTLINE, 0.7)


def _band_panels(level: LevelMaps, band: str) -> list[tuple[Map, p.Scale]]:
    """Return the four maps of a band with their colours: teacher, student, difference, weighted error."""
    maps: BandMaps = getattr(level, band)
    energy = p.Scale.of(maps.teacher, maps.student)
    return [
        (maps.teacher, energy),
        (maps.student, energy),
        (maps.difference, p.Scale.around_zero(maps.difference)),
        (maps.weighted_error, p.Scale.of(maps.weighted_error)),
    ]


def _large_band(image: ImageExplanation, level: LevelMaps, band: str) -> Section:
    """Return a band of the finest level, in panels of full size."""
    places = c.columns(COLUMNS)
    height = places[0][1] * _aspect(image)
    term = BAND_TERM[band]
    name = f"{BANDS[band]}, stride {level.stride}"
    value = float(getattr(level, band).weighted_error.mean())
    titles = (
        ("teacher's energy", name),
        ("adapted student's energy", name),
        ("student minus teacher", "blue: less energy, red: more"),
        ("weighted error", f"its mean: {term} of this level, {value:.3g}"),
    )
    units = (ENERGY, f"{ENERGY}, same scale", "difference of the energies", "weight x squared coefficient")

    def draw(canvas: Canvas, top: float) -> None:
        for (left, width), (values, scale), heading, unit in zip(
            places, _band_panels(level, band), titles, units, strict=True
        ):
            p.title(canvas, left, top, *heading)
            axes = p.image_axes(canvas, image, (left, top + PANEL_TITLE, width, height))
            p.draw_map(axes, values, 2 * level.stride, scale, level.origin)
            p.draw_boxes(axes, image.truth, _outline(scale), 0.6)
            p.colour_bar(canvas, scale, left, top + PANEL_TITLE + height, width, unit)

    return Section(PANEL_TITLE + height + p.BAR_SPACE + 0.06, draw)


def _small_places() -> list[tuple[float, float]]:
    """Return left edge and width of eight small columns, with a wider gap in the middle."""
    width = (c.WIDTH - 2 * c.MARGIN - c.GAP - 6 * SMALL_GAP) / SMALL_COLUMNS
    half = SMALL_COLUMNS // 2
    lefts = [c.MARGIN + i * (width + SMALL_GAP) + (c.GAP - SMALL_GAP) * (i >= half) for i in range(SMALL_COLUMNS)]
    return [(left, width) for left in lefts]


def _small_bands(image: ImageExplanation, level: LevelMaps) -> Section:
    """Return both bands of a coarser level in one row of small panels."""
    places = _small_places()
    height = places[0][1] * _aspect(image)
    titles = ("teacher", "student", "difference", "error")

    def draw(canvas: Canvas, top: float) -> None:
        under = top + PANEL_TITLE + height
        for first, band in ((0, "low"), (4, "high")):
            canvas.text(places[first][0], top, f"{BANDS[band]}, stride {level.stride}", c.BODY, weight="bold")
            drawn = _band_panels(level, band)
            for (left, width), (values, scale), name in zip(places[first:], drawn, titles, strict=False):
                canvas.text(left, top + c.line_height(c.BODY), name, c.SMALL, c.GREY)
                axes = p.image_axes(canvas, image, (left, top + PANEL_TITLE, width, height))
                p.draw_map(axes, values, 2 * level.stride, scale, level.origin)
            (left, width), (second, _) = places[first], places[first + 1]
            p.colour_bar(canvas, drawn[0][1], left, under, second + width - left, ENERGY)
            p.colour_bar(canvas, drawn[2][1], places[first + 2][0], under, width, "difference", few=True)
            p.colour_bar(canvas, drawn[3][1], places[first + 3][0], under, width, "weight x sq. coeff.", few=True)

    return Section(PANEL_TITLE + height + p.BAR_SPACE + 0.06, draw)


def _outline(scale: p.Scale) -> str:
    """Return a colour of lines that is visible on a colour map."""
    return OUTLINE if scale.colours == p.MAGNITUDES else "black"


def _amplifiers(explanation: Explanation, image: ImageExplanation) -> Section:
    """Return feature differences beside the differences of predictions that the amplifiers make of them."""
    places = c.columns(COLUMNS)
    height = places[0][1] * _aspect(image)

    def draw(canvas: Canvas, top: float) -> None:
        for first, term in ((0, "imfu"), (2, "imhi")):
            if term in image.amplifiers:
                _amplifier_pair(canvas, top, places[first : first + 2], height, image, term)
        if "imhi" not in image.amplifiers:
            (left, width), (last, _) = places[2:]
            p.title(canvas, left, top, "imhi: high-frequency amplifier")
            box = canvas.axes(left, top + PANEL_TITLE, last + width - left, height)
            box.set(xticks=[], yticks=[], facecolor="#f4f5f6")
            box.spines[:].set(color=c.RULE)
            canvas.paragraph(
                left + 0.2, top + PANEL_TITLE + height / 2 - 0.2, last + width - left - 0.4,
                explanation.no_amplifier, c.BODY,
            )  # fmt: skip

    return Section(PANEL_TITLE + height + p.BAR_SPACE, draw)


def _amplifier_pair(
    canvas: Canvas,
    top: float,
    places: list[tuple[float, float]],
    height: float,
    image: ImageExplanation,
    term: str,
) -> None:
    """Draw the two panels of an amplifier."""
    maps = image.amplifiers[term]
    unit = {"imfu": "|A S - T| / mean |T|", "imhi": "|hf(A S - T)| / mean |hf(T)|"}[term]
    drawn = (
        (f"{term}: feature difference", maps.features, f"{unit}, stride {maps.stride}"),
        (f"{term}: score difference", maps.scores, f"class score (0 to 1), stride {maps.stride}"),
    )
    for (left, width), (heading, values, unit) in zip(places, drawn, strict=True):
        p.title(canvas, left, top, heading, objects_note(maps, values))
        axes = p.image_axes(canvas, image, (left, top + PANEL_TITLE, width, height))
        scale = p.Scale.of(values)
        p.draw_map(axes, values, maps.stride, scale)
        p.draw_boxes(axes, image.truth, OUTLINE, 0.6)
        p.colour_bar(canvas, scale, left, top + PANEL_TITLE + height, width, unit)


def objects_note(maps: AmplifierMaps, values: Map) -> str:
    """Return how much of a map lies on objects, beside their area.

    Args:
        maps (AmplifierMaps): Maps of an amplifier.
        values (Map): One of them.

    Returns:
        (str): One line, such as "54 % on objects (17 % of the area)".
    """
    area = p.percent(float(maps.objects.mean()))
    return f"{p.percent(maps.share_on_objects(values))} on objects ({area} of the area)"


def _level_bars(image: ImageExplanation) -> Section:
    """Return a bar for each term, divided by levels."""
    row, label, text = 0.3, 3.3, 3.2
    strides = [level.stride for level in image.levels]

    def draw(canvas: Canvas, top: float) -> None:
        from matplotlib import colormaps

        colours = [colormaps[p.MAGNITUDES](0.12 + 0.76 * i / max(len(strides) - 1, 1)) for i in range(len(strides))]
        for i, stride in enumerate(strides):
            left = c.MARGIN + label + 1.1 * i
            swatch = canvas.axes(left, top + 0.03, 0.14, 0.11)
            swatch.set(xticks=[], yticks=[], facecolor=colours[i])
            canvas.text(left + 0.2, top, f"stride {stride}")
        for number, (term, values) in enumerate(image.values.items()):
            at = top + 0.26 + number * row
            canvas.text(c.MARGIN, at + 0.02, TERMS[term])
            width = c.WIDTH - 2 * c.MARGIN - label - text
            axes = canvas.axes(c.MARGIN + label, at, width, 0.2)
            axes.set(xlim=(0, 1), ylim=(0, 1), xticks=[], yticks=[])
            parts = p.shares(values)
            for k, part in enumerate(parts):
                axes.barh(0.5, part, 1, left=parts[:k].sum(), color=colours[k])
            summed = " / ".join(p.percent(float(x)) for x in parts)
            line = f"{summed}   of {sum(values):.3g}"
            canvas.text(c.MARGIN + label + width + 0.12, at + 0.02, line)

    return Section(0.26 + row * len(image.values) + 0.05, draw)
