"""Average precision of parts of the objects, with Ultralytics' matching and interpolation.

The rule, which is COCO's on Ultralytics' matches. Detections are matched once, by Ultralytics, to objects of every
group; so an object that is found in the whole is found in its group. Then, for one group and at each IoU threshold:

- a detection that was matched to an object of the group is right;
- one that was matched to an object of another group is left out: it is neither right nor wrong here;
- one that was matched to nothing is wrong where it belongs to the group by itself: by its own size, by its own
  direction, by the objects around it (see `grouping.others`); otherwise it is left out.

Hence right and wrong detections of all groups add up to those of the whole, and so do the objects. COCO differs in one
thing: there a detection that overlaps two objects prefers the one inside the group, anew for each group, even if it
overlaps the other one more.

A mean is over the classes that have objects in the group, be it one object, as in Ultralytics and COCO: groups of
different classes say little about each other, and the numbers of objects are part of the result.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ds2d2_yolo.evaluate.grouping import Split, splits
from ds2d2_yolo.evaluate.options import ValOptions

if TYPE_CHECKING:
    from ds2d2_yolo.bridge.validation.recording import MatchedDetections


@dataclass(frozen=True)
class Row:
    """How well one group was found.

    Attributes:
        by (str): 'all', 'size', 'crowding', 'orientation' or 'class'.
        group (str): Name of the group, such as '16-32'.
        images (int): Images with objects of the group; of 'all', every image.
        objects (int): Its objects.
        map50 (float): Mean over its classes of AP at IoU 0.5, 0 to 1, NaN without objects.
        map50_95 (float): Likewise over IoU 0.5 to 0.95.
        recall (float): Share of its objects found at IoU 0.5 at any confidence that was kept, NaN without objects.
    """

    by: str
    group: str
    images: int
    objects: int
    map50: float
    map50_95: float
    recall: float


def rows_of(found: MatchedDetections, options: ValOptions) -> tuple[Row, ...]:
    """Measure the whole, each size, crowding and orientation, and each class.

    Args:
        found (MatchedDetections): What a model found.
        options (ValOptions): Edges, radius and bins.

    Returns:
        (tuple[Row, ...]): In this order; groups without objects are among them.
    """
    every = np.ones(len(found.object_class), bool)
    classes, ap = group_ap(found, every, np.ones(found.target.shape, bool))
    whole = replace(_row(found, "all", "all", every, ap), images=found.images)
    parts = (row for split in splits(found, options) for row in _split_rows(found, split))
    return (whole, *parts, *_class_rows(found, dict(zip(classes.tolist(), ap, strict=True))))


def group_ap(
    found: MatchedDetections, objects: NDArray[Any], counts: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the average precision of each class in one group, by Ultralytics' own function.

    Args:
        found (MatchedDetections): What a model found.
        objects (NDArray[Any]): M booleans: the objects of the group.
        counts (NDArray[Any]): N x T booleans: whether a detection counts, right or wrong, at a threshold.

    Returns:
        classes (NDArray[Any]): K class indices: those with objects in the group, ascending.
        ap (NDArray[Any]): K x T, 0 to 1.
    """
    from ds2d2_yolo.bridge.validation.recording import class_ap

    columns = []
    for threshold in range(counts.shape[1]):
        kept = counts[:, threshold]
        right = found.target[kept, threshold, None] >= 0
        classes, ap = class_ap(right, found.confidence[kept], found.classes[kept], found.object_class[objects])
        columns.append(ap)
    return classes, np.concatenate(columns, axis=1)


def _split_rows(found: MatchedDetections, split: Split) -> Iterator[Row]:
    """Measure each group of a split."""
    belongs = np.repeat(split.detections[:, None], found.target.shape[1], axis=1)
    matched = found.target >= 0
    belongs[matched] = split.objects[found.target[matched]]
    for index, name in enumerate(split.names):
        objects = split.objects == index
        _, ap = group_ap(found, objects, belongs == index)
        yield _row(found, split.by, name, objects, ap)


def _class_rows(found: MatchedDetections, ap: Mapping[float, NDArray[Any]]) -> Iterator[Row]:
    """Measure each class, from the AP of those that have objects; a name that comes twice has its index behind it."""
    names = list(found.names.values())
    for index, name in found.names.items():
        name = name if names.count(name) == 1 else f"{name} ({index})"
        yield _row(found, "class", name, found.object_class == index, ap.get(index, np.zeros(0))[None])


def _row(found: MatchedDetections, by: str, group: str, objects: NDArray[Any], ap: NDArray[Any]) -> Row:
    """Return the row of a group; `ap` is K x T."""
    number = int(objects.sum())
    if not number:
        return Row(by, group, 0, 0, np.nan, np.nan, np.nan)
    hit = np.zeros(len(objects), bool)
    first = found.target[:, 0]
    hit[first[first >= 0]] = True
    images = len(np.unique(found.object_image[objects]))
    return Row(by, group, images, number, float(ap[:, 0].mean()), float(ap.mean()), float(hit[objects].mean()))
