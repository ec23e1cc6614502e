"""Average precision of groups: hand-made cases, and what must hold for any."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ds2d2_yolo.evaluate.metrics import GroupMetrics, measure_groups
from ds2d2_yolo.evaluate.options import ValOptions
from tests.helpers.scoring import Image, matched_detections, random_images, validator_of

PERFECT = 0.995  # what Ultralytics' interpolation gives when everything is found and nothing else
SMALL, LARGE = (100.0, 100.0, 10.0, 10.0), (300.0, 300.0, 60.0, 60.0)
OPTIONS = ValOptions()
BOTH = pytest.mark.parametrize("rotated", [False, True], ids=["detect", "obb"])


def rows(
    images: list[Image], rotated: bool = False, options: ValOptions = OPTIONS
) -> dict[tuple[str, str], GroupMetrics]:
    return {(r.by, r.group): r for r in measure_groups(matched_detections(images, rotated), options)}


def sizes(images: list[Image], rotated: bool = False) -> tuple[float, float]:
    """mAP50 of the small and of the large group."""
    metrics = rows(images, rotated)
    return metrics["size", "0-16"].map50, metrics["size", "32-96"].map50


@BOTH
@pytest.mark.parametrize("seed", range(4))
def test_the_whole_and_the_classes_are_ultralytics_own_to_the_digit(seed: int, rotated: bool) -> None:
    validator = validator_of(random_images(seed, rotated), rotated)
    validator.get_stats()
    box = validator.metrics.box
    metrics = {(r.by, r.group): r for r in measure_groups(validator.detections, OPTIONS)}
    overall = metrics["all", "all"]
    assert (overall.map50, overall.map50_95) == (box.map50, box.map)
    assert 0.1 < overall.map50_95 < 0.9
    assert overall.objects == validator.metrics.nt_per_class.sum()
    for i, index in enumerate(box.ap_class_index):
        row = metrics["class", f"class{index}"]
        assert (row.map50, row.map50_95) == box.class_result(i)[2:]
        assert (row.objects, row.images) == (
            validator.metrics.nt_per_class[index], validator.metrics.nt_per_image[index]
        )  # fmt: skip


def test_classes_of_one_name_are_told_apart() -> None:
    detections = matched_detections(random_images(0, False), False)
    names = {index: "other" if index < 2 else f"class{index}" for index in detections.names}
    groups = [r.group for r in measure_groups(dataclasses.replace(detections, names=names), OPTIONS) if r.by == "class"]
    assert groups[:2] == ["other (0)", "other (1)"]
    assert groups[2:] == list(names.values())[2:]


def test_equal_confidences_do_not_part_us_from_ultralytics() -> None:
    images = random_images(0, False, 40)
    for image in images:
        image.detections = [(c, round(conf, 1), b) for c, conf, b in image.detections]
    validator = validator_of(images)
    validator.get_stats()
    overall = measure_groups(validator.detections, OPTIONS)[0]
    assert (overall.map50, overall.map50_95) == (validator.metrics.box.map50, validator.metrics.box.map)


@BOTH
@pytest.mark.parametrize("seed", range(3))
def test_a_group_of_everything_is_the_whole(seed: int, rotated: bool) -> None:
    metrics = rows(
        random_images(seed, rotated), rotated,
        ValOptions(size_edges=[1e6], crowd_edges=[1000], square=1e6),
    )  # fmt: skip
    for name in (("size", "0-1e+06"), ("crowding", "0-999"), ("orientation", "square")):
        assert dataclasses.astuple(metrics[name])[3:] == dataclasses.astuple(metrics["all", "all"])[3:]


@BOTH
@pytest.mark.parametrize("seed", range(3))
def test_groups_add_up(seed: int, rotated: bool) -> None:
    metrics = rows(random_images(seed, rotated), rotated)
    overall = metrics["all", "all"]
    for by in ("size", "crowding", "orientation", "class"):
        parts = [r for r in metrics.values() if r.by == by and r.objects]
        assert sum(r.objects for r in parts) == overall.objects
        assert sum(r.objects * r.recall for r in parts) == pytest.approx(overall.objects * overall.recall)


@BOTH
def test_the_order_of_images_and_detections_changes_nothing(rotated: bool) -> None:
    images = random_images(5, rotated)
    before = rows(images, rotated)
    for image in images:
        image.detections.reverse()
    after = rows(images[::-1], rotated)
    for key, row in before.items():
        assert dataclasses.astuple(after[key])[2:] == pytest.approx(dataclasses.astuple(row)[2:], nan_ok=True)


@BOTH
def test_perfect_detections_are_perfect_in_every_group(rotated: bool) -> None:
    images = random_images(2, rotated, apart=True)
    for image in images:
        image.detections = [(c, 0.9, b) for c, b in image.objects]
    for row in rows(images, rotated).values():
        if row.objects:
            assert (row.map50, row.map50_95, row.recall) == pytest.approx((PERFECT, PERFECT, 1))
        else:
            assert np.isnan([row.map50, row.map50_95, row.recall]).all()


@BOTH
@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize("large", [True, False])
def test_a_missed_object_counts_in_its_own_group_only(small: bool, large: bool, rotated: bool) -> None:
    detections = [(0, 0.9, SMALL)] * small + [(0, 0.8, LARGE)] * large
    map50 = sizes([Image([(0, SMALL), (0, LARGE)], detections)], rotated)
    assert map50 == pytest.approx((PERFECT * small, PERFECT * large))


@BOTH
def test_a_false_alarm_counts_in_the_group_of_its_own_size_only(rotated: bool) -> None:
    objects, detections = [(0, SMALL), (0, LARGE)], [(0, 0.5, SMALL), (0, 0.5, LARGE)]
    small, large = sizes([Image(objects, [*detections, (0, 0.9, (400.0, 100.0, 12.0, 12.0))])], rotated)
    assert large == pytest.approx(PERFECT)
    assert small == pytest.approx(PERFECT / 2, abs=0.01)
    small, large = sizes([Image(objects, [*detections, (0, 0.9, (400.0, 100.0, 50.0, 50.0))])], rotated)
    assert small == pytest.approx(PERFECT)
    assert large == pytest.approx(PERFECT / 2, abs=0.01)


@BOTH
def test_a_second_detection_of_an_object_is_wrong_in_its_group(rotated: bool) -> None:
    detections = [
        (0, 0.9, LARGE),
        (0, 0.8, (301.0, 300.0, 60.0, 60.0)),
        (0, 0.7, (200.0, 100.0, 60.0, 60.0)),
        (0, 0.1, SMALL),
    ]
    objects = [(0, SMALL), (0, LARGE), (0, (200.0, 100.0, 60.0, 60.0))]
    small, large = sizes([Image(objects, detections)], rotated)
    assert small == pytest.approx(PERFECT)
    # right, wrong, right: precision 1 up to half of the objects, then 2/3
    assert 0.8 < large < 0.86


def test_what_matches_a_threshold_only_is_wrong_above_it() -> None:
    # IoU 47 / 60 = 0.78: right at 0.5 to 0.75, wrong at 0.8 to 0.95, at which the object is missed
    group = rows([Image([(0, LARGE)], [(0, 0.9, (300.0, 300.0, 47.0, 60.0))])])["size", "32-96"]
    assert group.map50 == pytest.approx(PERFECT)
    assert group.map50_95 == pytest.approx(PERFECT * 0.6)


def test_a_detection_of_another_size_that_found_an_object_is_in_the_objects_group() -> None:
    # a box of 29 px on an object of 33 px: its own group (16-32) has other objects and must not see it as wrong
    objects = [(0, (300.0, 300.0, 33.0, 33.0)), (0, (100.0, 100.0, 20.0, 20.0))]
    detections = [(0, 0.9, (300.0, 300.0, 29.0, 29.0)), (0, 0.8, (100.0, 100.0, 20.0, 20.0))]
    metrics = rows([Image(objects, detections)])
    assert metrics["size", "32-96"].map50 == pytest.approx(PERFECT)
    assert metrics["size", "16-32"].map50 == pytest.approx(PERFECT)
    # where it is too far off to match, it is wrong in its own group
    assert metrics["size", "32-96"].map50_95 < 0.8
    assert metrics["size", "16-32"].map50_95 < 0.9


def test_a_crowd_with_one_missed_and_a_lone_object_are_apart() -> None:
    crowd = [(0, (100.0 + 12 * i, 100.0, 10.0, 10.0)) for i in range(6)]
    lone = (0, (400.0, 400.0, 10.0, 10.0))
    detections = [(c, 0.9 - i / 100, b) for i, (c, b) in enumerate([*crowd[1:], lone])]
    metrics = rows([Image([*crowd, lone], detections)], options=ValOptions(crowd_radius=100, crowd_unit="px"))
    assert metrics["crowding", "5+"].objects == 6
    assert metrics["crowding", "5+"].recall == pytest.approx(5 / 6)
    assert metrics["crowding", "0"].map50 == pytest.approx(PERFECT)
    assert metrics["crowding", "1-4"].objects == 0
    # a false alarm lowers the group of where it is: badly placed on the lone object, then on empty ground
    for box in ((404.0, 400.0, 10.0, 10.0), (250.0, 400.0, 10.0, 10.0)):
        images = [Image([*crowd, lone], [*detections, (0, 0.99, box)])]
        with_false_alarm = rows(images, options=ValOptions(crowd_radius=100, crowd_unit="px"))
        assert with_false_alarm["crowding", "0"].map50 < 0.6
        assert with_false_alarm["crowding", "5+"] == metrics["crowding", "5+"]


def test_a_class_without_objects_in_a_group_is_no_part_of_its_mean() -> None:
    objects = [(0, SMALL), (1, LARGE)]
    metrics = rows([Image(objects, [(0, 0.9, SMALL), (1, 0.2, SMALL)])])
    assert metrics["size", "0-16"].map50 == pytest.approx(PERFECT)  # class 1 has a false alarm there, and no object
    assert metrics["size", "32-96"].map50 == 0
    assert metrics["all", "all"].map50 == pytest.approx(PERFECT / 2)


@BOTH
def test_images_without_objects_or_detections_are_fine(rotated: bool) -> None:
    empty = [Image([], []), Image([], [(0, 0.3, SMALL)]), Image([(0, LARGE)], [])]
    metrics = rows(empty, rotated)
    assert (metrics["all", "all"].images, metrics["all", "all"].objects) == (3, 1)
    assert metrics["size", "32-96"].map50 == 0
    assert np.isnan(metrics["size", "0-16"].map50)
    nothing = rows([Image([], [])], rotated)
    assert all(np.isnan(r.map50) and r.objects == 0 for r in nothing.values())
