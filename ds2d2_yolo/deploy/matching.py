"""Detections of two sides matched one to one, and how far the pairs lie apart.

Detections are rows of seven numbers: centre x, y, width, height (pixels), angle (radians), score, class. Upright boxes
have the angle 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import from_numpy as torch_from

from ds2d2_yolo.core.iou import probiou

F64 = NDArray[np.float64]
Point = tuple[float, float]

PAIR_IOU = 0.5  # boxes that overlap less are not the same object
SQUARE = 1.1  # a box whose sides differ by less has no long side: its angle counts modulo a quarter turn
SCORE, CLASS = 5, 6


@dataclass(frozen=True)
class Side:
    """What one side says of one image.

    Attributes:
        kept (F64): Its detections, N x 7.
        raw (F64 | None): Everything it predicts before NMS, M x 7, a row for each box and class; None where the file
            holds the NMS itself. A head without NMS has its detections here too.
    """

    kept: F64
    raw: F64 | None


@dataclass(frozen=True)
class Margins:
    """When two detections are the same up to the rounding of a precision, and where NMS cuts.

    Attributes:
        iou (float): Least IoU.
        score (float): Largest difference of the score.
        nms_iou (float): IoU above which NMS drops the lower score.
        max_det (int): Most detections of an image.
    """

    iou: float
    score: float
    nms_iou: float
    max_det: int = 300


def corners(box: F64) -> list[Point]:
    """Return the four corners of a box, in turning order."""
    x, y, w, h, angle = (float(v) for v in box[:5])
    cos, sin = np.cos(angle) / 2, np.sin(angle) / 2
    ux, uy, vx, vy = w * cos, w * sin, -h * sin, h * cos
    return [(x + a * ux + b * vx, y + a * uy + b * vy) for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))]


def rotated_iou(a: F64, b: F64) -> float:
    """Return the exact IoU of two rotated rectangles: one is cut along the four sides of the other.

    Args:
        a (F64): Box, 5 or more numbers: x, y, w, h, angle.
        b (F64): The other one.

    Returns:
        (float): 0 to 1; 0 where a box has no area or is not finite.
    """
    if not (np.isfinite(a[:5]).all() and np.isfinite(b[:5]).all()):
        return 0.0
    shape, frame = corners(a), corners(b)
    for (ax, ay), (bx, by) in zip(frame, frame[1:] + frame[:1], strict=True):
        side = [(bx - ax) * (y - ay) - (by - ay) * (x - ax) for x, y in shape]
        cut: list[Point] = []
        for k, (point, s) in enumerate(zip(shape, side, strict=True)):
            before, r = shape[k - 1], side[k - 1]
            if (s >= 0) != (r >= 0):
                t = r / (r - s)
                cut.append((before[0] + t * (point[0] - before[0]), before[1] + t * (point[1] - before[1])))
            if s >= 0:
                cut.append(point)
        shape = cut
    common = abs(sum(shape[k - 1][0] * y - x * shape[k - 1][1] for k, (x, y) in enumerate(shape))) / 2
    union = float(a[2] * a[3] + b[2] * b[3]) - common
    return min(common / union, 1.0) if union > 0 else 0.0


def overlaps(a: F64, b: F64) -> F64:
    """Return the IoU of each detection of one side with each of the other that has its class, 0 for other classes.

    Args:
        a (F64): N x 7.
        b (F64): M x 7.

    Returns:
        (F64): N x M, of the rectangles themselves: rotated where a box has an angle.
    """
    (low_a, high_a), (low_b, high_b) = _hulls(a), _hulls(b)
    shared = (np.minimum(high_a[:, None], high_b) - np.maximum(low_a[:, None], low_b)).clip(0)
    common = np.where(a[:, None, CLASS] == b[None, :, CLASS], shared.prod(2), 0.0)
    if not (a[:, 4].any() or b[:, 4].any()):
        union = (a[:, 2] * a[:, 3])[:, None] + (b[:, 2] * b[:, 3]) - common
        return np.where(common > 0, common / np.maximum(union, 1e-12), 0.0)
    found = np.zeros((len(a), len(b)))
    for i, j in np.argwhere(common > 0):
        found[i, j] = rotated_iou(a[i], b[j])
    return found


def _hulls(rows: F64) -> tuple[F64, F64]:
    """Return the low and high corner (N x 2) of the upright box around each detection."""
    cos, sin = np.abs(np.cos(rows[:, 4])), np.abs(np.sin(rows[:, 4]))
    half = np.stack((rows[:, 2] * cos + rows[:, 3] * sin, rows[:, 2] * sin + rows[:, 3] * cos), 1) / 2
    return rows[:, :2] - half, rows[:, :2] + half


def match(a: F64, b: F64) -> list[tuple[int, int, float]]:
    """Match the detections of two sides one to one within their classes, the largest IoU first.

    Args:
        a (F64): N x 7.
        b (F64): M x 7.

    Returns:
        (list[tuple[int, int, float]]): Index in `a`, index in `b` and IoU of each pair; of equal IoUs (to 1e-6) the
            nearest scores go first. Boxes that overlap by less than `PAIR_IOU` are never paired.
    """
    iou = overlaps(a, b)
    pairs = np.argwhere(iou >= PAIR_IOU)
    apart = np.abs(a[pairs[:, 0], SCORE] - b[pairs[:, 1], SCORE])
    order = np.lexsort((apart, -iou[pairs[:, 0], pairs[:, 1]].round(6)))
    taken_a, taken_b, found = set(), set(), []
    for i, j in pairs[order].tolist():
        if i not in taken_a and j not in taken_b:
            taken_a.add(i)
            taken_b.add(j)
            found.append((i, j, float(iou[i, j])))
    return found


def angle_apart(a: F64, b: F64) -> float:
    """Return the difference of two boxes' directions in radians.

    A box's direction is that of its long side, modulo half a turn, so width and height may be exchanged; where either
    box is nearly a square (sides within 10 %), it is modulo a quarter turn.

    Args:
        a (F64): Box, 5 or more numbers.
        b (F64): The other one.

    Returns:
        (float): 0 to pi / 2, for squares to pi / 4.
    """
    square = any(max(box[2:4]) < SQUARE * min(box[2:4]) for box in (a, b))
    turn = np.pi / 2 if square else np.pi
    direction = [float(box[4]) + (np.pi / 2 if box[3] > box[2] else 0.0) for box in (a, b)]
    apart = (direction[0] - direction[1]) % turn
    return float(min(apart, turn - apart))


def holds(rows: F64 | None, detection: F64, margins: Margins) -> bool:
    """Return whether predictions hold a detection: one of its class, within both margins."""
    if rows is None:
        return False
    near = rows[(rows[:, CLASS] == detection[CLASS]) & (np.abs(rows[:, SCORE] - detection[SCORE]) <= margins.score)]
    return bool((overlaps(detection[None], near) >= margins.iou).any()) if len(near) else False


def near_tie(detection: F64, lacking: Side, torch: Side, inside: bool, margins: Margins) -> bool:
    """Return whether one side lacks a detection of the other only because candidates or classes nearly tied.

    Where NMS is the same code for both sides, the side that lacks it must hold box, class and score within the margins
    before NMS: then they were computed, and another box or another class of the box went before. Where NMS is inside
    the file, PyTorch must hold it before NMS, and the side that lacks it must keep a box that PyTorch holds too and
    that ties with it: the overlap is within the margin of what NMS allows, or above it while the scores differ by no
    more than their margin.

    Args:
        detection (F64): Row of one side.
        lacking (Side): The side that lacks it.
        torch (Side): PyTorch's side.
        inside (bool): Whether NMS is inside the exported file.
        margins (Margins): What rounding explains.

    Returns:
        (bool): Whether it is explained so.
    """
    if not inside:
        return holds(lacking.raw, detection, margins)
    if not holds(torch.raw, detection, margins):
        return False
    iou = nms_overlap(detection, lacking.kept)
    edge = np.abs(iou - margins.nms_iou) <= 1 - margins.iou
    tied = (iou > margins.nms_iou) & (np.abs(lacking.kept[:, SCORE] - detection[SCORE]) <= margins.score)
    same = lacking.kept[:, CLASS] == detection[CLASS]
    return any(holds(torch.raw, box, margins) for box in lacking.kept[same & (edge | tied)])


def nms_overlap(detection: F64, rows: F64) -> F64:
    """Return the overlap that NMS looks at: of upright boxes IoU, of rotated ones ProbIoU."""
    if not (detection[4] or rows[:, 4].any()):
        upright: F64 = overlaps(detection[None], rows)[0]
        return upright
    first = torch_from(detection[None, :5]).expand(len(rows), 5)
    found: F64 = probiou(first, torch_from(rows[:, :5])).numpy()
    return found


@dataclass(frozen=True)
class Compared:
    """One image, compared.

    Attributes:
        pairs (tuple[tuple[float, float, float], ...]): 1 - IoU, score difference and angle difference of each pair.
        only_torch (F64): Detections that only PyTorch has.
        only_file (F64): Detections that only the exported file has.
        ties (int): Detections of one side that a near tie explains.
    """

    pairs: tuple[tuple[float, float, float], ...]
    only_torch: F64
    only_file: F64
    ties: int


def compare(torch: Side, file: Side, conf: float, margins: Margins) -> Compared:
    """Compare what PyTorch and an exported file find in one image.

    Detections of `conf` and more count. Their partners are looked for among all that the other side kept, which reaches
    down to `conf` less the margin of the score: a detection that falls just below the threshold on one side has a
    partner there, and one that has none is missing. In an image with as many detections as there may be, the lowest of
    them takes the place of the threshold.

    Args:
        torch (Side): PyTorch's side.
        file (Side): The exported file's side.
        conf (float): Score from which a detection counts.
        margins (Margins): What rounding explains.

    Returns:
        (Compared): Pairs, one-sided detections and explained ones.
    """
    a, b = torch.kept, file.kept
    conf = max([conf, *(float(k[:, SCORE].min()) + margins.score for k in (a, b) if len(k) >= margins.max_det)])
    found, matched = [], match(a, b)
    alone_a, alone_b = set(range(len(a))), set(range(len(b)))
    inside = file.raw is None
    for i, j, iou in matched:
        if (
            iou < margins.iou
            and near_tie(a[i], file, torch, inside, margins)
            and near_tie(b[j], torch, torch, inside, margins)
        ):
            continue  # NMS kept another box of the crowd on each side: both are looked at alone
        alone_a.discard(i)
        alone_b.discard(j)
        if max(a[i, SCORE], b[j, SCORE]) >= conf:
            found.append((1 - iou, abs(float(a[i, SCORE] - b[j, SCORE])), angle_apart(a[i], b[j])))
    left_a, left_b = _counting(a, alone_a, conf), _counting(b, alone_b, conf)
    only_a = [row for row in left_a if not near_tie(row, file, torch, inside, margins)]
    only_b = [row for row in left_b if not near_tie(row, torch, torch, inside, margins)]
    ties = len(left_a) + len(left_b) - len(only_a) - len(only_b)
    return Compared(tuple(found), _stack(only_a), _stack(only_b), ties)


def _counting(rows: F64, which: set[int], conf: float) -> list[F64]:
    """Return the rows among `which` whose score counts."""
    return [rows[i] for i in sorted(which) if rows[i, SCORE] >= conf]


def _stack(rows: Sequence[F64]) -> F64:
    """Return rows as one array."""
    return np.stack(rows) if rows else np.zeros((0, 7))
