"""Average precision of groups of objects, with Ultralytics' matching and interpolation.

The rule is COCO's, applied to Ultralytics' matches. Ultralytics matches detections once, to objects of all groups, so
an object that is detected in total is detected in its group. For one group and each IoU threshold:

- a detection that matches an object of the group is a true positive;
- a detection that matches an object of another group is ignored;
- an unmatched detection is a false positive if it belongs to the group by its size, its direction or the
  objects around it (see `grouping.count_neighbours`); otherwise it is ignored.

Hence the true and false positives of all groups add up to the total, and so do the objects. COCO differs in one point:
there a detection that overlaps two objects prefers the one inside the group, anew for each group, even at a smaller
overlap.

A mean is over the classes with objects in the group, even a single object, as in Ultralytics and COCO. Groups of
different classes are hard to compare, and the numbers of objects are part of the result.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ds2d2_yolo.evaluate.grouping import Grouping, groupings
from ds2d2_yolo.evaluate.options import ValOptions

if TYPE_CHECKING:
    from ds2d2_yolo.bridge.validation.recording import MatchedDetections


@dataclass(frozen=True)
class GroupMetrics:
    """Metrics of one group.

    Attributes:
        by (str): 'all', 'size', 'crowding', 'orientation' or 'class'.
        group (str): Name of the group, such as '16-32'.
        images (int): Images with objects of the group; of 'all', every image.
        objects (int): Its objects.
        map50 (float): Mean over its classes of AP at IoU 0.5, 0 to 1, NaN without objects.
        map50_95 (float): Likewise over IoU 0.5 to 0.95.
        recall (float): Share of its objects detected at IoU 0.5 at any recorded confidence, NaN without objects.
    """

    by: str
    group: str
    images: int
    objects: int
    map50: float
    map50_95: float
    recall: float


def measure_groups(results: MatchedDetections, options: ValOptions) -> tuple[GroupMetrics, ...]:
    """Measure all objects, each group by size, crowding and orientation, and each class.

    Args:
        results (MatchedDetections): Objects and detections.
        options (ValOptions): Edges, radius and bins.

    Returns:
        (tuple[GroupMetrics, ...]): In this order, groups without objects included.
    """
    every = np.ones(len(results.object_class), bool)
    classes, ap = group_ap(results, every, np.ones(results.target.shape, bool))
    total = replace(_group_metrics(results, "all", "all", every, ap), images=results.images)
    parts = (row for grouping in groupings(results, options) for row in _measure_grouping(results, grouping))
    return (total, *parts, *_measure_classes(results, dict(zip(classes.tolist(), ap, strict=True))))


def group_ap(
    results: MatchedDetections, objects: NDArray[Any], counts: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the average precision of each class in one group, by Ultralytics' function.

    Args:
        results (MatchedDetections): Objects and detections.
        objects (NDArray[Any]): M booleans: the objects of the group.
        counts (NDArray[Any]): N x T booleans: whether a detection is not ignored at a threshold.

    Returns:
        classes (NDArray[Any]): K class indices: those with objects in the group, ascending.
        ap (NDArray[Any]): K x T, 0 to 1.
    """
    from ds2d2_yolo.bridge.validation.recording import class_ap

    columns = []
    for threshold in range(counts.shape[1]):
        counted = counts[:, threshold]
        hits = results.target[counted, threshold, None] >= 0
        scores, predicted = results.confidence[counted], results.classes[counted]
        classes, ap = class_ap(hits, scores, predicted, results.object_class[objects])
        columns.append(ap)
    return classes, np.concatenate(columns, axis=1)


def _measure_grouping(results: MatchedDetections, grouping: Grouping) -> Iterator[GroupMetrics]:
    """Measure each group of a grouping."""
    group = np.repeat(grouping.detections[:, None], results.target.shape[1], axis=1)
    matched = results.target >= 0
    group[matched] = grouping.objects[results.target[matched]]
    for index, name in enumerate(grouping.names):
        objects = grouping.objects == index
        _, ap = group_ap(results, objects, group == index)
        yield _group_metrics(results, grouping.by, name, objects, ap)


def _measure_classes(results: MatchedDetections, ap: Mapping[float, NDArray[Any]]) -> Iterator[GroupMetrics]:
    """Return the metrics of each class from the AP of those with objects; the index follows a name that comes twice."""
    names = list(results.names.values())
    for index, name in results.names.items():
        name = name if names.count(name) == 1 else f"{name} ({index})"
        yield _group_metrics(results, "class", name, results.object_class == index, ap.get(index, np.zeros(0))[None])


def _group_metrics(
    results: MatchedDetections, by: str, group: str, objects: NDArray[Any], ap: NDArray[Any]
) -> GroupMetrics:
    """Return the metrics of a group; `objects` are M booleans, `ap` is K x T."""
    count = int(objects.sum())
    if not count:
        return GroupMetrics(by, group, 0, 0, np.nan, np.nan, np.nan)
    detected = np.zeros(len(objects), bool)
    target = results.target[:, 0]
    detected[target[target >= 0]] = True
    images = len(np.unique(results.object_image[objects]))
    recall = float(detected[objects].mean())
    return GroupMetrics(by, group, images, count, float(ap[:, 0].mean()), float(ap.mean()), recall)
