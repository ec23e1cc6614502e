"""What the readers of published data sets hand to the rest: images with their annotations, boxes, broken files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Corners = NDArray[np.float64]
FARTHEST = 1e6  # pixels; no image has a coordinate beyond, and areas of such boxes are still exact enough


class BrokenFileError(Exception):
    """An image or annotation that cannot be used; its text says why in one line."""


@dataclass(frozen=True)
class Box:
    """One published object.

    Attributes:
        place (str): Where it stands in its file, such as 'line 3'.
        name (str): Its class as published.
        corners (Corners): Four corners in pixels, (4, 2), in the published order; of a horizontal box the top left
            one first, clockwise.
        difficult (bool): Whether it is marked difficult.
    """

    place: str
    name: str
    corners: Corners
    difficult: bool = False


@dataclass(frozen=True)
class Annotation:
    """The objects of one image.

    Attributes:
        boxes (list[Box]): Its objects, in the published order.
        size (tuple[int, int] | None): Width and height that the file gives the image, if it does.
    """

    boxes: list[Box]
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Item:
    """One image of a split.

    Attributes:
        split (str): 'train', 'val' or 'test'.
        name (str): Name of the image without suffix.
        image (Path | None): Its file.
        annotation (Path | None): Its annotation; None with an image where none is published.
        wrong (str): Why it cannot be used, where that was seen before it was opened.
    """

    split: str
    name: str
    image: Path | None = None
    annotation: Path | None = None
    wrong: str = ""


@dataclass(frozen=True)
class Layout:
    """A published data set as found on disk.

    Attributes:
        root (Path): The folder that nothing is read outside of.
        items (list[Item]): Its images, in the order of their splits and names.
        read (Callable[[Path, int, int], Annotation]): Reads an annotation, given the image's width and height.
        oriented (bool): Whether the boxes are oriented.
        classes (tuple[str, ...]): Class names of its own; empty if those of the packaged YAML hold.
        without_class (tuple[str, ...]): Published names that stand for no class on purpose.
        found (tuple[str, ...]): The folders that the annotations are in, under `root`.
    """

    root: Path
    items: list[Item]
    read: Callable[[Path, int, int], Annotation]
    oriented: bool
    classes: tuple[str, ...] = ()
    without_class: tuple[str, ...] = ()
    found: tuple[str, ...] = field(default=())


def corners_of(numbers: list[str], place: str) -> Corners:
    """Return eight coordinates as corners.

    Args:
        numbers (list[str]): Coordinates in pixels as text, x and y in turn.
        place (str): Where they stand, for the message.

    Returns:
        (Corners): (4, 2).

    Raises:
        BrokenFileError: If one is no finite number, or beyond any image.
    """
    return np.array([number_of(n, place) for n in numbers]).reshape(4, 2)


def number_of(text: str | None, place: str) -> float:
    """Return a coordinate or length, in pixels; raise BrokenFileError for what is none."""
    try:
        value = float(text or "")
    except ValueError:
        value = float("nan")
    if not abs(value) <= FARTHEST:
        raise BrokenFileError(f"{place}: {str(text)[:40]!r} is no coordinate in an image")
    return value
