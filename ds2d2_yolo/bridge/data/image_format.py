"""Bands and sample types of image files: read from the header, and other depths than 8 bits stretched to 8."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ds2d2_yolo.bridge.data.tiff import MAX_BANDS, read_tiff_pages
from ds2d2_yolo.utils.stretch import percentile_limits, sample_windows, stretch

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0")  # the last one is BigTIFF, which Pillow reads in this byte order only
PNG_START = b"\x89PNG\r\n\x1a\n"
PNG_BANDS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
TAKES_BITS = "Ultralytics reads 8 bits, and of 16 the upper 8; convert it to 8 bits"
KINDS = {1: "u", 2: "i", 3: "f", 4: "u", 5: "c", 6: "c"}  # NumPy's letter for each sample format of a TIFF


class UnreadableImageError(Exception):
    """An image that cannot be used; the text states the reason in one line, without the file's name."""


@dataclass(frozen=True)
class ImageFormat:
    """Layout of the first page of an image file.

    Attributes:
        bands (int): Number of bands, palettes and alpha included.
        dtype (np.dtype): Type of a value; uint8 for less than 8 bits.
        planar (bool): Whether the bands are stored one after another instead of pixel by pixel.
        nodata (float | None): GDAL's nodata value.
        pages (bool): Whether further full-size pages follow; Ultralytics reads these as channels.
    """

    bands: int
    dtype: np.dtype[Any]
    planar: bool = False
    nodata: float | None = None
    pages: bool = False


def image_format(file: Path) -> ImageFormat | None:
    """Read the layout of an image from its header.

    Args:
        file (Path): The image.

    Returns:
        (ImageFormat | None): Its layout; None if the file is neither a TIFF nor a PNG, or its header is damaged.
    """
    try:
        with file.open("rb") as opened:
            head = opened.read(26)
        if head.startswith(PNG_START):
            return ImageFormat(PNG_BANDS[head[25]], np.dtype("uint16" if head[24] == 16 else "uint8"))
        return _tiff_format(file) if head.startswith(TIFF_STARTS) else None
    except Exception:  # damaged headers raise errors of many types
        return None


def _tiff_format(file: Path) -> ImageFormat | None:
    """Return the layout of a TIFF, None if its header is damaged."""
    pages = read_tiff_pages(file, limit=2)
    if not pages or pages[0].size[0] is None:
        return None
    page = pages[0]
    size = max(8, 1 << (page.bits - 1).bit_length())  # 12 bits are stored as 16
    return ImageFormat(
        bands=page.bands,
        dtype=np.dtype(f"{KINDS[page.sample_format]}{size // 8}"),
        planar=page.planar,
        nodata=float(page.nodata) if page.nodata else None,
        pages=len(pages) > 1 and not pages[1].reduced,
    )


def deep_format(file: Path) -> ImageFormat | None:
    """Return the layout of an image of other than 8 bits, None for 8 bits and less and for unknown formats.

    Args:
        file (Path): The image.

    Returns:
        (ImageFormat | None): Its layout.
    """
    layout = image_format(file)
    return None if layout is None or layout.dtype == np.uint8 else layout


def too_many_bands(layout: ImageFormat | None) -> str | None:
    """Return why the bands of an image cannot be read, None if they can.

    Args:
        layout (ImageFormat | None): Layout of the image, None if unknown.

    Returns:
        (str | None): The reason, without the file's name.
    """
    if layout is None or layout.bands <= MAX_BANDS:
        return None
    return (
        f"has {layout.bands} bands side by side: Ultralytics reads up to {MAX_BANDS}, and more channels as pages of a "
        "TIFF, one band a page"
    )


def unsupported(layout: ImageFormat | None) -> str | None:
    """Return why Ultralytics' data sets cannot decode an image, although Pillow may identify it.

    Args:
        layout (ImageFormat | None): Layout of the image, None where it is unknown.

    Returns:
        (str | None): The reason, without the file's name; None if the layout shows none.
    """
    if layout is None or layout.pages or layout.dtype.itemsize <= 2:
        return too_many_bands(layout)
    return too_many_bands(layout) or f"has {_bands(layout)}: {TAKES_BITS}"


def why_unidentified(file: Path) -> str:
    """Return why Pillow, by which Ultralytics checks images, does not identify an image.

    Args:
        file (Path): The image.

    Returns:
        (str): The reason, without the file's name.
    """
    layout = image_format(file)
    if layout is None:
        with file.open("rb") as opened:
            is_image = opened.read(8).startswith((PNG_START, *TIFF_STARTS))
        return "is no whole image: its header is damaged" if is_image else "is no image"
    return unsupported(layout) or f"has {_bands(layout)} in a layout that Pillow does not read; {TAKES_BITS}"


def _bands(layout: ImageFormat) -> str:
    """Return number and type of the bands in words."""
    return f"{layout.bands} band{'s' * (layout.bands > 1)} of {layout.dtype}"


def read_deep(file: Path, layout: ImageFormat) -> NDArray[Any]:
    """Decode an image of other than 8 bits.

    Args:
        file (Path): The image.
        layout (ImageFormat): Its layout.

    Returns:
        (NDArray[Any]): Values of `layout.dtype`, 1 x H x W for one band, otherwise 3 x H x W, blue first.

    Raises:
        UnreadableImageError: If OpenCV cannot decode it.
    """
    if reason := too_many_bands(layout):
        raise UnreadableImageError(reason)
    if layout.planar and layout.bands > 1:  # OpenCV (5.0) decodes noise, without an error
        hint = "rewrite it with gdal_translate -co INTERLEAVE=PIXEL"
        raise UnreadableImageError(f"stores its {layout.dtype} bands one after another, which OpenCV misreads: {hint}")
    data = np.fromfile(file, np.uint8)
    for flags in (cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH, cv2.IMREAD_UNCHANGED):  # single float bands need the second
        try:
            pixels = cv2.imdecode(data, flags)
        except cv2.error:
            continue
        if pixels is not None and pixels.dtype == layout.dtype and (pixels.ndim == 3 or layout.bands == 1):
            channels = pixels[..., None] if pixels.ndim == 2 else pixels[..., : 1 if layout.bands == 1 else 3]
            return np.asarray(channels.transpose(2, 0, 1))
    raise UnreadableImageError(f"cannot be decoded: it is damaged, or OpenCV does not read {_bands(layout)}")


class EightBitImage:
    """An image of other than 8 bits as BGR windows of 8 bits, stretched as `predict slice=` does.

    Each band is stretched between the percentiles 2 and 98 of a sample of the image. Nodata pixels become 0.

    Args:
        file (Path): The image.
        layout (ImageFormat): Its layout.

    Raises:
        UnreadableImageError: If OpenCV cannot decode it.
    """

    def __init__(self, file: Path, layout: ImageFormat) -> None:
        self._raw = read_deep(file, layout)
        self._valid = None if layout.nodata is None else _valid(self._raw, layout.nodata)
        samples: list[list[NDArray[Any]]] = [[] for _ in self._raw]
        for left, top, right, bottom in sample_windows(self._raw.shape[2], self._raw.shape[1]):
            window = (slice(top, bottom), slice(left, right))
            for band, parts in zip(self._raw, samples, strict=True):
                values = band[window]
                parts.append(values[np.isfinite(values) & (True if self._valid is None else self._valid[window])])
        self._limits = percentile_limits(samples)

    def pixels(self) -> NDArray[np.uint8]:
        """Return all pixels as H x W x 3, blue first."""
        return self.window(0, 0, self._raw.shape[2], self._raw.shape[1])

    def window(self, left: int, top: int, right: int, bottom: int) -> NDArray[np.uint8]:
        """Return a window, given in pixels, as H x W x 3, blue first; it ends at the border of the image.

        Args:
            left (int): First column.
            top (int): First row.
            right (int): Column after the last one.
            bottom (int): Row after the last one.

        Returns:
            (NDArray[np.uint8]): H x W x 3.
        """
        window = (slice(top, bottom), slice(left, right))
        pixels = stretch(self._raw[:, window[0], window[1]], self._limits)
        if self._valid is not None:
            pixels = np.where(self._valid[window], pixels, np.uint8(0))
        return np.ascontiguousarray(np.broadcast_to(pixels, (3, *pixels.shape[1:])).transpose(1, 2, 0))


def _valid(raw: NDArray[Any], nodata: float) -> NDArray[np.bool_]:
    """Return which pixels (H, W) hold data in any band, as GDAL's mask of a data set does."""
    value = raw.dtype.type(nodata) if raw.dtype.kind == "f" else nodata  # an integer type may not hold it
    holds = ~np.isnan(raw) if np.isnan(nodata) else raw != value
    return np.asarray(holds.any(0))
