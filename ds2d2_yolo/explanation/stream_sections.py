"""The parts of a sheet about the two streams: band energies, amplifiers, and the parts of the levels."""

from __future__ import annotations

from ds2d2_yolo.explanation import canvas as c
from ds2d2_yolo.explanation import panels as p
from ds2d2_yolo.explanation.canvas import Canvas
from ds2d2_yolo.explanation.facts import AmplifierMaps, BandMaps, Explanation, ImageExplanation, LevelMaps, Map
from ds2d2_yolo.explanation.section import COLUMNS, OUTLINE, PANEL_TITLE, Section, aspect

SMALL_COLUMNS = 8
SMALL_GAP = 0.12
ENERGY = "mean squared coefficient"
BANDS = {"low": "low band", "high": "high bands"}
BAND_TERM = {"low": "exlo", "high": "exhi"}
TERMS = {
    "exlo": "exlo: low band of the features",
    "exhi": "exhi: high bands of the features",
    "imfu": "imfu: predictions of the teacher's head",
    "imhi": "imhi: predictions from high frequencies",
}


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


def large_band(image: ImageExplanation, level: LevelMaps, band: str) -> Section:
    """Return a band of the finest level, in panels of full size.

    Args:
        image (ImageExplanation): One of its images.
        level (LevelMaps): The level.
        band (str): 'low' or 'high'.

    Returns:
        (Section): For the sheet.
    """
    places = c.columns(COLUMNS)
    height = places[0][1] * aspect(image)
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


def small_bands(image: ImageExplanation, level: LevelMaps) -> Section:
    """Return both bands of a coarser level in one row of small panels.

    Args:
        image (ImageExplanation): One of its images.
        level (LevelMaps): The level.

    Returns:
        (Section): For the sheet.
    """
    places = _small_places()
    height = places[0][1] * aspect(image)
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


def amplifiers(explanation: Explanation, image: ImageExplanation) -> Section:
    """Return feature differences beside the differences of predictions that the amplifiers make of them.

    Args:
        explanation (Explanation): The pair of models.
        image (ImageExplanation): One of its images.

    Returns:
        (Section): For the sheet.
    """
    places = c.columns(COLUMNS)
    height = places[0][1] * aspect(image)

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
    norm = {"imfu": "|A S - T| / mean |T|", "imhi": "|hf(A S - T)| / mean |hf(T)|"}[term]
    drawn = (
        (f"{term}: feature difference", maps.features, f"{norm}, stride {maps.stride}"),
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


def level_bars(image: ImageExplanation) -> Section:
    """Return a bar for each term, divided by levels.

    Args:
        image (ImageExplanation): One of its images.

    Returns:
        (Section): For the sheet.
    """
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
