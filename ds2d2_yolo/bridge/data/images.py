"""Images of a data set and the label files beside them."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from pathlib import Path

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


def read_image(image: Path, channels: int = 3) -> NDArray[np.uint8]:
    """Return an image as Ultralytics' data sets read it; its reader takes any path on any system.

    Args:
        image (Path): The image.
        channels (int): Its channels: 3 for colour, 1 for grey, another number for the bands of a TIFF.

    Returns:
        (NDArray[np.uint8]): H x W x channels; BGR where there are 3.

    Raises:
        DS2D2Error: If it cannot be read, or has another number of bands.
    """
    flags = {1: cv2.IMREAD_GRAYSCALE, 3: cv2.IMREAD_COLOR}.get(channels, cv2.IMREAD_UNCHANGED)
    pixels: NDArray[np.uint8] | None = imread(str(image), flags)
    if pixels is None:
        raise DS2D2Error(f"{image} cannot be read as an image")
    if (bands := pixels.shape[2] if pixels.ndim == 3 else 1) != channels:
        raise DS2D2Error(f"{image} has {bands} channels instead of {channels}")
    return pixels
