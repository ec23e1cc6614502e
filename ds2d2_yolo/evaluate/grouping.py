"""Groups of objects and detections: by size, by crowding, by orientation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ds2d2_yolo.evaluate.options import ValOptions

if TYPE_CHECKING:
    from ds2d2_yolo.bridge.validation.recording import MatchedDetections

ASPECTS = ("tall", "square", "wide")
MAX_PAIRS = 1 << 20  # pairs of boxes that are compared at once


@dataclass(frozen=True)
class Grouping:
    """One way to divide objects into groups.

    Attributes:
        by (str): 'size', 'crowding' or 'orientation'.
        names (tuple[str, ...]): Names of the groups.
        objects (NDArray[Any]): M, index of the group of each object.
        detections (NDArray[Any]): N, index of the group of each detection by its box; used for unmatched ones.
    """

    by: str
    names: tuple[str, ...]
    objects: NDArray[Any]
    detections: NDArray[Any]


def groupings(results: MatchedDetections, options: ValOptions) -> Iterator[Grouping]:
    """Group objects and detections by size, by crowding and by orientation.

    Args:
        results (MatchedDetections): Objects and detections.
        options (ValOptions): Edges, radius and bins.

    Yields:
        (Grouping): Each of the three.
    """
    o, d = results.object_boxes, results.boxes
    names = _range_names(("0", *(f"{e:g}" for e in options.size_edges)))
    yield Grouping("size", names, *(np.digitize(_size(x), options.size_edges) for x in (o, d)))
    counts = count_neighbours(results, options)
    names = _count_names((0, *options.crowd_edges))
    yield Grouping("crowding", names, *(np.digitize(x, options.crowd_edges) for x in counts))
    names, kind = (_direction_names(options), _directions) if results.rotated else (ASPECTS, _aspects)
    yield Grouping("orientation", names, *(kind(x, options) for x in (o, d)))


def _range_names(edges: tuple[str, ...]) -> tuple[str, ...]:
    """Name the ranges between edges, such as 0-16, 16-32, 32+."""
    return (*(f"{a}-{b}" for a, b in pairwise(edges)), f"{edges[-1]}+")


def _count_names(edges: tuple[int, ...]) -> tuple[str, ...]:
    """Name the ranges of whole numbers between edges, such as 0, 1-4, 5+."""
    spans = ((a, b - 1) for a, b in pairwise(edges))
    return (*(f"{a}" if a == b else f"{a}-{b}" for a, b in spans), f"{edges[-1]}+")


def _direction_names(options: ValOptions) -> tuple[str, ...]:
    """Name the directions by the centre of their bin, such as 0 deg, 45 deg; squares come last."""
    return (*(f"{i * 180 / options.angle_bins:.4g} deg" for i in range(options.angle_bins)), "square")


def _size(boxes: NDArray[Any]) -> NDArray[Any]:
    """Return the square root of the area of each box in pixels."""
    size: NDArray[Any] = np.sqrt(boxes[:, 2] * boxes[:, 3])
    return size


def _directions(boxes: NDArray[Any], options: ValOptions) -> NDArray[Any]:
    """Return the bin of the long side's angle, `angle_bins` for squares.

    Bins are centred on multiples of their width: boxes along an axis do not lie on a bin edge.
    """
    w, h, r = boxes[:, 2], boxes[:, 3], boxes[:, 4]
    angle = np.where(w >= h, r, r + np.pi / 2)
    bins = np.floor(angle / np.pi * options.angle_bins + 0.5).astype(int) % options.angle_bins
    square = np.maximum(w, h) < options.square * np.minimum(w, h)
    return np.where(square, options.angle_bins, bins)


def _aspects(boxes: NDArray[Any], options: ValOptions) -> NDArray[Any]:
    """Return the index in `ASPECTS` of each upright box."""
    w, h = boxes[:, 2], boxes[:, 3]
    index: NDArray[Any] = 1 + (w >= options.square * h).astype(int) - (h >= options.square * w).astype(int)
    return index


def count_neighbours(results: MatchedDetections, options: ValOptions) -> tuple[NDArray[Any], NDArray[Any]]:
    """Count the other objects, of any class, with centres within the radius around each object and detection.

    A detection whose centre lies in an object's box (the nearest one of several) has that object's count: a second box
    on an isolated object has no neighbour. The objects around any other detection are counted.

    Args:
        results (MatchedDetections): Objects and detections.
        options (ValOptions): Radius and its unit.

    Returns:
        objects (NDArray[Any]): M counts.
        detections (NDArray[Any]): N counts.
    """
    reach = [
        options.crowd_radius * (_size(x) if options.crowd_unit == "size" else np.ones(len(x)))
        for x in (results.object_boxes, results.boxes)
    ]
    objects, detections = np.zeros(len(results.object_boxes), int), np.zeros(len(results.boxes), int)
    starts = [np.searchsorted(x, np.arange(results.images + 1)) for x in (results.object_image, results.image)]
    for i in range(results.images):
        o, d = (slice(s[i], s[i + 1]) for s in starts)
        boxes = results.object_boxes[o]
        if not len(boxes):
            continue
        objects[o] = _objects_near(boxes, reach[0][o], boxes)[0] - 1  # without the object itself
        near, inside = _objects_near(results.boxes[d], reach[1][d], boxes)
        detections[d] = np.where(inside >= 0, objects[o][inside], near)
    return objects, detections


def _objects_near(boxes: NDArray[Any], reach: NDArray[Any], objects: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return for each box the number of object centres within reach, and the object that holds its centre, or -1."""
    near, inside = np.zeros(len(boxes), int), np.full(len(boxes), -1)
    step = max(1, MAX_PAIRS // len(objects))
    cos, sin = np.cos(objects[:, 4]), np.sin(objects[:, 4])
    for start in range(0, len(boxes), step):
        part = slice(start, start + step)
        dx, dy = (boxes[part, k, None] - objects[:, k] for k in (0, 1))
        distance = np.hypot(dx, dy)
        near[part] = (distance <= reach[part, None]).sum(1)
        within = (np.abs(dx * cos + dy * sin) <= objects[:, 2] / 2) & (np.abs(dy * cos - dx * sin) <= objects[:, 3] / 2)
        nearest = np.where(within, distance, np.inf).argmin(1)
        inside[part] = np.where(within.any(1), nearest, -1)
    return near, inside
