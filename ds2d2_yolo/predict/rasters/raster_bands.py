"""Choice of the bands of a raster file that become the channels of the model input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ds2d2_yolo.errors import BadUseError

Pixels = NDArray[np.uint8]


def palette_of(dataset: Any) -> Pixels | None:
    """Return the colours (256, 3), red first, of rasterio's dataset; None if it is no palette image.

    Args:
        dataset (Any): rasterio's dataset.

    Returns:
        (np.ndarray | None): Colours (256, 3), uint8.
    """
    if dataset.count != 1 or dataset.dtypes[0] != "uint8":
        return None
    try:
        colours = dataset.colormap(1)
    except ValueError:  # rasterio raises it if there is no palette
        return None
    table = np.zeros((256, 3), np.uint8)
    for value, colour in colours.items():
        table[value] = colour[:3]
    return table


def bits_of(dataset: Any) -> int:
    """Return the bits per value: 1, 2 or 4 if a file packs several values into a byte; GDAL does not scale them.

    Args:
        dataset (Any): rasterio's dataset.

    Returns:
        (int): 1, 2, 4 or 8; 8 for other types than uint8.
    """
    return int(dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", 8)) if dataset.dtypes[0] == "uint8" else 8


def is_masked(dataset: Any, bands: list[int]) -> bool:
    """Return whether a file marks pixels as nodata.

    GDAL calls the fourth of four 8-bit bands alpha unless the writer named it otherwise. If that band is read, it is
    data like the others.

    Args:
        dataset (Any): rasterio's dataset.
        bands (list[int]): The bands that are read, from 1.

    Returns:
        (bool): Whether the mask applies.
    """
    from rasterio.enums import MaskFlags

    read = any(dataset.colorinterp[b - 1].name == "alpha" for b in bands)
    flags = [f for f in dataset.mask_flag_enums if not (read and MaskFlags.alpha in f)]
    return any(f != [MaskFlags.all_valid] for f in flags)


def chosen_bands(path: Path, dataset: Any, requested: list[int] | None, channels: int, palette: bool) -> list[int]:
    """Return the bands to read, from 1.

    Args:
        path (Path): The file, for messages.
        dataset (Any): rasterio's dataset.
        requested (list[int] | None): Bands of `bands=`.
        channels (int): Channels that the model takes.
        palette (bool): Whether the only band is a palette of colours.

    Returns:
        (list[int]): One for each channel, or the one of a palette.

    Raises:
        BadUseError: If they do not fit the file or the model.
    """
    count, bands = int(dataset.count), requested
    if palette and channels != 3:
        raise BadUseError(f"{path} is a palette image, the model takes {channels} channels: convert it first")
    names = [c.name for c in dataset.colorinterp]
    coloured = [names.index(c) + 1 for c in ("red", "green", "blue") if c in names]
    if bands is None and channels == 3:
        bands = [1] if count < 3 else coloured if len(coloured) == 3 else [1, 2, 3]
    elif bands is None and count == channels:
        bands = list(range(1, count + 1))
        if count == 4 and len(coloured) == 3:  # as OpenCV, through Ultralytics, reads them for training
            bands = [*coloured[::-1], *(b for b in bands if b not in coloured)]
    elif bands is None and count == 1 and dataset.subdatasets:
        pages = f"{path} holds {len(dataset.subdatasets)} pages, of which slice= reads the first"
        raise BadUseError(f"{pages}: write them as the bands of one TIFF (rio stack)")
    elif bands is None:
        raise BadUseError(f"{path} has {count} bands, the model takes {channels}: name them with bands=[...]")
    if max(bands) > count:
        raise BadUseError(f"bands={bands}: {path} has {count} band" + ("s" if count > 1 else ""))
    if len(bands) == 1 and channels == 3:
        return list(bands) * (1 if palette else 3)
    if len(bands) != channels:
        raise BadUseError(f"bands={bands} are {len(bands)}, the model takes {channels}")
    return list(bands)
