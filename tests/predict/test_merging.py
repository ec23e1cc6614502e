"""Merging at seams: every object once, none lost, no neighbours merged."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ds2d2_yolo.predict.merging import merge
from ds2d2_yolo.predict.tiles import starts, windows
from ds2d2_yolo.utils.detections import Detections, box_corners
from tests.helpers.tile_views import detections

WIDTH, HEIGHT = 700, 500


def boxes(rows: NDArray[np.float64]) -> NDArray[np.object_]:
    return np.asarray(shapely.polygons(box_corners(rows)))


def assert_same(rows: NDArray[np.float64], objects: NDArray[np.float64], least: float = 0.999) -> None:
    """Every object is found exactly once, and nothing else is."""
    assert len(rows) == len(objects)
    a, b = boxes(rows), boxes(objects)
    shared = shapely.area(shapely.intersection(a[:, None], b[None]))
    iou = shared / (shapely.area(a)[:, None] + shapely.area(b)[None] - shared)
    iou[rows[:, None, 6] != objects[None, :, 6]] = 0
    assert (iou.max(0) >= least).all()
    assert (iou.max(1) >= least).all()


def scattered(seed: int, longest: float, oriented: bool) -> NDArray[np.float64]:
    """Objects without overlap, their upright hulls of at most `longest` a side, close together."""
    rng = np.random.default_rng(seed)
    objects: list[list[float]] = []
    tree: list[shapely.Polygon] = []
    for _ in range(60):
        angle = rng.uniform(-np.pi / 4, 3 * np.pi / 4) if oriented else 0.0
        w, h = rng.uniform(4, 80, 2)
        c, s = abs(np.cos(angle)), abs(np.sin(angle))
        shrink = min(1.0, longest / (w * c + h * s), longest / (w * s + h * c))
        w, h = w * shrink, h * shrink
        half = np.array([w * c + h * s, w * s + h * c]) / 2
        x, y = rng.uniform(half, np.array([WIDTH, HEIGHT]) - half)
        row = [x, y, w, h, angle, 1.0, float(rng.integers(0, 3))]
        shape = shapely.Polygon(box_corners(np.array([row]))[0])
        if not any(shape.intersects(other) for other in tree):
            objects.append(row)
            tree.append(shape)
    return np.array(objects)


@given(size=st.integers(1, 3000), tile=st.integers(2, 700), share=st.floats(0, 0.9))
def test_tiles_cover_a_side_and_overlap_as_asked(size: int, tile: int, share: float) -> None:
    overlap = min(round(share * tile), tile - 1)
    tile_starts = starts(size, tile, overlap)
    assert tile_starts[0] == 0
    assert tile_starts[-1] == max(0, size - tile)
    steps = np.diff(tile_starts)
    assert (steps > 0).all()
    assert (steps <= tile - overlap).all()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6), tile=st.integers(130, 400), share=st.floats(0.2, 0.6), oriented=st.booleans(),
    least=st.sampled_from([0.01, 0.2, 0.5]),
)  # fmt: skip
def test_objects_that_fit_the_overlap_are_found_once(
    seed: int, tile: int, share: float, oriented: bool, least: float
) -> None:
    overlap = round(tile * share)
    objects = scattered(seed, overlap - 4, oriented)  # less the margin at both ends
    grid = windows(WIDTH, HEIGHT, tile, overlap)
    rows, tile_index = detections(objects, grid, seed, oriented=oriented, least=least)
    merged = merge(rows, tile_index, grid, (WIDTH, HEIGHT))
    assert_same(merged.detections.rows, objects)


@pytest.mark.parametrize("oriented", [True, False])
@pytest.mark.parametrize("seed", range(12))
def test_boxes_that_differ_between_tiles_are_one_object(seed: int, oriented: bool) -> None:
    objects = scattered(seed, 50, oriented)
    objects = objects[objects[:, 2:4].min(1) > 10]
    grid = windows(WIDTH, HEIGHT, 256, 80)
    rows, tile_index = detections(objects, grid, seed, oriented=oriented, least=0.2, jitter=0.6)
    merged = merge(rows, tile_index, grid, (WIDTH, HEIGHT))
    assert_same(merged.detections.rows, objects, 0.5)


@pytest.mark.parametrize("oriented", [True, False])
@pytest.mark.parametrize("shift", range(0, 200, 23))
def test_a_crowd_stays_a_crowd(oriented: bool, shift: int) -> None:
    """Parallel diagonal ships 18 px apart: their upright hulls share over half of their area."""
    ships = np.array([[100.0 + shift + 9 * i, 120 + 9 * i, 90, 14, -np.pi / 4, 1, 0] for i in range(20)])
    if not oriented:
        corners = box_corners(ships)
        low, high = corners.min(1), corners.max(1)
        ships[:, :5] = np.concatenate([(low + high) / 2, high - low, np.zeros((20, 1))], 1)
    grid = windows(WIDTH, HEIGHT, 200, 110)
    rows, tile_index = detections(ships, grid, shift, oriented=oriented)
    merged = merge(rows, tile_index, grid, (WIDTH, HEIGHT))
    assert_same(merged.detections.rows, ships)


@pytest.mark.parametrize("oriented", [True, False])
@pytest.mark.parametrize("angle", [0.0, 0.3, 0.8, np.pi / 2])
def test_an_object_longer_than_the_overlap_is_joined(oriented: bool, angle: float) -> None:
    objects = np.array([[350.0, 250, 330, 40, angle, 1, 2], [90, 80, 30, 20, 0.2, 1, 2]])
    if not oriented:
        low, high = box_corners(objects).min(1), box_corners(objects).max(1)
        objects[:, :5] = np.concatenate([(low + high) / 2, high - low, np.zeros((2, 1))], 1)
    grid = windows(WIDTH, HEIGHT, 200, 60)
    rows, tile_index = detections(objects, grid, 0, oriented=oriented)
    merged = merge(rows, tile_index, grid, (WIDTH, HEIGHT))
    assert_same(merged.detections.rows, objects, 0.85)
    assert merged.joined >= 2


GRID = windows(180, 100, 100, 20)  # two tiles: x from 0 to 100, and from 80 to 180


def row(x: float, y: float, w: float, h: float, score: float = 0.9, kind: int = 0, angle: float = 0.0) -> list[float]:
    return [x, y, w, h, angle, score, kind]


def merged_of(rows: list[list[float]], tile: list[int], **keys: bool) -> NDArray[np.float64]:
    detections = Detections.from_rows(np.array(rows))
    return merge(detections, np.array(tile), GRID, (180, 100), **keys).detections.rows  # type: ignore[arg-type]


def test_neighbours_that_one_tile_tells_apart_both_stay() -> None:
    first = [row(90, 50, 14, 8, 0.9), row(90, 53, 14, 8, 0.8)]  # IoU 0.45
    again = [row(90, 50, 14, 8, 0.7), row(90, 53, 14, 8, 0.85)]
    assert sorted(merged_of(first + again, [0, 0, 1, 1])[:, 5]) == [0.85, 0.9]


def test_boxes_closer_than_one_tile_would_leave_them_are_one() -> None:
    again = [row(90, 50, 14, 8, 0.7), row(90, 50.4, 14, 8, 0.85)]  # one tile's own suppression did not see it
    assert merged_of([row(90, 50, 14, 8, 0.9), *again], [0, 1, 1])[:, 5].tolist() == [0.9]


def test_two_classes_stay_two_unless_agnostic() -> None:
    rows = [row(90, 50, 14, 8, 0.9, 0), row(90, 50, 14, 8, 0.8, 1)]
    assert len(merged_of(rows, [0, 1])) == 2
    assert merged_of(rows, [0, 1], agnostic=True)[:, 6].tolist() == [0]


def test_a_cut_box_goes_whatever_its_score_and_class() -> None:
    full_box, cut_box = row(80, 50, 16, 8, 0.3, 0), row(84, 50, 8, 8, 0.95, 1)
    assert merged_of([full_box, cut_box], [0, 1]).tolist() == [full_box]


def test_a_cut_box_of_another_class_inside_a_large_object_stays() -> None:
    harbour, ship = row(55, 50, 80, 80, 0.9, 0), row(83, 50, 6, 4, 0.4, 1)
    assert len(merged_of([harbour, ship], [0, 1])) == 2
    same = row(83, 50, 6, 4, 0.4, 0)
    assert len(merged_of([harbour, same], [0, 1])) == 1


def test_a_cut_box_that_nothing_explains_stays() -> None:
    cut_box = row(84, 50, 8, 8, 0.6)
    assert merged_of([cut_box, row(30, 20, 9, 9)], [1, 0])[:, 0].tolist() == [30, 84]


def test_a_whole_view_beside_a_box_of_the_same_tile_does_not_explain_it() -> None:
    both = [row(90, 50, 8, 10, 0.9), row(83.5, 50, 7, 8, 0.8)]  # tile 1: an object and, at its border, another
    merged = merged_of([row(89, 50, 8, 10, 0.95), *both], [0, 1, 1])
    assert merged[:, 5].tolist() == [0.95, 0.8]


def test_nothing_gives_nothing() -> None:
    empty = merge(Detections.empty(), np.zeros(0, np.int64), GRID, (180, 100))
    assert empty.detections.rows.shape == (0, 7)


def test_corners_are_clockwise_in_the_picture() -> None:
    corners = box_corners(np.array([row(10, 20, 6, 2), row(10, 20, 6, 2, angle=np.pi / 2)]))
    assert corners[0].tolist() == [[7, 19], [13, 19], [13, 21], [7, 21]]
    np.testing.assert_allclose(corners[1], [[11, 17], [11, 23], [9, 23], [9, 17]], atol=1e-12)
