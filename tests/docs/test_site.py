"""The documentation site: built strictly, every link leads somewhere, nothing is loaded from the network."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
LOADED = {("script", "src"), ("img", "src"), ("source", "src"), ("link", "href")}  # what a browser fetches by itself


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))


@dataclass
class Page(HTMLParser):
    """Anchors and addresses of an HTML page."""

    file: Path
    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.anchors |= {value for key in ("id", "name") if (value := attributes.get(key))}
        for key in ("href", "src"):
            if address := attributes.get(key):
                metadata = tag == "link" and attributes.get("rel") in {"canonical", "prev", "next"}
                (self.loaded if (tag, key) in LOADED and not metadata else self.links).append(address)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Page]:
    pytest.importorskip("zensical", reason="the site needs Python 3.11 and '.[docs]'")
    project = tmp_path_factory.mktemp("site")
    shutil.copy(ROOT / "zensical.toml", project)
    for folder in ("docs", "ds2d2_yolo", "tools"):
        shutil.copytree(ROOT / folder, project / folder, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    built = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=300)
    assert built.returncode == 0, built.stdout + built.stderr
    return {file: Page(file) for file in (project / "site").rglob("*.html") if file.name != "404.html"}


def target_of(page: Path, address: str) -> tuple[Path, str]:
    """Return the file and the anchor that an address of the site means."""
    parts = urlsplit(address)
    path = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    return (path / "index.html" if path.is_dir() else path), parts.fragment


def test_every_link_leads_to_a_page_and_an_anchor(site: dict[Path, Page]) -> None:
    broken = []
    for file, page in site.items():
        for address in [*page.links, *page.loaded]:
            if urlsplit(address).scheme or address.startswith("//"):
                continue
            target, anchor = target_of(file, address)
            known = target in site and (anchor in site[target].anchors or anchor.startswith("__"))
            if not target.is_file() or (anchor and not known):
                broken.append(f"{file.parent.name}: {address}")
    assert not broken


def test_links_of_the_readme_lead_to_files() -> None:
    links = re.findall(r"\]\(([^)#:]+)[^):]*\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_pages_load_nothing_from_the_network(site: dict[Path, Page]) -> None:
    assert not {address for page in site.values() for address in page.loaded if urlsplit(address).netloc}
    assert not [file for file in site if 'class="mermaid"' in file.read_text(encoding="utf-8")]


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "zensical.toml").read_text(encoding="utf-8")
    pages = {file.relative_to(DOCS).as_posix() for file in DOCS.rglob("*.md")}
    assert {page for page in pages if not page.startswith("evidence/")} == set(re.findall(r'"([\w/-]+\.md)"', text))


def test_formulae_and_api_are_on_their_pages(site: dict[Path, Page]) -> None:
    pages = {file.parent.name: (page, file.read_text(encoding="utf-8")) for file, page in site.items()}
    formulae = (DOCS / "method.md").read_text(encoding="utf-8").count("```math")
    assert pages["method"][1].count("<math ") == formulae > 5
    assert {"ds2d2_yolo.distill", "ds2d2_yolo.compare.compare"} <= pages["reference"][0].anchors
    assert {"ds2d2_yolo.core.disw.disw_map"} <= pages["core"][0].anchors


def test_every_public_function_of_the_core_is_in_the_reference(site: dict[Path, Page]) -> None:
    from ds2d2_yolo import core

    anchors = {anchor.rpartition(".")[2] for file, page in site.items() if file.parent.name == "core"
               for anchor in page.anchors}  # fmt: skip
    assert set(core.__all__) <= anchors


def test_settings_page_is_made_from_the_code(tools: Any) -> None:
    from settings_page import PAGE, render

    assert PAGE.read_text(encoding="utf-8") == render(), "python tools/settings_page.py"


@pytest.mark.parametrize("source", sorted((DOCS / "pictures").glob("*.mmd")), ids=lambda file: file.stem)
def test_flow_charts_are_those_of_their_sources(source: Path) -> None:
    drawn = set(
        re.findall(r"[\w/]+", re.sub(r"<style.*?</style>|<[^>]*>", " ", source.with_suffix(".svg").read_text()))
    )
    labels = re.findall(r'\["([^"]*)"\]|\[([^"\]]*)\]|-- "?([^">]*?)"? -->', source.read_text(encoding="utf-8"))
    words = set(re.findall(r"[\w/]+", " ".join("".join(label) for label in labels).replace("<br/>", " ")))
    assert len(words) > 10
    assert words <= drawn
