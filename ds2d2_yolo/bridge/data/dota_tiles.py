"""The parts of Ultralytics that data preparation uses: DOTA tiling, image reading, data folder.

Of `ultralytics.data.split_dota` (8.4.190) the windows, the choice of objects and the cropping are used. This module and
`ds2d2_yolo.prepare` replace its other parts:

- `crop_and_save` writes corners outside 0..1 for objects that a tile cuts. A label whose bounding box is wider than
  1.01 makes `verify_image_label` drop the tile. The function gets no objects here; `ds2d2_yolo.prepare` writes labels.
- It ignores images that cannot be decoded and tiles that cannot be written. Both are checked here.
- It reads 16 bits as their upper 8, and no floats. Images of other than 8 bits are stretched and cropped here.
- `get_window_obj` multiplies its labels in place, and shapely may raise in it for self-intersecting outlines: it gets a
  copy, with the smallest enclosing rectangle of such an outline.
- `load_yolo_dota` reads sizes with Pillow, which refuses images over 179 megapixels; DOTA has larger ones.
- `convert_dota_to_yolo_obb` skips lines and images silently, reads only .png and stops at an unknown class.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from ultralytics.data.split_dota import crop_and_save, get_window_obj, get_windows
from ultralytics.data.utils import exif_size
from ultralytics.utils import SETTINGS
from ultralytics.utils.patches import imread_unicode, imwrite

from ds2d2_yolo.bridge.data.image_format import (
    PNG_START,
    TIFF_STARTS,
    EightBitImage,
    ImageFormat,
    UnreadableImageError,
    image_format,
    read_deep,
    too_many_bands,
    why_unidentified,
)
from ds2d2_yolo.errors import BadUseError

# first bytes of the supported formats; Ultralytics takes other files for HEIC and looks for a package
IMAGE_STARTS = (b"\xff\xd8\xff", PNG_START, *TIFF_STARTS, b"BM", b"RIFF")
MIN_SIDE = 10  # pixels; Ultralytics leaves smaller images out
JPEG_END = b"\xff\xd9"


def datasets_dir() -> Path:
    """Return the folder under which Ultralytics looks for data sets."""
    return Path(str(SETTINGS["datasets_dir"]))


def need_shapely() -> None:
    """Raise BadUseError if shapely is missing: Ultralytics' tiling would fail image by image."""
    try:
        import shapely  # noqa: F401
    except ImportError as e:
        raise BadUseError("tiling needs shapely: pip install 'ds2d2-yolo[data]'") from e


def image_size(file: Path) -> tuple[int, int]:
    """Return the width and height of an image as OpenCV decodes it, after a check that the file is complete.

    Args:
        file (Path): The image. Its pixels are decoded only if its format needs that for the check.

    Returns:
        (tuple[int, int]): Width and height in pixels, after the EXIF rotation.

    Raises:
        UnreadableImageError: If it is no image, truncated, of an unsupported format, or has a side under 10 px.
    """
    try:
        with file.open("rb") as opened:
            start = opened.read(8)
        if not start.startswith(IMAGE_STARTS):
            raise UnreadableImageError("is no image")
        layout = image_format(file)
        if reason := too_many_bands(layout):
            raise UnreadableImageError(reason)
        if start.startswith(TIFF_STARTS) and layout and layout.dtype != np.uint8:  # of which Pillow reads a part
            height, width = read_deep(file, layout).shape[1:]
        else:
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
    except (UnidentifiedImageError, ModuleNotFoundError):  # Ultralytics then tries HEIC, with another package
        raise UnreadableImageError(why_unidentified(file)) from None
    except Exception as e:  # Pillow's decoders raise errors of many types
        error = str(e).splitlines()[0] if str(e) else type(e).__name__
        raise UnreadableImageError(f"is no whole image: {error.replace(str(file), file.name)}") from e
    if min(width, height) < MIN_SIDE:
        raise UnreadableImageError(f"has {width} x {height} px; Ultralytics needs {MIN_SIDE} or more a side")
    return width, height


def _size(file: Path) -> tuple[int, int]:
    """Return the size of an image; Pillow raises an error if the file is incomplete."""
    with Image.open(file) as image:
        size, kind = exif_size(image), image.format
    with Image.open(file) as image:  # verify() must be the first call after opening
        image.verify()  # checks PNG's checksums; does nothing for JPEG
    if kind == "PNG":
        return size
    if kind != "JPEG" or file.read_bytes()[-2:] != JPEG_END:
        with Image.open(file) as image:
            image.load()
    return size


def windows_of(width: int, height: int, sides: tuple[int, ...], gaps: tuple[int, ...]) -> NDArray[np.int64]:
    """Return the windows that cover an image.

    Args:
        width (int): Width of the image in pixels.
        height (int): Height of the image in pixels.
        sides (tuple[int, ...]): Sides of the windows in pixels, one per scale.
        gaps (tuple[int, ...]): Overlaps of neighbouring windows in pixels, one per scale.

    Returns:
        (NDArray[np.int64]): x1, y1, x2, y2 of each window, (N, 4); those of a small image reach beyond it.
    """
    return np.asarray(get_windows((height, width), sides, gaps))


def objects_in(
    corners: NDArray[np.float64], width: int, height: int, windows: NDArray[np.int64], iof: float
) -> list[list[int]]:
    """Return the objects in each window.

    Args:
        corners (NDArray[np.float64]): Four corners of each object in pixels, (M, 4, 2).
        width (int): Width of the image in pixels.
        height (int): Height of the image in pixels.
        windows (NDArray[np.int64]): The windows, (N, 4).
        iof (float): Share of an object's area that must lie in a window, above 0 to 1.

    Returns:
        (list[list[int]]): Indices of the objects of each window.
    """
    from shapely.geometry import Polygon

    valid = [quad if Polygon(quad).is_valid else cv2.boxPoints(cv2.minAreaRect(np.float32(quad))) for quad in corners]
    # the class column holds the index of the object, which identifies it in the result
    label = np.column_stack([np.arange(len(valid)), np.reshape(valid, (-1, 8)) / ([width, height] * 4)])
    window_labels = get_window_obj({"ori_size": (height, width), "label": label}, windows, iof)
    return [[int(row[0]) for row in rows] for rows in window_labels]


def save_tiles(image: Path, windows: NDArray[np.int64], folder: Path, layout: ImageFormat | None = None) -> list[Path]:
    """Cut an image into JPEG tiles.

    Args:
        image (Path): The image. It is decoded as 8-bit colour, 3 bytes a pixel (6 while OpenCV 5 decodes a PNG).
        windows (NDArray[np.int64]): The windows to write, (N, 4).
        folder (Path): An empty folder, for the tiles only.
        layout (ImageFormat | None): Layout of an image of other than 8 bits, which is stretched; None for 8 bits.

    Returns:
        (list[Path]): The tile of each window, named `<image>__<side>__<x>___<y>.jpg` as by Ultralytics.

    Raises:
        UnreadableImageError: If the image cannot be decoded.
        OSError: If a tile cannot be written.
    """
    tiles = [folder / f"{image.stem}__{x2 - x1}__{x1}___{y1}.jpg" for x1, y1, x2, _ in windows.tolist()]
    empty = [np.zeros((0, 9))] * len(windows)
    try:
        if layout is None:
            crop_and_save({"filepath": str(image)}, windows, empty, str(folder), str(folder), True)
        else:
            stretched = EightBitImage(image, layout)
            for tile, window in zip(tiles, windows.tolist(), strict=True):
                imwrite(str(tile), stretched.window(*window))
    except (
        TypeError,
        AttributeError,
        cv2.error,
    ) as e:  # crop_and_save does not check the decoded image
        raise UnreadableImageError("cannot be decoded") from e
    except MemoryError as e:
        raise UnreadableImageError("needs more memory than there is") from e
    for tile in tiles:
        if not tile.is_file() or tile.read_bytes()[-2:] != JPEG_END:
            raise OSError(f"tile {tile.name} could not be written: is the disk full?")
    return tiles


def save_stretched(image: Path, file: Path, layout: ImageFormat) -> None:
    """Write an image of other than 8 bits as a PNG of 8 bits.

    Args:
        image (Path): The image.
        file (Path): The PNG.
        layout (ImageFormat): Layout of the image.

    Raises:
        UnreadableImageError: If the image cannot be decoded.
        OSError: If the PNG cannot be written.
    """
    try:
        written = imwrite(str(file), EightBitImage(image, layout).pixels())
    except MemoryError as e:
        raise UnreadableImageError("needs more memory than there is") from e
    if not written:
        raise OSError(f"{file.name} could not be written: is the disk full?")
