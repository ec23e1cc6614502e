"""Which group objects and detections belong to."""

from __future__ import annotations

import numpy as np
import pytest

from ds2d2_yolo.evaluate import grouping
from ds2d2_yolo.evaluate.grouping import count_neighbours, groupings
from ds2d2_yolo.evaluate.options import ValOptions
from tests.helpers.scoring import Box, Image, matched_detections, random_images


def groups(boxes: list[Box], by: str, rotated: bool, **options: object) -> list[str]:
    """Group names of objects, each in an image of its own."""
    detections = matched_detections([Image([(0, b)], []) for b in boxes], rotated)
    split = next(s for s in groupings(detections, ValOptions(**options)) if s.by == by)
    return [split.names[i] for i in split.objects]


@pytest.mark.parametrize("rotated", [False, True])
def test_sizes_are_roots_of_the_boxs_own_area(rotated: bool) -> None:
    turned = (30.0,) if rotated else ()
    boxes = [
        (200.0, 200.0, *wh, *turned) for wh in ((15, 16), (16, 17), (64, 4.1), (31, 32), (33, 32), (90, 100), (97, 97))
    ]
    names = ["0-16", "16-32", "16-32", "16-32", "32-96", "32-96", "96+"]
    assert groups(boxes, "size", rotated) == names
    assert groups(boxes[:2], "size", rotated, size_edges=[8, 15.5]) == ["8-15.5", "15.5+"]


def test_an_edge_belongs_to_the_larger_group() -> None:
    sizes = np.array([[0, 0, 16, 16, 0], [0, 0, 96, 96, 0]], np.float32)
    assert np.digitize(grouping._size(sizes), (16, 32, 96)).tolist() == [1, 3]


@pytest.mark.parametrize(
    ("degrees", "name"),
    [(0, "0 deg"), (2, "0 deg"), (-2, "0 deg"), (178, "0 deg"), (22, "0 deg"), (23, "45 deg"), (67, "45 deg"),
     (68, "90 deg"), (90, "90 deg"), (112, "90 deg"), (113, "135 deg"), (157, "135 deg"), (158, "0 deg")],
)  # fmt: skip
def test_direction_is_that_of_the_long_side(degrees: float, name: str) -> None:
    centre = (200.0, 200.0)
    along = (*centre, 60.0, 20.0, float(degrees))
    across = (*centre, 20.0, 60.0, float(degrees) - 90)  # the same box, its sides named the other way round
    assert groups([along, across], "orientation", True) == [name, name]


def test_directions_are_clockwise_on_the_screen() -> None:
    # the corners of a box whose long side falls to the right: x and y (down) grow together
    import cv2
    from ultralytics.utils.ops import xyxyxyxy2xywhr

    corners = np.array([[100, 96], [160, 156], [156, 160], [96, 100]], np.float32)
    x, y, w, h, r = xyxyxyxy2xywhr(corners.reshape(1, 8))[0].tolist()
    assert groups([(x, y, w, h, float(np.rad2deg(r)))], "orientation", True) == ["45 deg"]
    assert cv2.contourArea(corners) == pytest.approx(w * h, rel=1e-3)


def test_squares_have_no_direction() -> None:
    boxes = [(200.0, 200.0, 23.9, 20.0, 45.0), (200.0, 200.0, 20.0, 23.9, 45.0), (200.0, 200.0, 24.1, 20.0, 45.0)]
    assert groups(boxes, "orientation", True) == ["square", "square", "45 deg"]
    assert groups(boxes[:1], "orientation", True, square=1) == ["45 deg"]
    assert groups(boxes[2:], "orientation", True, square=1.5, angle_bins=6) == ["square"]


def test_directions_can_be_finer() -> None:
    boxes = [(200.0, 200.0, 60.0, 20.0, float(a)) for a in (-14, 16, 44, 46, 90, 164, 166)]
    expected = ["0 deg", "30 deg", "30 deg", "60 deg", "90 deg", "150 deg", "0 deg"]
    assert groups(boxes, "orientation", True, angle_bins=6) == expected


def test_upright_boxes_have_an_aspect() -> None:
    boxes = [(200.0, 200.0, *wh) for wh in ((60, 20), (20, 60), (20, 23), (23, 20), (20, 20))]
    assert groups(boxes, "orientation", False) == ["wide", "tall", "square", "square", "square"]


@pytest.mark.parametrize("rotated", [False, True])
@pytest.mark.parametrize("unit", ["px", "size"])
@pytest.mark.parametrize("chunk", [1 << 20, 7])
def test_crowding_counts_what_a_slow_loop_counts(
    unit: str, rotated: bool, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grouping, "MAX_PAIRS", chunk)
    images = random_images(3, rotated, 6)
    detections = matched_detections(images, rotated)
    radius = 40.0 if unit == "px" else 1.5
    object_neighbours, detection_neighbours = count_neighbours(
        detections, ValOptions(crowd_radius=radius, crowd_unit=unit)
    )
    objects = list(zip(detections.object_image, detections.object_boxes, strict=True))

    def near(image: int, box: np.ndarray) -> set[int]:
        reach = radius * (np.sqrt(box[2] * box[3]) if unit == "size" else 1)
        return {k for k, (i, o) in enumerate(objects) if i == image and np.hypot(*(o[:2] - box[:2])) <= reach}

    assert object_neighbours.tolist() == [len(near(i, o) - {k}) for k, (i, o) in enumerate(objects)]
    assert len(set(object_neighbours.tolist())) > 2
    for n, (image, box) in enumerate(zip(detections.image, detections.boxes, strict=True)):
        inside = [k for k, (i, o) in enumerate(objects) if i == image and _holds(o, box[:2])]
        owner = min(inside, key=lambda k: np.hypot(*(objects[k][1][:2] - box[:2])), default=None)
        assert detection_neighbours[n] == (len(near(image, box)) if owner is None else object_neighbours[owner])


def _holds(box: np.ndarray, point: np.ndarray) -> bool:
    """Whether a rotated box holds a point, in the box's own frame."""
    turn = np.array([[np.cos(box[4]), np.sin(box[4])], [-np.sin(box[4]), np.cos(box[4])]])
    return bool((np.abs(turn @ (point - box[:2])) <= box[2:4] / 2).all())


def test_objects_of_other_images_are_no_neighbours() -> None:
    box = (200.0, 200.0, 20.0, 20.0)
    detections = matched_detections([Image([(0, box), (1, box)], []), Image([(0, box)], [])])
    assert count_neighbours(detections, ValOptions())[0].tolist() == [1, 1, 0]


def test_crowding_groups_are_named_by_their_numbers() -> None:
    detections = matched_detections([Image([(0, (200.0, 200.0, 20.0, 20.0))], [])])
    named = {s.by: s.names for s in groupings(detections, ValOptions(crowd_edges=[1, 2, 10]))}
    assert named["crowding"] == ("0", "1", "2-9", "10+")
