"""The layout of TIFF files from their tags, also of those that neither Pillow nor OpenCV can open."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL.TiffImagePlugin import ImageFileDirectory_v2

SUFFIXES = (".tif", ".tiff")
MAX_BANDS = 4  # that OpenCV and Pillow read side by side in one page
MAX_PAGES = 1024  # that are looked at; a file whose pages point in a circle ends there
FLOAT = 3  # of the tag SampleFormat
# tags of TIFF 6.0
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, BANDS, PLANAR, SAMPLE_FORMAT = 256, 257, 258, 259, 262, 277, 284, 339


@dataclass(frozen=True)
class TiffPage:
    """What decides how a page of a TIFF is decoded.

    Attributes:
        bands (int): Samples of a pixel.
        bits (int): Bits of a sample.
        sample_format (int): 1 for unsigned and 2 for signed integers, 3 for floats.
        coding (tuple[Any, ...]): Compression, photometric interpretation and planar configuration, as their tags say.
        same_size (bool): Whether the page is as large as the first one.
    """

    bands: int
    bits: int
    sample_format: int
    coding: tuple[Any, ...]
    same_size: bool


def read_tiff_pages(file: Path) -> tuple[TiffPage, ...]:
    """Return the pages of a TIFF; no pixel is read.

    Args:
        file (Path): The file, classic TIFF or BigTIFF.

    Returns:
        (tuple[TiffPage, ...]): In their order, `MAX_PAGES` at most; none for what is no TIFF or cannot be parsed.
    """
    pages: list[TiffPage] = []
    try:
        with file.open("rb") as opened:
            header = opened.read(8)
            if header[2:3] == b"\x2b" or header[3:4] == b"\x2b":  # BigTIFF, little and big endian
                header += opened.read(8)
            directory = ImageFileDirectory_v2(header)
            first_size: Any = None
            while directory.next and len(pages) < MAX_PAGES:
                opened.seek(directory.next)
                directory.load(opened)
                size = directory.get(WIDTH), directory.get(HEIGHT)
                first_size = first_size or size
                pages.append(_page(directory, size == first_size))
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, struct.error):
        return ()
    return tuple(pages)


def _page(directory: ImageFileDirectory_v2, same_size: bool) -> TiffPage:
    """Return the page that a directory describes, with TIFF's defaults for tags that it lacks."""
    coding = tuple(directory.get(tag) for tag in (COMPRESSION, PHOTOMETRIC, PLANAR))
    bits, sample_format = directory.get(BITS) or (1,), directory.get(SAMPLE_FORMAT) or (1,)
    return TiffPage(int(directory.get(BANDS) or 1), int(max(bits)), int(max(sample_format)), coding, same_size)


def explain_unreadable_tiff(file: Path) -> str | None:
    """Say why Ultralytics (8.4.190) cannot use a TIFF, and what it takes in its place.

    Ultralytics opens each image with Pillow and decodes it with OpenCV. Pillow's complaint does not reach the user:
    what it cannot identify is taken for HEIC, and the missing reader of that format is named.

    Args:
        file (Path): The file.

    Returns:
        (str | None): One clause such as 'it has 5 bands side by side ...'; None for what is no TIFF, or has a layout
            that Ultralytics takes.
    """
    pages = read_tiff_pages(file) if file.suffix.lower() in SUFFIXES else ()
    if not pages:
        return None
    page = pages[0]
    if page.sample_format == FLOAT:
        return f"it holds {page.bits}-bit floats, Ultralytics takes whole numbers of 8 or 16 bits: scale and convert it"
    if page.bands > MAX_BANDS:
        said = f"it has {page.bands} bands side by side in one page"
        return f"{said}, above {MAX_BANDS} Ultralytics takes a page for each band: write each band as a page of its own"
    if page.bits > 16:
        return f"it holds {page.bits}-bit numbers, Ultralytics takes 8 or 16 bits: scale and convert it"
    if page.bits > 8 and page.bands > 1:
        said = f"it has {page.bands} bands of {page.bits} bits side by side in one page"
        return f"{said}, Ultralytics takes those of 8 bits, or a page for each band: convert it"
    return None
