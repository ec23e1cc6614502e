"""The page: every link leads somewhere, and names are escaped."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import cv2

from ds2d2_yolo.explanation.page import sheet_names, write_explanation
from tests.helpers.explanation import explanation, image


class Links(HTMLParser):
    """Collects what a page refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.ids: set[str] = set()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note links, sources and ids."""
        self.targets += [value or "" for key, value in attrs if key in ("href", "src")]
        self.ids |= {value or "" for key, value in attrs if key == "id"}
        self.open += [] if tag in ("meta", "img") else [tag]

    def handle_endtag(self, tag: str) -> None:
        """Check that tags are nested."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Collect the text."""
        self.text += data


def test_links_resolve_and_names_are_escaped(tmp_path: Path) -> None:
    nasty = '<b>"a&b"</b> $x$.png'
    facts = explanation(image(nasty), image("b.png"), teacher="/models/<t>.pt", no_amplifier="none & <given>")
    files = write_explanation(facts, tmp_path / "new" / "explain")
    page = Links()
    page.feed(files.page.read_text(encoding="utf-8"))
    assert page.open == []
    for target in page.targets:
        exists = target[1:] in page.ids if target.startswith("#") else (files.page.parent / target).is_file()
        assert exists, target
    assert {f.name for f in files.sheets} | {files.banner.name} <= set(page.targets)
    assert all(text in page.text for text in (nasty, "/models/<t>.pt", "none & <given>"))
    assert str(files) == f"2 sheets on one page: {files.page}"
    assert cv2.imread(str(files.banner)).shape[1] == 1800


def test_names_of_sheets_are_different_and_plain() -> None:
    names = sheet_names(["a.png", "a.jpg", "ä ö#?.png", "x" * 300 + ".png"])
    assert names[:3] == ["sheet-1-a.png", "sheet-2-a.png", "sheet-3--.png"]
    assert len(names[3]) < 80
