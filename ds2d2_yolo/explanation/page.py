"""The HTML page of an explanation, with the pictures beside it."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path

from ds2d2_yolo.explanation.banner import draw_banner
from ds2d2_yolo.explanation.facts import Explanation, ExplanationFiles
from ds2d2_yolo.explanation.sheet import draw_sheet
from ds2d2_yolo.utils.atomic_files import write_atomically

PAGE_FILE = "index.html"
BANNER_FILE = "banner.png"

STYLE = """
body { margin: 0 auto; max-width: 1240px; padding: 16px; color: #222; background: #fff;
       font: 16px/1.5 "DejaVu Sans", Verdana, system-ui, sans-serif; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; overflow-wrap: anywhere; }
a { color: #1a5fb4; } dt { font-weight: bold; } dd { margin: 0 0 .5rem 1rem; } td, th { text-align: left;
padding: 2px 12px 2px 0; vertical-align: top; overflow-wrap: anywhere; } th { white-space: nowrap; }
figure { margin: 2rem 0; } .wide { overflow-x: auto; border: 1px solid #ddd; }
.wide img { display: block; width: 100%; min-width: 900px; height: auto; }
"""

READING = (
    ("Objects and detections", "The labelled objects, and what teacher and student detect. The boxes are in pixels of "
     "the network's input, without the padding of the letterbox."),
    ("DISW", "The weight of each cell in the explicit terms, for each level. Each object adds exactly 1 to the sum of "
     "the map, so a small object counts as much as a large one."),
    ("Features in the wavelet domain", "Energy of the teacher's features T and of the adapted student's features A S, "
     "in the low band and in the high bands, on one scale; then their difference, and the weighted error that the "
     "terms exlo and exhi sum up."),
    ("The amplifiers at work", "How far the student's features are from the teacher's, and how far the predictions "
     "are that a frozen head makes of them: the teacher's head for imfu, a copy that is trained on high frequencies "
     "for imhi."),
    ("Which level the terms act on", "Part of each level in the value of each term. The value is not the gradient: a "
     "level with a small part can still receive a large gradient."),
    ("Adapters", "A finished student has no adapters. They are fitted by ridge regression, "
     "A = (sum T S') (sum S S' + mu I)^-1, for any student, distilled or not. R² is the share of the variance of T "
     "that A S explains: 1 is all of it, 0 no more than the mean of each channel."),
)  # fmt: skip


def write_explanation(explanation: Explanation, folder: Path) -> ExplanationFiles:
    """Draw all sheets and write the page that shows them.

    Args:
        explanation (Explanation): The arrays.
        folder (Path): Folder for the files, made if needed.

    Returns:
        (ExplanationFiles): The files.
    """
    names = sheet_names([image.file for image in explanation.images])
    sheets = tuple(folder / name for name in names)
    for image, sheet in zip(explanation.images, sheets, strict=True):
        draw_sheet(explanation, image, sheet)
    banner = folder / BANNER_FILE
    draw_banner(explanation, explanation.images[0], banner)
    page = folder / PAGE_FILE
    write_atomically(page, page_text(explanation, names))
    return ExplanationFiles(page, sheets, banner)


def sheet_names(files: list[str]) -> list[str]:
    """Return the names of the sheets: number and name of the image, in characters that any file system and URL takes.

    Args:
        files (list[str]): Names of the images' files.

    Returns:
        (list[str]): Different names, in their order.
    """
    stems = (re.sub(r"[^A-Za-z0-9._-]+", "-", Path(file).stem)[:60] for file in files)
    return [f"sheet-{number}-{stem}.png" for number, stem in enumerate(stems, 1)]


def page_text(explanation: Explanation, names: list[str]) -> str:
    """Return the HTML page.

    Args:
        explanation (Explanation): What it shows.
        names (list[str]): File names of the sheets, in the order of the images.

    Returns:
        (str): HTML that needs nothing but the pictures beside it.
    """
    e = explanation
    facts = (
        ("teacher T", e.teacher), ("student S", e.student), ("data", f"{e.data}, split={e.split}, {e.imgsz} px"),
        ("classes", e.shared),
        ("adapters A", f"fitted on {e.fitted_to} by ridge regression"), ("wavelet", e.wavelet),
        ("imhi", e.no_amplifier or "with a high-frequency amplifier"),
    )  # fmt: skip
    table = "".join(f"<tr><th>{escape(key)}</th><td>{escape(value)}</td></tr>" for key, value in facts)
    links = "".join(f'<li><a href="#{i}">{escape(image.file)}</a></li>' for i, image in enumerate(e.images, 1))
    figures = "".join(
        f'<figure id="{i}"><h2>{escape(image.file)}</h2>{_picture(name, f"Sheet of {image.file}")}</figure>'
        for i, (image, name) in enumerate(zip(e.images, names, strict=True), 1)
    )
    reading = "".join(f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>" for term, text in READING)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>DS2D2: what the terms see</title><style>{STYLE}</style></head><body>"
        f"<h1>DS2D2: what the terms see in {len(names)} image{'s' * (len(names) != 1)}</h1><table>{table}</table>"
        f"<ul>{links}</ul>{_picture(BANNER_FILE, 'Overview of the first image')}"
        f"<h2>How to read a sheet</h2><dl>{reading}</dl>{figures}</body></html>\n"
    )


def _picture(name: str, text: str) -> str:
    """Return a picture that links to its file and scrolls sideways on a narrow screen."""
    image = f'<img src="{escape(name)}" alt="{escape(text)}" loading="lazy">'
    return f'<div class="wide"><a href="{escape(name)}">{image}</a></div>'
