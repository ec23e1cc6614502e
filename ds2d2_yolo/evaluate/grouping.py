"""Which group an object belongs to: by size, by crowding, by orientation."""

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
CHUNK = 1 << 20  # pairs of boxes that are compared at once


@dataclass(frozen=True)
class Split:
    """One way to part objects.

    Attributes:
        by (str): 'size', 'crowding' or 'orientation'.
        names (tuple[str, ...]): Its groups.
        objects (NDArray[Any]): M, the group of each object.
        detections (NDArray[Any]): N, the group that each detection has by itself; it counts where nothing was matched.
    """

    by: str
    names: tuple[str, ...]
    objects: NDArray[Any]
    detections: NDArray[Any]


def splits(found: MatchedDetections, options: ValOptions) -> Iterator[Split]:
    """Part what was found by size, by crowding and by orientation.

    Args:
        found (MatchedDetections): Objects and detections.
        options (ValOptions): Edges, radius and bins.

    Yields:
        (Split): Each of the three.
    """
    o, d = found.object_boxes, found.boxes
    names = _ranges(("0", *(f"{e:g}" for e in options.size_edges)))
    yield Split("size", names, *(np.digitize(_size(x), options.size_edges) for x in (o, d)))
    counts = others(found, options)
    names = _counts((0, *options.crowd_edges))
    yield Split("crowding", names, *(np.digitize(x, options.crowd_edges) for x in counts))
    names, kind = (_directed(options), _directions) if found.rotated else (ASPECTS, _aspects)
    yield Split("orientation", names, *(kind(x, options) for x in (o, d)))


def _ranges(edges: tuple[str, ...]) -> tuple[str, ...]:
    """Name the ranges between edges, such as 0-16, 16-32, 32+."""
    return (*(f"{a}-{b}" for a, b in pairwise(edges)), f"{edges[-1]}+")


def _counts(edges: tuple[int, ...]) -> tuple[str, ...]:
    """Name the ranges of whole numbers between edges, such as 0, 1-4, 5+."""
    spans = ((a, b - 1) for a, b in pairwise(edges))
    return (*(f"{a}" if a == b else f"{a}-{b}" for a, b in spans), f"{edges[-1]}+")


def _directed(options: ValOptions) -> tuple[str, ...]:
    """Name the directions by their middle, such as 0 deg, 45 deg; squares come last."""
    return (*(f"{i * 180 / options.angle_bins:.4g} deg" for i in range(options.angle_bins)), "square")


def _size(boxes: NDArray[Any]) -> NDArray[Any]:
    """Return the square root of the area of each box in pixels."""
    size: NDArray[Any] = np.sqrt(boxes[:, 2] * boxes[:, 3])
    return size


def _directions(boxes: NDArray[Any], options: ValOptions) -> NDArray[Any]:
    """Return the bin of the long side's angle, `angle_bins` for squares.

    Bins are centred on multiples of their width, so that boxes along an axis do not fall on an edge.
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


def others(found: MatchedDetections, options: ValOptions) -> tuple[NDArray[Any], NDArray[Any]]:
    """Count the other objects, of any class, whose centres lie within the radius of each object and detection.

    A detection stands for the object whose box its centre lies in (the nearest one where there are several), and has
    that object's number: a second box on a lone object is not beside a neighbour. One on the background has its own.

    Args:
        found (MatchedDetections): Objects and detections.
        options (ValOptions): Radius and its unit.

    Returns:
        objects (NDArray[Any]): M counts.
        detections (NDArray[Any]): N counts.
    """
    reach = [
        options.crowd_radius * (_size(x) if options.crowd_unit == "size" else np.ones(len(x)))
        for x in (found.object_boxes, found.boxes)
    ]
    ours, theirs = np.zeros(len(found.object_boxes), int), np.zeros(len(found.boxes), int)
    where = [np.searchsorted(x, np.arange(found.images + 1)) for x in (found.object_image, found.image)]
    for i in range(found.images):
        o, d = (slice(w[i], w[i + 1]) for w in where)
        boxes = found.object_boxes[o]
        if not len(boxes):
            continue
        ours[o] = _around(found.object_boxes[o], reach[0][o], boxes)[0] - 1  # not itself
        near, inside = _around(found.boxes[d], reach[1][d], boxes)
        theirs[d] = np.where(inside >= 0, ours[o][inside], near)
    return ours, theirs


def _around(boxes: NDArray[Any], reach: NDArray[Any], objects: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return, for each box, how many objects' centres lie within its reach and which object its centre lies in."""
    near, inside = np.zeros(len(boxes), int), np.full(len(boxes), -1)
    step = max(1, CHUNK // len(objects))
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
