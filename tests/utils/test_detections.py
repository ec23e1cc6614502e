"""The type of detections: checks, selection, concatenation, corners."""

from __future__ import annotations

import numpy as np
import pytest

from ds2d2_yolo.utils.detections import Detections, box_corners

ROWS = np.array([[10.0, 20, 6, 2, 0.0, 0.9, 1], [30, 40, 8, 4, np.pi / 2, 0.5, 0], [5, 5, 2, 2, 0.1, 0.7, 2]])


@pytest.mark.parametrize(
    ("boxes", "scores", "classes", "reason"),
    [
        (np.zeros((2, 4)), np.zeros(2), np.zeros(2, np.int64), r"boxes must be \(N, 5\), not \(2, 4\)"),
        (np.zeros(5), np.zeros(1), np.zeros(1, np.int64), r"boxes must be \(N, 5\)"),
        (np.zeros((2, 5)), np.zeros(3), np.zeros(2, np.int64), r"2 boxes, scores of shape \(3,\)"),
        (np.zeros((2, 5)), np.zeros(2), np.zeros((2, 1), np.int64), r"classes \(2, 1\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(
    boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        Detections(boxes, scores, classes)


def test_rows_round_trip() -> None:
    detections = Detections.from_rows(ROWS, oriented=False)
    np.testing.assert_array_equal(detections.rows, ROWS)
    assert detections.classes.tolist() == [1, 0, 2]
    assert not detections.oriented


@pytest.mark.parametrize("index", [slice(1, None), [1, 2], np.array([False, True, True]), np.array([1, 2])])
def test_selection_keeps_lengths_and_orientation(index: slice) -> None:
    detections = Detections.from_rows(ROWS, oriented=False)[index]
    np.testing.assert_array_equal(detections.rows, ROWS[1:])
    assert not detections.oriented


def test_an_empty_selection() -> None:
    nothing = Detections.from_rows(ROWS)[[]]
    assert len(nothing) == 0
    assert nothing.rows.shape == (0, 7)
    assert nothing.corners.shape == (0, 4, 2)


def test_concatenation() -> None:
    detections = Detections.from_rows(ROWS)
    joined = Detections.concatenate([detections[:1], Detections.empty(), detections[1:]])
    np.testing.assert_array_equal(joined.rows, ROWS)
    assert len(Detections.concatenate([], oriented=False)) == 0
    assert not Detections.concatenate([], oriented=False).oriented


def test_a_shift_moves_centres_only() -> None:
    moved = Detections.from_rows(ROWS).shifted(100, -3)
    np.testing.assert_array_equal(moved.rows - ROWS, [[100, -3, 0, 0, 0, 0, 0]] * 3)
    np.testing.assert_array_equal(moved.areas, [12, 32, 4])


def test_corners_are_clockwise_in_the_picture() -> None:
    corners = box_corners(np.array([[10, 20, 6, 2, 0.0], [10, 20, 6, 2, np.pi / 2]]))
    assert corners[0].tolist() == [[7, 19], [13, 19], [13, 21], [7, 21]]
    np.testing.assert_allclose(corners[1], [[11, 17], [11, 23], [9, 23], [9, 17]], atol=1e-12)
