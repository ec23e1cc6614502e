"""Reader of VOC XML annotations: horizontal boxes, four corners, or centre, sides and angle."""

from __future__ import annotations

from collections.abc import Callable
from math import cos, sin
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ds2d2_yolo.errors import BadUseError
from ds2d2_yolo.prepare.records import Annotation, Box, BrokenFileError, Corners, corners_of, number_of
from ds2d2_yolo.prepare.source_folder import read_bytes

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

UPRIGHT = ("xmin", "ymin", "xmax", "ymax")
QUAD = [f"{axis}_{corner}" for corner in ("left_top", "right_top", "right_bottom", "left_bottom") for axis in "xy"]
ROTATED = ("cx", "cy", "w", "h", "angle")


def voc_reader(oriented: bool) -> Callable[[Path, int, int], Annotation]:
    """Return a reader of annotations with horizontal or oriented boxes.

    Args:
        oriented (bool): Whether to read `robndbox` elements instead of `bndbox`.

    Returns:
        (Callable[[Path, int, int], Annotation]): Takes a file; width and height come from the file itself.

    Raises:
        BadUseError: If defusedxml is missing, which reads untrusted XML safely.
    """
    try:
        from defusedxml import DefusedXmlException
        from defusedxml.ElementTree import ParseError, fromstring
    except ImportError as e:
        raise BadUseError("reading XML needs defusedxml: pip install 'ds2d2-yolo[data]'") from e

    def read(file: Path, width: int, height: int) -> Annotation:
        try:
            root = fromstring(read_bytes(file))
        except DefusedXmlException as e:
            raise BrokenFileError("declares entities, which no annotation does and which can swell without end") from e
        except (ParseError, ValueError, LookupError) as e:  # LookupError: an encoding that does not exist
            raise BrokenFileError(f"is no well-formed XML: {e}") from e
        boxes = [_box(element, f"object {n}", oriented) for n, element in enumerate(root.findall("object"), 1)]
        return Annotation(boxes, _size(root))

    return read


def _size(root: Element) -> tuple[int, int] | None:
    """Return the image size that the file states; None if it is missing or 0."""
    sides = [number_of(root.findtext(f"size/{name}", "0"), f"size/{name}") for name in ("width", "height")]
    return (int(sides[0]), int(sides[1])) if min(sides) > 0 else None


def _box(element: Element, place: str, oriented: bool) -> Box:
    """Return one object."""
    name = (element.findtext("name") or "").strip()
    box = element.find("robndbox" if oriented else "bndbox")
    if not name:
        raise BrokenFileError(f"{place} has no name")
    if box is None:
        tag, other = ("robndbox", "horizontal") if oriented else ("bndbox", "oriented")
        raise BrokenFileError(f"{place} has no {tag}: is this the folder of the {other} boxes?")
    difficult = (element.findtext("difficult") or "0").strip() not in ("", "0")
    return Box(place, name, _corners(box, place, oriented), difficult)


def _corners(box: Element, place: str, oriented: bool) -> Corners:
    """Return the corners of a box in any of the three forms."""
    if not oriented:
        x1, y1, x2, y2 = (number_of(box.findtext(key), f"{place} {key}") for key in UPRIGHT)
        return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
    if box.find("angle") is None:
        return corners_of([box.findtext(key) or "" for key in QUAD], place)
    # roLabelImg: radians, clockwise as seen, since y points down
    cx, cy, w, h, angle = (number_of(box.findtext(key), f"{place} {key}") for key in ROTATED)
    sides = np.array([[-w, -h], [w, -h], [w, h], [-w, h]]) / 2
    turn = np.array([[cos(angle), sin(angle)], [-sin(angle), cos(angle)]])
    return np.asarray(sides @ turn + [cx, cy])
