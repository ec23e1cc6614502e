"""One-to-one matching of the detections of two models, and the differences of the matched pairs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from torch import from_numpy

from ds2d2_yolo.core.iou import probiou
from ds2d2_yolo.utils.detections import Detections, Floats, box_corners

MIN_PAIR_IOU = 0.5  # boxes that overlap less are not the same object
SQUARE_RATIO = 1.1  # a box whose sides differ by less has no long side: its angle counts modulo a quarter turn


@dataclass(frozen=True)
class ModelOutputs:
    """What one model predicts for one image.

    Attributes:
        detections (Detections): Detections after NMS.
        candidates (Detections | None): All predictions before NMS, one for each box and class; None if NMS is inside
            the exported file. For a head without NMS they hold its detections.
    """

    detections: Detections
    candidates: Detections | None

    @classmethod
    def from_rows(cls, detections: Floats, candidates: Floats | None, oriented: bool) -> ModelOutputs:
        """Return outputs from rows (N, 7): x, y, w, h, angle, score, class.

        Args:
            detections (np.ndarray): Rows (N, 7) after NMS.
            candidates (np.ndarray | None): Rows (M, 7) before NMS; None if NMS is inside the file.
            oriented (bool): Whether boxes are rotated.

        Returns:
            (ModelOutputs): The outputs of one image.
        """
        before = None if candidates is None else Detections.from_rows(candidates, oriented)
        return cls(Detections.from_rows(detections, oriented), before)


@dataclass(frozen=True)
class Margins:
    """Differences that the rounding of a precision explains, and the thresholds of NMS.

    Attributes:
        iou (float): Smallest IoU of equal boxes.
        score (float): Largest difference of equal scores.
        nms_iou (float): IoU above which NMS drops the lower score.
        max_det (int): Largest number of detections of an image.
    """

    iou: float
    score: float
    nms_iou: float
    max_det: int = 300


def rotated_iou(a: Floats, b: Floats) -> Floats:
    """Return the exact IoU of rotated boxes, pair by pair.

    Args:
        a (np.ndarray): Boxes (N, 5): x, y, w, h, angle.
        b (np.ndarray): Boxes (N, 5).

    Returns:
        (np.ndarray): IoU (N,) in [0, 1]; 0 for boxes without area or with numbers that are not finite.
    """
    valid = np.isfinite(a).all(1) & np.isfinite(b).all(1) & (np.minimum(a[:, 2:4], b[:, 2:4]) > 0).all(1)
    first, second = (shapely.polygons(box_corners(boxes[valid])) for boxes in (a, b))
    common = shapely.area(shapely.intersection(first, second))
    iou = np.zeros(len(a))
    iou[valid] = (common / (shapely.area(first) + shapely.area(second) - common)).clip(0, 1)
    return iou


def iou_within_classes(a: Detections, b: Detections) -> Floats:
    """Return the IoU of all pairs of two sets of detections, 0 for pairs of different classes.

    Args:
        a (Detections): N detections.
        b (Detections): M detections.

    Returns:
        (np.ndarray): IoU (N, M) of the rectangles: rotated ones if a box has an angle.
    """
    (low_a, high_a), (low_b, high_b) = _hulls(a), _hulls(b)
    shared = (np.minimum(high_a[:, None], high_b) - np.maximum(low_a[:, None], low_b)).clip(0)
    common = np.where(a.classes[:, None] == b.classes, shared.prod(2), 0.0)
    if not (a.boxes[:, 4].any() or b.boxes[:, 4].any()):
        union = a.areas[:, None] + b.areas - common
        return np.where(common > 0, common / np.maximum(union, 1e-12), 0.0)
    iou = np.zeros((len(a), len(b)))
    i, j = np.nonzero(common > 0)
    iou[i, j] = rotated_iou(a.boxes[i], b.boxes[j])
    return iou


def _hulls(detections: Detections) -> tuple[Floats, Floats]:
    """Return the low and high corners (N, 2) of the upright boxes around detections."""
    corners = detections.corners
    return corners.min(1), corners.max(1)


def match(a: Detections, b: Detections) -> list[tuple[int, int, float]]:
    """Match two sets of detections one to one within their classes, the largest IoU first.

    Args:
        a (Detections): N detections.
        b (Detections): M detections.

    Returns:
        (list[tuple[int, int, float]]): Index in `a`, index in `b` and IoU of each pair. Of equal IoUs (to 1e-6) the
            nearest scores come first. Boxes that overlap by less than `MIN_PAIR_IOU` are never paired.
    """
    iou = iou_within_classes(a, b)
    pairs = np.argwhere(iou >= MIN_PAIR_IOU)
    score_difference = np.abs(a.scores[pairs[:, 0]] - b.scores[pairs[:, 1]])
    order = np.lexsort((score_difference, -iou[pairs[:, 0], pairs[:, 1]].round(6)))
    taken_a, taken_b, matches = set(), set(), []
    for i, j in pairs[order].tolist():
        if i not in taken_a and j not in taken_b:
            taken_a.add(i)
            taken_b.add(j)
            matches.append((i, j, float(iou[i, j])))
    return matches


def angle_difference(a: Floats, b: Floats) -> float:
    """Return the difference of two boxes' directions in radians.

    The direction of a box is that of its long side, modulo half a turn, so width and height may be exchanged. If either
    box is nearly a square (sides within 10 %), it is modulo a quarter turn.

    Args:
        a (np.ndarray): Box (5,): x, y, w, h, angle.
        b (np.ndarray): Box (5,).

    Returns:
        (float): Radians in [0, pi / 2], for squares in [0, pi / 4].
    """
    square = any(max(box[2:4]) < SQUARE_RATIO * min(box[2:4]) for box in (a, b))
    turn = np.pi / 2 if square else np.pi
    direction = [float(box[4]) + (np.pi / 2 if box[3] > box[2] else 0.0) for box in (a, b)]
    difference = (direction[0] - direction[1]) % turn
    return float(min(difference, turn - difference))


def contains(candidates: Detections | None, detection: Detections, margins: Margins) -> bool:
    """Return whether candidates contain a detection: one of its class, within both margins.

    Args:
        candidates (Detections | None): Predictions before NMS; None contains nothing.
        detection (Detections): One detection.
        margins (Margins): Differences that rounding explains.

    Returns:
        (bool): Whether there is such a candidate.
    """
    if candidates is None:
        return False
    near = candidates[np.abs(candidates.scores - detection.scores[0]) <= margins.score]
    return bool((iou_within_classes(detection, near) >= margins.iou).any())


def near_tie(
    detection: Detections, lacking: ModelOutputs, torch: ModelOutputs, nms_inside: bool, margins: Margins
) -> bool:
    """Return whether one model lacks a detection of the other only because candidates or classes nearly tied.

    If NMS is the same code for both models, the model that lacks the detection must have box, class and score within
    the margins before NMS: it computed them, and NMS preferred another box or another class of the box. If NMS is
    inside the file, PyTorch must have the detection before NMS, and the model that lacks it must keep a box that
    PyTorch has too and that ties with it: the overlap is within the margin of what NMS allows, or above it while the
    scores differ by no more than their margin.

    Args:
        detection (Detections): One detection of one model.
        lacking (ModelOutputs): Outputs of the model that lacks it.
        torch (ModelOutputs): PyTorch's outputs.
        nms_inside (bool): Whether NMS is inside the exported file.
        margins (Margins): Differences that rounding explains.

    Returns:
        (bool): Whether a near tie explains it.
    """
    if not nms_inside:
        return contains(lacking.candidates, detection, margins)
    if not contains(torch.candidates, detection, margins):
        return False
    remaining = lacking.detections
    iou = _nms_overlap(detection, remaining)
    at_threshold = np.abs(iou - margins.nms_iou) <= 1 - margins.iou
    tied = (iou > margins.nms_iou) & (np.abs(remaining.scores - detection.scores[0]) <= margins.score)
    rivals = np.flatnonzero((remaining.classes == detection.classes[0]) & (at_threshold | tied))
    return any(contains(torch.candidates, remaining[[i]], margins) for i in rivals.tolist())


def _nms_overlap(detection: Detections, others: Detections) -> Floats:
    """Return the overlap (N,) that NMS compares: IoU of upright boxes, ProbIoU of rotated ones."""
    if not (detection.boxes[0, 4] or others.boxes[:, 4].any()):
        upright: Floats = iou_within_classes(detection, others)[0]
        return upright
    first = from_numpy(detection.boxes).expand(len(others), 5)
    rotated: Floats = probiou(first, from_numpy(others.boxes)).numpy()
    return rotated


@dataclass(frozen=True)
class ImageComparison:
    """The comparison of two models on one image.

    Attributes:
        pairs (tuple[tuple[float, float, float], ...]): 1 - IoU, score difference and angle difference of each pair.
        only_torch (Detections): Detections that only PyTorch has.
        only_file (Detections): Detections that only the exported file has.
        ties (int): One-sided detections that a near tie explains.
    """

    pairs: tuple[tuple[float, float, float], ...]
    only_torch: Detections
    only_file: Detections
    ties: int


def compare(torch: ModelOutputs, file: ModelOutputs, conf: float, margins: Margins) -> ImageComparison:
    """Compare the detections of PyTorch and of an exported file in one image.

    Detections with a score of at least `conf` count. Their partners are searched among all detections of the other
    model, which reach down to `conf` less the margin of the score: a detection that falls just below the threshold in
    one model has a partner there, and one that has none is missing. In an image with the largest number of detections,
    the lowest of them takes the place of the threshold.

    Args:
        torch (ModelOutputs): PyTorch's outputs.
        file (ModelOutputs): The exported file's outputs.
        conf (float): Score from which a detection counts.
        margins (Margins): Differences that rounding explains.

    Returns:
        (ImageComparison): Pairs, one-sided detections and near ties.
    """
    a, b = torch.detections, file.detections
    full = [float(d.scores.min()) + margins.score for d in (a, b) if len(d) >= margins.max_det]
    conf, nms_inside = max([conf, *full]), file.candidates is None

    def tied(detection: Detections, lacking: ModelOutputs) -> bool:
        return near_tie(detection, lacking, torch, nms_inside, margins)

    pairs, unmatched_a, unmatched_b = [], set(range(len(a))), set(range(len(b)))
    for i, j, iou in match(a, b):
        if iou < margins.iou and tied(a[[i]], file) and tied(b[[j]], torch):
            continue  # NMS chose another box of the crowd in each model: both are judged as one-sided
        unmatched_a.discard(i)
        unmatched_b.discard(j)
        if max(a.scores[i], b.scores[j]) >= conf:
            score = abs(float(a.scores[i] - b.scores[j]))
            pairs.append((1 - iou, score, angle_difference(a.boxes[i], b.boxes[j])))
    counting_a, counting_b = _counting(a, unmatched_a, conf), _counting(b, unmatched_b, conf)
    only_a = [i for i in counting_a if not tied(a[[i]], file)]
    only_b = [j for j in counting_b if not tied(b[[j]], torch)]
    ties = len(counting_a) + len(counting_b) - len(only_a) - len(only_b)
    return ImageComparison(tuple(pairs), a[only_a], b[only_b], ties)


def _counting(detections: Detections, indices: set[int], conf: float) -> list[int]:
    """Return the indices whose score counts, in order."""
    return [i for i in sorted(indices) if detections.scores[i] >= conf]
