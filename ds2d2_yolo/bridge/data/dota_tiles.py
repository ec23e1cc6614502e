"""What preparing data takes from Ultralytics: its tiling of DOTA, its reading of images, its folder, its progress bar.

Of `ultralytics.data.split_dota` (8.4.190) the windows, the choice of objects and the cropping are used. Its other parts
are worked round here and in `ds2d2_yolo.prepare`:

- `crop_and_save` writes corners outside 0..1 for objects that a tile cuts, and a label whose upright hull is wider than
  1.01 makes `verify_image_label` leave out the whole tile. It is given no objects, and the labels are written by us.
- It takes no notice where an image cannot be decoded or a tile cannot be written; both are checked here.
- `get_window_obj` multiplies the labels it is given in place, and shapely may raise in it for outlines that cross
  themselves: it gets a copy, with the smallest rectangle around such an outline.
- `load_yolo_dota` reads sizes with Pillow, which refuses images over 179 megapixels; DOTA has larger ones.
- `convert_dota_to_yolo_obb` skips lines and images without a word, takes .png alone and stops at an unknown class.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from ultralytics.data.split_dota import crop_and_save, get_window_obj, get_windows
from ultralytics.data.utils import exif_size
from ultralytics.utils import SETTINGS, TQDM
from ultralytics.utils.patches import imread_unicode

from ds2d2_yolo.bridge.upstream.messages import first_line
from ds2d2_yolo.errors import BadUseError

# the first bytes of what is read: other files would be taken for HEIC by Ultralytics, which looks for a package then
STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*", b"BM", b"RIFF")
SHORTEST = 10  # pixels; Ultralytics leaves smaller images out


class UnreadableImageError(Exception):
    """An image that cannot be used; its text says why in one line."""


def datasets_dir() -> Path:
    """Return the folder under which Ultralytics looks for data sets."""
    return Path(str(SETTINGS["datasets_dir"]))


def progress(steps: Iterable[Any], total: int, about: str) -> Iterable[Any]:
    """Return steps behind Ultralytics' progress bar."""
    return TQDM(steps, total=total, desc=about)


def need_shapely() -> None:
    """Raise BadUseError without shapely, which Ultralytics' tiling would otherwise miss image by image."""
    try:
        import shapely  # noqa: F401
    except ImportError as e:
        raise BadUseError("tiling needs shapely: pip install 'ds2d2-yolo[data]'") from e


def image_size(file: Path) -> tuple[int, int]:
    """Return the width and height of an image as OpenCV decodes it, after a check that the file is whole.

    Args:
        file (Path): The image. Its pixels are decoded only where its frame does not show that it is whole.

    Returns:
        (tuple[int, int]): Width and height in pixels, turned as its EXIF orientation says.

    Raises:
        UnreadableImageError: If it is no image, cut off, or has a side under 10 px.
    """
    try:
        with file.open("rb") as opened:
            if not opened.read(8).startswith(STARTS):
                raise UnreadableImageError("is no image")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            width, height = _size(file)
    except Image.DecompressionBombError:
        decoded = imread_unicode(file)
        if decoded is None:
            raise UnreadableImageError("cannot be decoded") from None
        height, width = decoded.shape[:2]
    except UnreadableImageError:
        raise
    except Exception as e:  # Pillow raises whatever a decoder stumbles over
        raise UnreadableImageError(f"is no whole image: {first_line(e).replace(str(file), file.name)}") from e
    if min(width, height) < SHORTEST:
        raise UnreadableImageError(f"has {width} x {height} px; Ultralytics needs {SHORTEST} or more a side")
    return width, height


def _size(file: Path) -> tuple[int, int]:
    """Return the size of an image; raise what Pillow raises if it is not whole."""
    with Image.open(file) as image:
        size, kind = exif_size(image), image.format
    with Image.open(file) as image:  # verify() has to come first after opening
        image.verify()  # the check sums of PNG; for JPEG it does nothing
    if kind == "PNG":
        return size
    if kind != "JPEG" or file.read_bytes()[-2:] != b"\xff\xd9":
        with Image.open(file) as image:
            image.load()
    return size


def windows_of(width: int, height: int, sides: tuple[int, ...], gaps: tuple[int, ...]) -> NDArray[np.int64]:
    """Return the windows that cover an image.

    Args:
        width (int): Width of the image in pixels.
        height (int): Its height.
        sides (tuple[int, ...]): Sides of the windows, one for each scale.
        gaps (tuple[int, ...]): Overlaps of neighbours, one for each scale.

    Returns:
        (NDArray[np.int64]): x1, y1, x2, y2 of each, (N, 4); those of a small image reach beyond it.
    """
    return np.asarray(get_windows((height, width), sides, gaps))


def objects_in(
    corners: NDArray[np.float64], width: int, height: int, windows: NDArray[np.int64], iof: float
) -> list[list[int]]:
    """Return which objects each window holds.

    Args:
        corners (NDArray[np.float64]): Four corners of each object in pixels, (M, 4, 2).
        width (int): Width of the image in pixels.
        height (int): Its height.
        windows (NDArray[np.int64]): The windows, (N, 4).
        iof (float): Share of an object's area that must lie in a window, above 0 to 1.

    Returns:
        (list[list[int]]): For each window the indices of its objects.
    """
    from shapely.geometry import Polygon

    sound = [quad if Polygon(quad).is_valid else cv2.boxPoints(cv2.minAreaRect(np.float32(quad))) for quad in corners]
    # the column of classes holds the index of the object, by which it is known again
    label = np.column_stack([np.arange(len(sound)), np.reshape(sound, (-1, 8)) / ([width, height] * 4)])
    found = get_window_obj({"ori_size": (height, width), "label": label}, windows, iof)
    return [[int(row[0]) for row in rows] for rows in found]


def save_tiles(image: Path, windows: NDArray[np.int64], folder: Path) -> list[Path]:
    """Cut an image into JPEG tiles.

    Args:
        image (Path): The image; it is decoded as 8-bit colour, 3 bytes a pixel (6 while OpenCV 5 decodes a PNG).
        windows (NDArray[np.int64]): The windows to write, (N, 4).
        folder (Path): An empty folder, for the tiles alone.

    Returns:
        (list[Path]): The tile of each window, named `<image>__<side>__<x>___<y>.jpg` by Ultralytics.

    Raises:
        UnreadableImageError: If the image cannot be decoded.
        OSError: If a tile cannot be written.
    """
    empty = [np.zeros((0, 9))] * len(windows)
    try:
        crop_and_save({"filepath": str(image)}, windows, empty, str(folder), str(folder), True)
    except (TypeError, AttributeError, cv2.error) as e:  # it does not look at the None that a failed decoding gives
        raise UnreadableImageError("cannot be decoded") from e
    except MemoryError as e:
        raise UnreadableImageError("needs more memory than there is") from e
    tiles = [folder / f"{image.stem}__{x2 - x1}__{x1}___{y1}.jpg" for x1, y1, x2, _ in windows.tolist()]
    for tile in tiles:
        if not tile.is_file() or tile.read_bytes()[-2:] != b"\xff\xd9":
            raise OSError(f"tile {tile.name} could not be written: is the disk full?")
    return tiles
