"""The layout of TIFF files from their tags, also of those that neither Pillow nor OpenCV can open."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL.TiffImagePlugin import ImageFileDirectory_v2

SUFFIXES = (".tif", ".tiff")
MAX_BANDS = 4  # that OpenCV and Pillow read side by side in one page
MAX_PAGES = 1024  # that are looked at; a file whose pages point in a circle ends there
FLOAT = 3  # of the tag SampleFormat
# tags of TIFF 6.0
SUBFILE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, BANDS, PLANAR = 254, 256, 257, 258, 259, 262, 277, 284
SAMPLE_FORMAT, GDAL_NODATA = 339, 42113


@dataclass(frozen=True)
class TiffPage:
    """What decides how a page of a TIFF is decoded.

    Attributes:
        bands (int): Samples of a pixel.
        bits (int): Bits of a sample.
        sample_format (int): 1 for unsigned and 2 for signed integers, 3 for floats.
        coding (tuple[Any, ...]): Compression, photometric interpretation and planar configuration, as their tags say.
        same_size (bool): Whether the page is as large as the first one.
        size (tuple[Any, Any]): Width and height; None for a tag that is missing.
        reduced (bool): Whether the page is a smaller version of another one, as overviews are.
        nodata (str): GDAL's nodata value; empty if there is none.
    """

    bands: int
    bits: int
    sample_format: int
    coding: tuple[Any, ...]
    same_size: bool
    size: tuple[Any, Any] = field(compare=False)  # it does not decide how the pixels are decoded, nor do the next two
    reduced: bool = field(compare=False)
    nodata: str = field(compare=False)

    @property
    def planar(self) -> bool:
        """(bool): Whether the bands are stored one after another instead of pixel by pixel."""
        return bool(self.coding[2] == 2)


def read_tiff_pages(file: Path, limit: int = MAX_PAGES) -> tuple[TiffPage, ...]:
    """Return the pages of a TIFF; no pixel is read.

    Args:
        file (Path): The file, classic TIFF or BigTIFF.
        limit (int): Number of pages that are read at most.

    Returns:
        (tuple[TiffPage, ...]): In their order; none for what is no TIFF or cannot be parsed.
    """
    pages: list[TiffPage] = []
    try:
        with file.open("rb") as opened, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of damaged tags
            header = opened.read(8)
            if header[2:3] == b"\x2b" or header[3:4] == b"\x2b":  # BigTIFF, little and big endian
                header += opened.read(8)
            directory = ImageFileDirectory_v2(header)
            while directory.next and len(pages) < limit:
                opened.seek(directory.next)
                directory.load(opened)
                pages.append(_page(directory, pages[0].size if pages else None))
    except Exception:  # damaged headers raise errors of many types
        return ()
    return tuple(pages)


def _page(directory: ImageFileDirectory_v2, first_size: tuple[Any, Any] | None) -> TiffPage:
    """Return the page that a directory describes, with TIFF's defaults for tags that it lacks."""
    size = directory.get(WIDTH), directory.get(HEIGHT)
    return TiffPage(
        bands=int(directory.get(BANDS) or 1),
        bits=int(max(directory.get(BITS) or (1,))),
        sample_format=int(max(directory.get(SAMPLE_FORMAT) or (1,))),
        coding=tuple(directory.get(tag) for tag in (COMPRESSION, PHOTOMETRIC, PLANAR)),
        same_size=first_size in (None, size),
        size=size,
        reduced=bool(int(directory.get(SUBFILE) or 0) & 1),
        nodata=str(directory.get(GDAL_NODATA) or "").strip("\0 "),
    )


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
        layout = f"it has {page.bands} bands side by side in one page"
        return f"{layout}, above {MAX_BANDS} Ultralytics takes a page for each band: write each band as one page"
    if page.bits > 16:
        return f"it holds {page.bits}-bit numbers, Ultralytics takes 8 or 16 bits: scale and convert it"
    if page.bits > 8 and page.bands > 1:
        layout = f"it has {page.bands} bands of {page.bits} bits side by side in one page"
        return f"{layout}, Ultralytics takes those of 8 bits, or a page for each band: convert it"
    return None
