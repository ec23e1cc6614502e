"""Which bands of a file a model sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ds2d2_yolo.errors import BadUseError

Pixels = NDArray[np.uint8]


def palette_of(dataset: Any) -> Pixels | None:
    """Return the colours (256, 3), red first, of rasterio's dataset; None where it is no palette image."""
    if dataset.count != 1 or dataset.dtypes[0] != "uint8":
        return None
    try:
        colours = dataset.colormap(1)
    except ValueError:  # rasterio's word for 'has none'
        return None
    table = np.zeros((256, 3), np.uint8)
    for value, colour in colours.items():
        table[value] = colour[:3]
    return table


def chosen_bands(path: Path, dataset: Any, asked: list[int] | None, channels: int, palette: bool) -> list[int]:
    """Return the bands to read, from 1.

    Args:
        path (Path): The file, for messages.
        dataset (Any): rasterio's dataset.
        asked (list[int] | None): Bands that were named.
        channels (int): Channels that the model takes.
        palette (bool): Whether its one band stands for three colours.

    Returns:
        (list[int]): One for each channel, or the one of a palette.

    Raises:
        BadUseError: If they do not fit the file or the model.
    """
    count, bands = int(dataset.count), asked
    if palette and channels != 3:
        raise BadUseError(f"{path} is a palette image, the model takes {channels} channels: convert it first")
    if bands is None and channels == 3:
        names = [c.name for c in dataset.colorinterp]
        coloured = [names.index(c) + 1 for c in ("red", "green", "blue") if c in names]
        bands = [1] if count < 3 else coloured if len(coloured) == 3 else [1, 2, 3]
    elif bands is None and count == channels:
        bands = list(range(1, count + 1))
    elif bands is None:
        raise BadUseError(f"{path} has {count} bands, the model takes {channels}: name them with bands=[...]")
    if max(bands) > count:
        raise BadUseError(f"bands={bands}: {path} has {count} band" + ("s" if count > 1 else ""))
    if len(bands) == 1 and channels == 3:
        return list(bands) * (1 if palette else 3)
    if len(bands) != channels:
        raise BadUseError(f"bands={bands} are {len(bands)}, the model takes {channels}")
    return list(bands)
