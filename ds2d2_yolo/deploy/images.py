"""The images that an exported file is compared on."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ds2d2_yolo.bridge.data.images import list_images, read_image
from ds2d2_yolo.bridge.inference.export import val_images
from ds2d2_yolo.config.resources import resolve_data
from ds2d2_yolo.errors import BadUseError, DS2D2Error
from ds2d2_yolo.scenes import draw_scene
from ds2d2_yolo.utils.sampling import evenly_spaced

MAX_SCENES = 8  # drawing one takes about a second
SCENE_CHANNELS = 3


@dataclass(frozen=True)
class CheckImages:
    """Images and their source.

    Attributes:
        source (str): Where they are from, as text.
        names (tuple[str, ...]): Name of each.
        pixels (tuple[NDArray[np.uint8], ...]): H x W x channels; BGR where there are 3.
    """

    source: str
    names: tuple[str, ...]
    pixels: tuple[NDArray[np.uint8], ...]


def images_for(
    check_images: str | None, data: str | None, checkpoint_data: str | None, imgsz: int, channels: int, limit: int
) -> CheckImages | None:
    """Find and read the images to compare on.

    Args:
        check_images (str | None): See `find_images`.
        data (str | None): See `find_images`.
        checkpoint_data (str | None): See `find_images`; unreadable images of it are no error.
        imgsz (int): See `find_images`.
        channels (int): Channels of the model's input.
        limit (int): Largest number of images, chosen evenly.

    Returns:
        (CheckImages | None): The images; None if none has so many channels and none was requested.

    Raises:
        BadUseError: If the requested images do not exist, or one cannot be read with these channels.
    """
    source, images = find_images(check_images, data, checkpoint_data, imgsz)
    if not isinstance(images, int):
        try:
            return read_images(source, images, limit, channels)
        except DS2D2Error as e:
            if check_images or data:
                raise BadUseError(f"{e}, of the {source}: name others with check_images=, or correct it") from e
    return read_images("built-in scenes", imgsz, limit) if channels == SCENE_CHANNELS else None


def find_images(
    check_images: str | None, data: str | None, checkpoint_data: str | None, imgsz: int
) -> tuple[str, list[Path] | int]:
    """Find the images to compare on, without reading any.

    Args:
        check_images (str | None): An image, a folder or a data YAML.
        data (str | None): The data YAML of the command.
        checkpoint_data (str | None): The data YAML that the checkpoint names; used only if its images exist.
        imgsz (int): Side of the built-in scenes, in pixels.

    Returns:
        source (str): Where they are from, as text.
        images (list[Path] | int): The images, or the side of the built-in scenes to draw.

    Raises:
        BadUseError: If the requested images do not exist.
    """
    if check_images and not check_images.endswith((".yaml", ".yml")):
        path = Path(check_images).expanduser()
        images = [path] if path.is_file() else list_images(str(path))
        if not images:
            raise BadUseError(f"check_images={check_images} holds no images")
        return f"images of {check_images}", images
    if yaml := check_images or data:
        return f"validation images of {yaml}", val_images(resolve_data(yaml))
    if checkpoint_data:
        with suppress(BadUseError):  # trained elsewhere: the checkpoint's data set is not on this machine
            source = f"validation images of {checkpoint_data}"
            return source, val_images(resolve_data(checkpoint_data), download=False)
    return "built-in scenes", imgsz


def read_images(source: str, images: list[Path] | int, limit: int, channels: int = SCENE_CHANNELS) -> CheckImages:
    """Read images, or draw scenes.

    Args:
        source (str): Where they are from, as text.
        images (list[Path] | int): Of `find_images`.
        limit (int): Largest number of images, chosen evenly.
        channels (int): Channels of images; scenes are drawn in colour.

    Returns:
        (CheckImages): The images.

    Raises:
        DS2D2Error: If one cannot be read, or has another number of channels.
    """
    if isinstance(images, int):
        side, count = -(-images // 4) * 4, min(limit, MAX_SCENES)  # the next multiple of 4
        scenes = tuple(draw_scene(0, 1, i, side)[0] for i in range(count))
        return CheckImages(f"{count} {source}", tuple(f"scene {i}" for i in range(count)), scenes)
    chosen = evenly_spaced(images, limit)
    pixels = tuple(read_image(path, channels) for path in chosen)
    return CheckImages(f"{len(chosen)} of {len(images)} {source}", tuple(str(p) for p in chosen), pixels)
