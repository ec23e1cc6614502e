"""Images of a data set and the label files beside them."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from ultralytics.data.utils import (
    IMG_FORMATS,
    img2label_paths,
)
from ultralytics.utils.patches import imread

from ds2d2_yolo.errors import DS2D2Error


def list_images(split: str | list[str] | None) -> list[Path]:
    """List the images of a split as Ultralytics finds them: folders, text files of paths, or both.

    Args:
        split (str | list[str] | None): Resolved entry of a data YAML, such as data['train']; None holds nothing.

    Returns:
        (list[Path]): In Ultralytics' order, that of their names as text (8.4.190, `BaseDataset.get_img_files`).
    """
    found: list[str] = []
    for place in map(Path, [split] if isinstance(split, str) else split or []):
        if place.is_dir():  # glob follows links to folders and leaves hidden files out, rglob does neither
            found += glob.glob(str(Path(glob.escape(str(place)), "**", "*.*")), recursive=True)
        elif place.is_file():
            lines = place.read_text(encoding="utf-8-sig", errors="replace").strip().splitlines()
            found += [x.replace("./", f"{place.parent}{os.sep}", 1) if x.startswith("./") else x for x in lines]
    named = sorted(x.replace("/", os.sep) for x in found if x.rpartition(".")[-1].lower() in IMG_FORMATS)
    return [Path(x) for x in named]


def label_paths(images: Iterable[Path]) -> list[Path]:
    """Return the label file that belongs to each image, existing or not."""
    return [Path(p) for p in img2label_paths([str(i) for i in images])]


def take_fraction(images: list[Path], fraction: float) -> list[Path]:
    """Return the images that a run takes of a split (8.4.190, `BaseDataset.get_img_files`).

    Args:
        images (list[Path]): All images of the split, see `list_images`.
        fraction (float): Share of them above 0 up to 1.0, or a whole number of images.

    Returns:
        (list[Path]): The first ones.
    """
    count = fraction if isinstance(fraction, int) else max(1, round(len(images) * fraction))
    return images[:count]


def decode_image(image: Path, channels: int = 3) -> NDArray[Any] | None:
    """Decode an image as Ultralytics' data sets do; the reader takes any path on any system.

    Args:
        image (Path): The image.
        channels (int): Channels of the data set, which choose how the file is read: 3 for colour, 1 for grey, another
            number for the bands as they are.

    Returns:
        (NDArray[Any] | None): H x W x bands, BGR where `channels` is 3; 16 bits come as 8 bits, floats as they are.
            None for a file that cannot be decoded.
    """
    flags = {1: cv2.IMREAD_GRAYSCALE, 3: cv2.IMREAD_COLOR}.get(channels, cv2.IMREAD_UNCHANGED)
    try:
        pixels: NDArray[Any] | None = imread(str(image), flags)
    except cv2.error:  # for layouts that OpenCV does not know
        return None
    return pixels


def read_image(image: Path, channels: int = 3) -> NDArray[np.uint8]:
    """Read an image as Ultralytics' data sets do, with the number of channels that the data set has.

    Args:
        image (Path): The image.
        channels (int): See `decode_image`.

    Returns:
        (NDArray[np.uint8]): H x W x channels; BGR where there are 3.

    Raises:
        DS2D2Error: If it cannot be read, or has another number of bands.
    """
    pixels = decode_image(image, channels)
    if pixels is None:
        raise DS2D2Error(f"{image} cannot be read as an image")
    if (bands := pixels.shape[2]) != channels:
        raise DS2D2Error(f"{image} has {bands} channels instead of {channels}")
    return pixels
