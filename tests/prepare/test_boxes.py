from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import Polygon, box

from ds2d2_yolo.prepare.boxes import DEGENERATE, OUTSIDE, assign_classes, class_key, fit, label_line
from ds2d2_yolo.prepare.records import Box


def rectangle(cx: float, cy: float, w: float, h: float, degrees: float) -> np.ndarray:
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return np.array([[-w, -h], [w, -h], [w, h], [-w, h]]) / 2 @ turn + [cx, cy]


def test_a_box_inside_keeps_its_corners_to_the_bit() -> None:
    corners = rectangle(50, 40, 30, 10, 33)
    assert fit(corners, 100, 80, True) is corners
    skewed = np.array([[1.0, 2], [30, 5], [28, 20], [3, 18]])  # a hand-drawn outline is no rectangle
    assert fit(skewed, 100, 80, True) is skewed


@pytest.mark.parametrize("oriented", [True, False])
def test_an_upright_box_is_clipped_either_way(oriented: bool) -> None:
    corners = np.array([[-20.0, 10], [30, 10], [30, 30], [-20, 30]])
    expected = [[0, 10], [30, 10], [30, 30], [0, 30]]
    np.testing.assert_allclose(fit(corners, 100, 80, oriented), expected, atol=1e-9)


def test_the_published_order_stays_where_a_box_is_cut() -> None:
    corners = np.array([[30.0, 30], [-20, 30], [-20, 10], [30, 10]])  # bottom right first
    np.testing.assert_allclose(fit(corners, 100, 80, True), [[30, 30], [0, 30], [0, 10], [30, 10]], atol=1e-4)
    np.testing.assert_allclose(fit(corners[::-1], 100, 80, True), [[30, 10], [0, 10], [0, 30], [30, 30]], atol=1e-4)


def test_a_slanted_box_is_cut_along_its_own_sides() -> None:
    """A bar at 45 degrees, half out on the right: the cut end is across the bar, not along the border."""
    half = 10 / 2**0.5  # the bar is 10 wide
    corners = rectangle(100, 60, 100 * 2**0.5, 10, 45)
    start, end = corners[[3, 0]], corners[[1, 2]]
    assert (end[:, 0] > 140).all()
    # its lower side leaves at y = 60 + half; the end stands there across, and its other corner moves in to x = 100
    expected = [start[1], [100, 60], [100, 60 + half], start[0]]
    np.testing.assert_allclose(fit(corners, 100, 200, True), expected, atol=1e-4)


@pytest.mark.parametrize("oriented", [True, False])
@pytest.mark.parametrize(
    ("corners", "reason"),
    [
        ([[10, 10], [10, 10], [10, 10], [10, 10]], DEGENERATE),
        ([[10, 10], [30, 10], [30, 10], [10, 10]], DEGENERATE),
        ([[10, 10], [30, 10], [30, 10.05], [10, 10.05]], DEGENERATE),
        ([[200, 10], [220, 10], [220, 30], [200, 30]], OUTSIDE),
        ([[-20, 10], [0.05, 10], [0.05, 30], [-20, 30]], OUTSIDE),
        ([[-20, 10], [0, 10], [0, 30], [-20, 30]], OUTSIDE),
    ],
)
def test_what_is_no_box(corners: list[list[float]], reason: str, oriented: bool) -> None:
    assert fit(np.array(corners, dtype=float), 100, 80, oriented) == reason


def test_a_reversed_horizontal_box_is_degenerate() -> None:
    assert fit(np.array([[30.0, 10], [10, 10], [10, 30], [30, 30]]), 100, 80, False) == DEGENERATE


@given(
    st.floats(-60, 160), st.floats(-60, 140), st.floats(0.5, 150), st.floats(0.5, 150), st.floats(0, 180),
)  # fmt: skip
def test_what_is_left_lies_inside_and_holds_what_is_visible(cx: float, cy: float, w: float, h: float, d: float) -> None:
    corners = rectangle(cx, cy, w, h, d)
    visible = Polygon(corners).intersection(box(0, 0, 100, 80))
    fitted = fit(corners, 100, 80, True)
    if isinstance(fitted, str):
        assert visible.area < 0.1 * 160  # thinner than a tenth of a pixel, however long
        return
    assert (fitted >= 0).all()
    assert (fitted <= [100, 80]).all()
    # what Ultralytics trains on is the smallest rectangle around the corners
    trained = Polygon(cv2.boxPoints(cv2.minAreaRect(fitted.astype(np.float32))))
    assert trained.area <= w * h * 1.01 + 0.1
    # corners that stuck out at a slant were moved in, which can cost some of it and never most
    assert trained.intersection(visible).area >= 0.5 * visible.area - 0.1


def test_label_lines() -> None:
    corners = np.array([[10.0, 20], [50, 20], [50, 60], [10, 60]])
    assert label_line(3, corners, 100, 80, True) == (
        "3 0.100000 0.250000 0.500000 0.250000 0.500000 0.750000 0.100000 0.750000"
    )
    assert label_line(3, corners, 100, 80, False) == "3 0.300000 0.500000 0.400000 0.500000"


def test_class_names_match_whatever_case_and_hyphens() -> None:
    assert class_key("Expressway-Service-area") == class_key("expressway service AREA")
    assert class_key("OtherVehicle") == class_key("other vehicle")
    assert class_key("golffield") != class_key("golf course")


def test_reasons_before_the_place_is_looked_at() -> None:
    square = rectangle(20, 20, 10, 10, 0)
    names = [("plane", False), ("Plane", False), ("plane", True), ("crane", False), ("DontCare", False)]
    boxes = [Box(str(i), name, square + 30 * (i == 2), hard) for i, (name, hard) in enumerate(names)]
    assigned, dropped = assign_classes(boxes, {"plane": 0}, ("dontcare",), True)
    assert [(b.place, i) for b, i in assigned] == [("0", 0)]
    assert [(b.place, why) for b, why in dropped] == [
        ("1", "duplicate"), ("2", "difficult"), ("3", "unknown class"), ("4", "published without a class"),
    ]  # fmt: skip
    assert [b.place for b, _ in assign_classes(boxes, {"plane": 0}, (), False)[0]] == ["0", "2"]
