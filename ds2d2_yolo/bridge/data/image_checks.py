"""Checks that the images of a split have the bands that the data YAML says, before anything is trained on them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from ds2d2_yolo.bridge.data.images import decode_image
from ds2d2_yolo.bridge.data.tiff import SUFFIXES, explain_unreadable_tiff, read_tiff_pages
from ds2d2_yolo.errors import BadUseError

CONVERTED = (1, 3)  # numbers of channels to which Ultralytics converts every image that is no TIFF
READERS = 16  # threads that read headers and labels: the time goes into opening files, on network disks above all
PLUGINS: dict[str, Callable[[Path], Image.Image]] = {
    ".png": PngImageFile,
    ".jpg": JpegImageFile,
    ".jpeg": JpegImageFile,
}


def refuse_other_bands(images: Sequence[Path], channels: int, split: str) -> None:
    """Refuse a split with images that would not reach a model with `channels` bands of 8 bits.

    Only the headers of all images are read. One image of each layout is decoded, by the reader that Ultralytics' data
    sets use. Ultralytics converts images of any format but TIFF where `channels` is 1 or 3: those are not opened.
    Images that Ultralytics leaves out as unreadable, and those with a cached `.npy` that it takes, pass.

    Args:
        images (Sequence[Path]): Images of the split.
        channels (int): `channels` of the data YAML, 3 where it names none.
        split (str): Name of the split for the message, such as 'training'.

    Raises:
        BadUseError: Naming the number of these images, the first one and what it has.
    """
    checked = [i for i in images if channels not in CONVERTED or i.suffix.lower() in SUFFIXES]
    if not checked:
        return
    with ThreadPool(READERS) as pool:
        layouts = pool.map(lambda image: _layout(image, channels), checked)
    faults: dict[Hashable, str | None] = {}
    wrong: list[tuple[Path, str]] = []
    for image, layout in zip(checked, layouts, strict=True):
        if layout is None:
            continue
        if layout not in faults:
            decoded, fault = _fault(image, channels)
            if not decoded:  # this file may be damaged: the next one of its layout is tried
                continue
            faults[layout] = fault
        if (said := faults[layout]) is not None:
            wrong.append((image, said))
    if wrong:
        image, said = wrong[0]
        raise BadUseError(f"{len(wrong)} of the {len(images)} {split} images do not fit: {image}: {said}")


def _layout(image: Path, channels: int) -> Hashable | None:
    """Return what decides how an image is decoded, from its header; None for one that is not looked at."""
    if _has_cached_pixels(image, channels):
        return None
    suffix = image.suffix.lower()
    if suffix in SUFFIXES:
        return read_tiff_pages(image) or None
    plugin = PLUGINS.get(suffix)
    if plugin is None:
        return image  # no cheap header: each one is decoded
    try:
        with plugin(image) as opened:
            return suffix, opened.mode, "transparency" in opened.info
    except (OSError, SyntaxError, ValueError):
        return image  # another format under this name, or damaged


def _has_cached_pixels(image: Path, channels: int) -> bool:
    """Return whether Ultralytics takes an `.npy` in the place of an image: a newer one with as many bands (8.4.190)."""
    cached = image.with_suffix(".npy")
    try:
        if cached.stat().st_mtime < image.stat().st_mtime:
            return False
        pixels = np.load(cached, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return False
    return (pixels.shape[-1] if pixels.ndim >= 3 else 1) == channels and pixels.dtype != np.uint16


def _fault(image: Path, channels: int) -> tuple[bool, str | None]:
    """Return whether an image's layout could be judged, and what is wrong with it.

    Args:
        image (Path): The image.
        channels (int): Bands that it should have.

    Returns:
        judged (bool): False for a file that cannot be decoded, though its layout can.
        fault (str | None): None if it fits, or if Ultralytics leaves it out.
    """
    if image.suffix.lower() in SUFFIXES and not _pillow_opens(image):
        return True, None  # left out with a warning; a split of nothing else is refused as unusable
    pixels = decode_image(image, channels)
    if pixels is None or pixels.dtype != np.uint8:
        why = explain_unreadable_tiff(image)
        if why is None and pixels is not None:
            why = (
                f"it holds numbers of type {pixels.dtype}, Ultralytics takes unsigned ones of 8 or 16 bits: convert it"
            )
        return why is not None, why
    bands = pixels.shape[2]
    if bands == channels:
        return True, None
    said = f"it has {bands} band{'s' if bands > 1 else ''} and the data YAML says channels: {channels}"
    return True, f"{said}, correct one of them"


def _pillow_opens(image: Path) -> bool:
    """Return whether Pillow can open a TIFF; Ultralytics leaves out what it cannot."""
    try:
        with TiffImageFile(image):
            return True
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False
