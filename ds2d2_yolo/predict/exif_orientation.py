"""Pictures as the camera was held: EXIF's orientation, and TIFF's own, which GDAL leaves to its callers."""

from __future__ import annotations

import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from PIL import Image, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

Window = tuple[int, int, int, int]

TAG = 0x0112  # of EXIF and of TIFF
OPENED = {"PNG": PngImagePlugin.PngImageFile, "WEBP": WebPImagePlugin.WebPImageFile}
BIG_TIFF = 43  # third byte of a file with 64-bit offsets, whose header is 8 bytes longer
# orientation -> (transpose, flip rows, flip columns), in this order
STEPS = {2: (0, 0, 1), 3: (0, 1, 1), 4: (0, 1, 0), 5: (1, 0, 0), 6: (1, 0, 1), 7: (1, 1, 1), 8: (1, 1, 0)}


@dataclass(frozen=True)
class Turn:
    """How stored pixels become an upright picture.

    Attributes:
        transpose (bool): Whether rows and columns change places, first.
        rows (bool): Whether the order of rows is turned round then.
        columns (bool): Likewise, of columns.
    """

    transpose: bool = False
    rows: bool = False
    columns: bool = False

    def pixels(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Return stored pixels (..., H, W) upright."""
        stored = stored.swapaxes(-1, -2) if self.transpose else stored
        return stored[..., :: -1 if self.rows else 1, :: -1 if self.columns else 1]

    def size(self, stored: tuple[int, int]) -> tuple[int, int]:
        """Return width and height of the upright picture in pixels."""
        return (stored[1], stored[0]) if self.transpose else stored

    def stored_window(self, window: Window, size: tuple[int, int]) -> Window:
        """Return where a window lies in the stored pixels.

        Args:
            window (Window): Left, top, right and bottom in pixels of the upright picture.
            size (tuple[int, int]): Its width and height.

        Returns:
            (Window): Likewise, of the stored pixels.
        """
        left, top, right, bottom = window
        if self.columns:
            left, right = size[0] - right, size[0] - left
        if self.rows:
            top, bottom = size[1] - bottom, size[1] - top
        return (top, left, bottom, right) if self.transpose else (left, top, right, bottom)


def turn_of(path: Path, dataset: Any, channels: int) -> Turn:
    """Return how an image has to be turned.

    One that lies on a map stays, its transform is that of the stored pixels; and so does a PNG or WebP for a model of
    neither one nor three channels, for which Ultralytics reads it unturned (8.4.190).

    Args:
        path (Path): The file.
        dataset (Any): rasterio's dataset.
        channels (int): Channels that the model takes.

    Returns:
        (Turn): Nothing to do where the file does not say, or cannot be read so far.
    """
    if dataset.crs is not None or (dataset.driver in ("PNG", "WEBP") and channels not in (1, 3)):
        return Turn()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tags that are cut short
            orientation = int(_stored(path, dataset) or 1)
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, struct.error):  # Pillow's; GDAL may read it yet
        orientation = 1
    return Turn(*map(bool, STEPS.get(orientation, (0, 0, 0))))


def _stored(path: Path, dataset: Any) -> Any:
    """Return the orientation that a file holds, None for none.

    `Image.open` would refuse large images, and `getexif` decodes a PNG that has none.
    """
    if dataset.driver in OPENED:
        with OPENED[dataset.driver](path) as picture:
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
