"""Orientation tags of EXIF and TIFF, which GDAL does not apply."""

from __future__ import annotations

import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from PIL import Image, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

Window = tuple[int, int, int, int]

TAG = 0x0112  # the same in EXIF and TIFF
EXIF_READERS = {"PNG": PngImagePlugin.PngImageFile, "WEBP": WebPImagePlugin.WebPImageFile}
BIG_TIFF = 43  # third byte of a file with 64-bit offsets; its header is 8 bytes longer
# orientation -> (transpose, flip rows, flip columns), in this order
STEPS = {2: (0, 0, 1), 3: (0, 1, 1), 4: (0, 1, 0), 5: (1, 0, 0), 6: (1, 0, 1), 7: (1, 1, 1), 8: (1, 1, 0)}


@dataclass(frozen=True)
class Orientation:
    """The transformation of stored pixels into the upright picture.

    Attributes:
        transpose (bool): Whether rows and columns are exchanged; this comes first.
        rows (bool): Whether the order of rows is reversed.
        columns (bool): Whether the order of columns is reversed.
    """

    transpose: bool = False
    rows: bool = False
    columns: bool = False

    def apply(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Return the upright pixels of stored pixels (..., H, W).

        Args:
            stored (np.ndarray): Pixels (..., H, W) as the file holds them.

        Returns:
            (np.ndarray): A view of them, (..., W, H) if rows and columns are exchanged.
        """
        stored = stored.swapaxes(-1, -2) if self.transpose else stored
        return stored[..., :: -1 if self.rows else 1, :: -1 if self.columns else 1]

    def upright_size(self, stored: tuple[int, int]) -> tuple[int, int]:
        """Return width and height of the upright picture in pixels.

        Args:
            stored (tuple[int, int]): Width and height of the stored pixels.

        Returns:
            (tuple[int, int]): Width and height in pixels.
        """
        return (stored[1], stored[0]) if self.transpose else stored

    def stored_window(self, window: Window, size: tuple[int, int]) -> Window:
        """Return the window of the stored pixels for a window of the upright picture.

        Args:
            window (Window): Left, top, right and bottom in pixels of the upright picture.
            size (tuple[int, int]): Its width and height.

        Returns:
            (Window): The same in the stored pixels.
        """
        left, top, right, bottom = window
        if self.columns:
            left, right = size[0] - right, size[0] - left
        if self.rows:
            top, bottom = size[1] - bottom, size[1] - top
        return (top, left, bottom, right) if self.transpose else (left, top, right, bottom)

    def to_stored(self, size: tuple[int, int]) -> Any:
        """Return rasterio's affine transform from pixels of the upright picture to stored pixels.

        Args:
            size (tuple[int, int]): Width and height of the upright picture in pixels.

        Returns:
            (Affine): Of pixel corners, (0, 0) the outer corner of the first pixel.
        """
        from rasterio.transform import Affine

        flip = Affine(-1 if self.columns else 1, 0, size[0] if self.columns else 0,
                      0, -1 if self.rows else 1, size[1] if self.rows else 0)  # fmt: skip
        return Affine(0, 1, 0, 1, 0, 0) @ flip if self.transpose else flip


def orientation_of(path: Path, dataset: Any, channels: int) -> Orientation:
    """Return the orientation to apply to an image.

    A PNG or WebP for a model of neither one nor three channels keeps its stored pixels: Ultralytics reads it without
    its orientation (8.4.190).

    Args:
        path (Path): The file.
        dataset (Any): rasterio's dataset.
        channels (int): Channels that the model takes.

    Returns:
        (Orientation): The identity if the file has no tag, or one that cannot be read.
    """
    if dataset.driver in ("PNG", "WEBP") and channels not in (1, 3):
        return Orientation()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of truncated tags
            orientation = int(_orientation_tag(path, dataset) or 1)
    except (
        OSError,
        SyntaxError,
        ValueError,
        TypeError,
        KeyError,
        struct.error,
    ):  # Pillow's; GDAL may still decode it
        orientation = 1
    return Orientation(*map(bool, STEPS.get(orientation, (0, 0, 0))))


def _orientation_tag(path: Path, dataset: Any) -> Any:
    """Return the value of a file's orientation tag, None if it has none.

    `Image.open` would refuse large images, and `getexif` decodes a PNG that has none.
    """
    if dataset.driver in EXIF_READERS:
        with EXIF_READERS[dataset.driver](path) as picture:
            exif = Image.Exif()
            exif.load(picture.info.get("exif", b""))
            return exif.get(TAG)
    if dataset.driver == "GTiff":
        with path.open("rb") as file:
            head = file.read(8)
            tags = TiffImagePlugin.ImageFileDirectory_v2(head + (file.read(8) if head[2] == BIG_TIFF else b""))
            file.seek(tags.next)
            tags.load(file)
            return tags.get(TAG)
    return dataset.tags().get("EXIF_Orientation")
