"""Records that the readers of published data sets return: images, annotations, boxes, errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Corners = NDArray[np.float64]
MAX_COORDINATE = 1e6  # pixels; larger than any image, and areas of such boxes are still exact enough


class BrokenFileError(Exception):
    """An image or annotation that cannot be used; the text states the reason in one line."""


@dataclass(frozen=True)
class Box:
    """One published object.

    Attributes:
        place (str): Position in the annotation file, such as 'line 3'.
        name (str): Published class name.
        corners (Corners): Four corners in pixels, (4, 2), in the published order; of a horizontal box clockwise
            from the top left.
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
        boxes (list[Box]): Objects in the published order.
        size (tuple[int, int] | None): Width and height of the image in pixels, if the file states them.
    """

    boxes: list[Box]
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Item:
    """One image of a split.

    Attributes:
        split (str): 'train', 'val' or 'test'.
        name (str): Name of the image without suffix.
        image (Path | None): Image file.
        annotation (Path | None): Annotation file; None for an image without one.
        error (str): Reason why it cannot be used, if known before it is opened; empty otherwise.
    """

    split: str
    name: str
    image: Path | None = None
    annotation: Path | None = None
    error: str = ""


@dataclass(frozen=True)
class Layout:
    """A published data set on disk.

    Attributes:
        root (Path): The folder; files outside are never read.
        items (list[Item]): Images, in the order of splits and names.
        read (Callable[[Path, int, int], Annotation]): Reads an annotation file, given the image's size.
        oriented (bool): Whether the boxes are oriented.
        classes (tuple[str, ...]): Class names of the source; empty if the packaged YAML defines them.
        without_class (tuple[str, ...]): Published names that intentionally stand for no class.
        annotation_folders (tuple[str, ...]): Folders of the annotations, relative to `root`.
    """

    root: Path
    items: list[Item]
    read: Callable[[Path, int, int], Annotation]
    oriented: bool
    classes: tuple[str, ...] = ()
    without_class: tuple[str, ...] = ()
    annotation_folders: tuple[str, ...] = field(default=())


def corners_of(numbers: list[str], place: str) -> Corners:
    """Return eight coordinates as corners.

    Args:
        numbers (list[str]): Coordinates in pixels as text, x and y alternating.
        place (str): Position in the file, for the message.

    Returns:
        (Corners): (4, 2).

    Raises:
        BrokenFileError: If one is not a finite number, or larger than any image.
    """
    return np.array([number_of(n, place) for n in numbers]).reshape(4, 2)


def number_of(text: str | None, place: str) -> float:
    """Parse a coordinate or length in pixels; raise BrokenFileError for an invalid one.

    Args:
        text (str | None): The number as text.
        place (str): Position in the file, for the message.

    Returns:
        (float): The number.
    """
    try:
        value = float(text or "")
    except ValueError:
        value = float("nan")
    if not abs(value) <= MAX_COORDINATE:
        raise BrokenFileError(f"{place}: {str(text)[:40]!r} is no coordinate in an image")
    return value
