"""The sheets: their size, that every panel shows something, and that no text covers another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from matplotlib.text import Text

from ds2d2_yolo.explanation import canvas as canvases
from ds2d2_yolo.explanation import sheet
from ds2d2_yolo.explanation.banner import draw_banner
from ds2d2_yolo.explanation.facts import Explanation
from tests.helpers.explanation import boxes, explanation, image

CASES: dict[str, Any] = {
    "usual": lambda: explanation(image()),
    "long names": lambda: explanation(
        image("x" * 200 + ".png"), teacher="/" + "t" * 150 + ".pt", student="/" + "s" * 90 + "/weights/best.pt",
        data="d" * 150, fitted_to="32 images of split=train",
    ),
    "no amplifier": lambda: explanation(
        image(amplifiers={"imfu": image().amplifiers["imfu"]}),
        no_amplifier="no high-frequency amplifier given: that of the student's run does not fit this teacher",
    ),
    "no objects": lambda: explanation(image(truth=boxes(), teacher=boxes(), student=boxes())),
    "many classes": lambda: explanation(
        image(truth=boxes(*(f"class number {i}" for i in range(80)))),
        classes=(*(f"class number {i}" for i in range(80)), "red", "blue"),
    ),
    "wide": lambda: explanation(image(area=(0, 40, 128, 88))),
    "one level": lambda: explanation(image(strides=(8,))),
    "five levels": lambda: explanation(image(strides=(4, 8, 16, 32, 64))),
    "tiny values": lambda: explanation(image(scale=1e-7)),
    "large values": lambda: explanation(image(scale=1e6)),
    "dollars": lambda: explanation(image("$a_b$^{.png"), classes=("red", "green", "blue")),
}  # fmt: skip
FAST = {"usual", "long names", "many classes", "five levels", "dollars"}
assert CASES.keys() >= FAST, "a fast case is none of the cases"


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[canvases.Canvas]:
    """The canvases that were saved."""
    saved: list[canvases.Canvas] = []
    save = canvases.Canvas.save
    monkeypatch.setattr(canvases.Canvas, "save", lambda self, file: (saved.append(self), save(self, file))[1])
    return saved


def overlaps(canvas: canvases.Canvas) -> list[str]:
    """Pairs of texts that cover each other, and texts that leave the figure."""
    figure = canvas.figure
    renderer = figure.canvas.get_renderer()
    texts = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]
    extents = [t.get_window_extent(renderer) for t in texts]
    width, height = figure.canvas.get_width_height()
    problems = [
        f"{t.get_text()!r} leaves the sheet"
        for t, e in zip(texts, extents, strict=True)
        if e.x0 < 0 or e.y0 < 0 or e.x1 > width or e.y1 > height
    ]
    for i, first in enumerate(extents):
        for j in range(i):
            a, b = first, extents[j]
            # a pixel of tolerance: the extents include the room for accents
            if min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 3:
                problems.append(f"{texts[i].get_text()!r} covers {texts[j].get_text()!r}")
    return problems


@pytest.mark.parametrize("case", [pytest.param(x, marks=[] if x in FAST else pytest.mark.slow) for x in CASES])
def test_no_text_covers_another(case: str, tmp_path: Path, drawn: list[canvases.Canvas]) -> None:
    facts: Explanation = CASES[case]()
    sheet.draw_sheet(facts, facts.images[0], tmp_path / "sheet.png")
    draw_banner(facts, facts.images[0], tmp_path / "banner.png")
    assert [overlaps(canvas) for canvas in drawn] == [[], []]


def test_every_panel_shows_something(tmp_path: Path, drawn: list[canvases.Canvas]) -> None:
    facts = CASES["usual"]()
    sheet.draw_sheet(facts, facts.images[0], tmp_path / "sheet.png")
    pixels = cv2.imread(str(tmp_path / "sheet.png"))
    height, width = pixels.shape[:2]
    assert width == canvases.WIDTH * canvases.DPI == 1800
    panels = [a for a in drawn[0].figure.axes if a.images]
    assert len(panels) == 3 + 3 + 2 * 4 + 2 * 8 + 4
    for axes in panels:
        box = axes.get_position()
        rows = slice(int((1 - box.y1) * height) + 3, int((1 - box.y0) * height) - 3)
        columns = slice(int(box.x0 * width) + 3, int(box.x1 * width) - 3)
        assert pixels[rows, columns].reshape(-1, 3).std(0).max() > 5


def test_maps_lie_where_their_cells_are(tmp_path: Path, drawn: list[canvases.Canvas]) -> None:
    facts = image()
    origin = (-8.0, -8.0)
    facts = replace(facts, levels=(replace(facts.levels[0], origin=origin), *facts.levels[1:]))
    sheet.draw_sheet(explanation(facts), facts, tmp_path / "sheet.png")
    maps = [i for a in drawn[0].figure.axes for i in a.images if np.array_equal(i.get_array(), facts.levels[0].weight)]
    assert [tuple(m.get_extent()) for m in maps] == [(-8.0, 120.0, 120.0, -8.0)]


def test_teacher_and_student_are_drawn_with_equal_colours(tmp_path: Path, drawn: list[canvases.Canvas]) -> None:
    facts = image()
    sheet.draw_sheet(explanation(facts), facts, tmp_path / "sheet.png")
    for level in facts.levels:
        for band in (level.low, level.high):
            limits = [
                i.get_clim()
                for a in drawn[0].figure.axes
                for i in a.images
                if any(np.array_equal(i.get_array(), m) for m in (band.teacher, band.student))
            ]
            assert len(limits) == 2
            assert limits[0] == limits[1]


def test_the_reason_is_written_where_there_is_no_amplifier(tmp_path: Path, drawn: list[canvases.Canvas]) -> None:
    facts = CASES["no amplifier"]()
    sheet.draw_sheet(facts, facts.images[0], tmp_path / "sheet.png")
    text = " ".join(t.get_text() for t in drawn[0].figure.findobj(Text))
    assert facts.no_amplifier in text
    assert len([a for a in drawn[0].figure.axes if a.images]) == 3 + 3 + 2 * 4 + 2 * 8 + 2
