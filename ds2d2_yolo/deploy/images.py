"""The images that an exported file is compared on."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ds2d2_yolo.bridge.data.images import images_of, read_image
from ds2d2_yolo.bridge.inference.export import val_images
from ds2d2_yolo.config.resources import resolve_data
from ds2d2_yolo.errors import BadUseError, DS2D2Error
from ds2d2_yolo.scenes import draw_scene

SCENES = 8  # drawing one takes about a second
COLOUR = 3  # channels of those scenes
T = TypeVar("T")


@dataclass(frozen=True)
class Images:
    """Images and where they are from.

    Attributes:
        source (str): In words.
        names (tuple[str, ...]): A name for each.
        pixels (tuple[NDArray[np.uint8], ...]): H x W x channels; BGR where there are 3.
    """

    source: str
    names: tuple[str, ...]
    pixels: tuple[NDArray[np.uint8], ...]


def images_for(
    asked: str | None, data: str | None, trained_on: str | None, imgsz: int, channels: int, limit: int
) -> Images | None:
    """Find and read the images to compare on.

    Args:
        asked (str | None): See `find_images`.
        data (str | None): See `find_images`.
        trained_on (str | None): See `find_images`; what cannot be read of it is no reason to fail.
        imgsz (int): See `find_images`.
        channels (int): Channels of the model's input.
        limit (int): How many, chosen evenly.

    Returns:
        (Images | None): The images; None if there is nothing with so many channels, and none was asked for.

    Raises:
        BadUseError: If what was asked for has no images, or one that cannot be read with these channels.
    """
    source, found = find_images(asked, data, trained_on, imgsz)
    if not isinstance(found, int):
        try:
            return read_images(source, found, limit, channels)
        except DS2D2Error as e:
            if asked or data:
                raise BadUseError(f"{e}, of the {source}: name others with check_images=, or correct it") from e
    return read_images("built-in scenes", imgsz, limit) if channels == COLOUR else None


def find_images(
    asked: str | None, data: str | None, trained_on: str | None, imgsz: int
) -> tuple[str, list[Path] | int]:
    """Find the images to compare on, without reading any.

    Args:
        asked (str | None): What check_images= names: an image, a folder, a data YAML.
        data (str | None): The data YAML of the command.
        trained_on (str | None): The data YAML that the checkpoint names; taken only where its images are there.
        imgsz (int): Side of the built-in scenes, in pixels.

    Returns:
        source (str): In words.
        found (list[Path] | int): The images, or the side of the built-in scenes to draw.

    Raises:
        BadUseError: If what was asked for has no images.
    """
    if asked and not asked.endswith((".yaml", ".yml")):
        place = Path(asked).expanduser()
        found = [place] if place.is_file() else images_of(str(place))
        if not found:
            raise BadUseError(f"check_images={asked} holds no images")
        return f"images of {asked}", found
    if named := asked or data:
        return f"validation images of {named}", val_images(resolve_data(named))
    if trained_on:
        with suppress(BadUseError):  # trained elsewhere: the checkpoint's data set is not on this machine
            return f"validation images of {trained_on}", val_images(resolve_data(trained_on), download=False)
    return "built-in scenes", imgsz


def read_images(source: str, found: list[Path] | int, limit: int, channels: int = COLOUR) -> Images:
    """Read images, or draw scenes.

    Args:
        source (str): Where they are from, in words.
        found (list[Path] | int): Of `find_images`.
        limit (int): How many, chosen evenly.
        channels (int): Channels of images; scenes are drawn in colour.

    Returns:
        (Images): The images.

    Raises:
        DS2D2Error: If one cannot be read, or has other channels.
    """
    if isinstance(found, int):
        side, count = -(-found // 4) * 4, min(limit, SCENES)
        drawn = tuple(draw_scene(0, 1, i, side)[0] for i in range(count))
        return Images(f"{count} {source}", tuple(f"scene {i}" for i in range(count)), drawn)
    chosen = evenly_spaced(found, limit)
    pixels = tuple(read_image(path, channels) for path in chosen)
    return Images(f"{len(chosen)} of {len(found)} {source}", tuple(str(p) for p in chosen), pixels)


def evenly_spaced(items: Sequence[T], count: int) -> list[T]:
    """Return up to `count` items at even distances."""
    if len(items) <= count:
        return list(items)
    return [items[(2 * i + 1) * len(items) // (2 * count)] for i in range(count)]
