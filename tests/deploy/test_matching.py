"""Matching and near ties, on hand-made boxes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from shapely.geometry import Polygon

from ds2d2_yolo.deploy.matching import Margins, ModelOutputs, angle_difference, compare, match, near_tie, rotated_iou
from ds2d2_yolo.utils.detections import Detections, box_corners

MARGINS = Margins(iou=0.9, score=0.05, nms_iou=0.7)


def rows(*boxes: tuple[float, ...]) -> Detections:
    return Detections.from_rows(np.array(boxes, dtype=np.float64))


def box(
    x: float, score: float = 0.8, kind: float = 0, angle: float = 0.0, w: float = 20, h: float = 10
) -> tuple[float, ...]:
    return (x, 50, w, h, angle, score, kind)


def side(*boxes: tuple[float, ...]) -> ModelOutputs:
    return ModelOutputs(rows(*boxes), rows(*boxes))


def test_rotated_iou_of_a_square_and_its_eighth_turn() -> None:
    square = np.array([[5.0, 5, 2, 2, 0]])
    turned = np.array([[5.0, 5, 2, 2, math.pi / 4]])
    assert rotated_iou(square, turned) == pytest.approx(1 / math.sqrt(2))
    assert rotated_iou(square, square) == 1
    assert rotated_iou(square, square + np.eye(5)[:1] * 10) == 0
    assert rotated_iou(square, square * math.nan) == 0


def test_rotated_iou_is_shapelys() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        a, b = (np.array([*rng.uniform(0, 10, 2), *rng.uniform(0.5, 12, 2), rng.uniform(-4, 4)]) for _ in range(2))
        p, q = Polygon(box_corners(a[None])[0]), Polygon(box_corners(b[None])[0])
        assert rotated_iou(a[None], b[None])[0] == pytest.approx(p.intersection(q).area / p.union(q).area, abs=1e-9)
        assert rotated_iou(a[None], a[None] + 1e-9)[0] == pytest.approx(
            1, abs=1e-6
        )  # nearly identical ones do not explode


def test_matching_is_one_to_one_within_classes_and_the_nearest_first() -> None:
    a = rows(box(50), box(51), box(90, kind=1), box(150))
    b = rows(box(51), box(50.2), box(90, kind=2))
    assert [(i, j) for i, j, _ in match(a, b)] == [(1, 0), (0, 1)]
    assert [(i, j) for i, j, _ in match(rows(box(50), box(51)), rows(box(50.9)))] == [(1, 0)]
    assert match(rows(), b) == []
    twice = rows(box(50, 0.3), box(50, 0.8))
    assert sorted((i, j) for i, j, _ in match(twice, twice[::-1])) == [(0, 1), (1, 0)]  # equal boxes go by score


@pytest.mark.parametrize(
    ("first", "second", "difference"),
    [
        (box(0, angle=0.1), box(0, angle=0.3), 0.2),
        (box(0, angle=0.1), box(0, angle=0.1 + math.pi), 0),
        (box(0, angle=0.1), box(0, angle=0.1 + math.pi / 2, w=10, h=20), 0),
        (box(0, angle=-1.55), box(0, angle=1.55), math.pi - 3.1),
        (box(0, angle=0, w=10), box(0, angle=math.pi / 2, w=10), 0),
        (box(0, angle=0), box(0, angle=math.pi / 2), math.pi / 2),
    ],
)
def test_angles_are_modulo_half_a_turn_and_of_squares_a_quarter(
    first: tuple[float, ...], second: tuple[float, ...], difference: float
) -> None:
    assert angle_difference(np.array(first)[:5], np.array(second)[:5]) == pytest.approx(difference, abs=1e-12)


def test_a_detection_at_the_threshold_is_no_difference_and_a_missing_one_is() -> None:
    torch, file = side(box(20, 0.26), box(60), box(120, 0.26)), side(box(20, 0.24), box(60))
    comparison = compare(torch, file, 0.25, MARGINS)
    assert len(comparison.pairs) == 2
    assert comparison.only_torch.boxes[:, 0].tolist() == [120]
    assert len(comparison.only_file) == comparison.ties == 0
    comparison = compare(side(), side(box(20)), 0.25, MARGINS)
    assert len(comparison.only_file) == 1


def test_nms_that_keeps_another_of_a_crowd_is_a_near_tie() -> None:
    crowd = rows(box(50, 0.80), box(52, 0.79))  # IoU 0.82: NMS keeps one
    torch, file = ModelOutputs(crowd[:1], crowd), ModelOutputs(crowd[1:], crowd)
    comparison = compare(torch, file, 0.25, MARGINS)
    assert (comparison.pairs, len(comparison.only_torch), len(comparison.only_file), comparison.ties) == ((), 0, 0, 2)


def test_two_classes_that_tie_in_a_box_are_a_near_tie() -> None:
    both = rows(box(50, 0.50, kind=0), box(50, 0.49, kind=1))
    apart = rows(box(50, 0.50, kind=0), box(50, 0.30, kind=1))
    comparison = compare(ModelOutputs(both[:1], both), ModelOutputs(both[1:], both), 0.25, MARGINS)
    assert (len(comparison.only_torch), len(comparison.only_file), comparison.ties) == (0, 0, 2)
    comparison = compare(ModelOutputs(apart[:1], apart), ModelOutputs(both[1:], both), 0.25, MARGINS)
    assert (len(comparison.only_torch), len(comparison.only_file), comparison.ties) == (0, 1, 1)


def test_where_an_image_is_full_its_lowest_score_is_the_threshold() -> None:
    torch, file = side(box(20, 0.9), box(60, 0.51)), side(box(20, 0.9), box(120, 0.52))
    assert len(compare(torch, file, 0.25, MARGINS).only_torch) == 1
    comparison = compare(torch, file, 0.25, replace(MARGINS, max_det=2))
    assert (len(comparison.pairs), len(comparison.only_torch), len(comparison.only_file)) == (1, 0, 0)


def test_a_shifted_box_is_no_near_tie() -> None:
    torch = side(box(50, 0.80))
    comparison = compare(torch, side(box(53, 0.80)), 0.25, MARGINS)
    assert comparison.ties == 0
    assert comparison.pairs[0][0] == pytest.approx(1 - 17 / 23)
    comparison = compare(torch, side(box(70, 0.80)), 0.25, MARGINS)
    assert (len(comparison.only_torch), len(comparison.only_file), comparison.ties) == (1, 1, 0)


@pytest.mark.parametrize(
    ("score", "x", "tied"),
    [
        (0.79, 52, True),  # overlaps by more than NMS allows, the scores tie
        (0.40, 52, False),  # it loses clearly: NMS inside the file is missing
        (0.40, 53.6, True),  # IoU 0.695: at the edge of what NMS allows
        (0.79, 58, False),  # it does not overlap enough to be dropped
    ],
)
def test_near_ties_where_nms_is_inside_the_file(score: float, x: float, tied: bool) -> None:
    best, other = box(50, 0.80), box(x, score)
    torch = ModelOutputs(rows(best), rows(best, other))
    assert near_tie(rows(other), torch, torch, True, MARGINS) is tied
    best_only = ModelOutputs(rows(best), rows(best))
    assert not near_tie(rows(other), best_only, best_only, True, MARGINS)  # PyTorch never computed it
