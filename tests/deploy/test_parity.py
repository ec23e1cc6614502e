"""The verdict over many images."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from ds2d2_yolo.deploy.matching import ImageComparison
from ds2d2_yolo.deploy.parity import TOLERANCES, ParityReport
from ds2d2_yolo.utils.detections import Detections

FP32 = TOLERANCES["FP32"]


def parity(*images: ImageComparison, tolerance: Any = FP32) -> ParityReport:
    settings = {"precision": "FP32", "tolerance": tolerance, "conf": 0.25, "source": "s", "setting": "x"}
    return ParityReport.of(images, ["a.png"] * len(images), True, **settings)


def image(*pairs: tuple[float, float, float], torch: int = 0, file: int = 0, ties: int = 0) -> ImageComparison:
    only_torch, only_file = (Detections.from_rows(np.ones((count, 7))) for count in (torch, file))
    return ImageComparison(pairs, only_torch, only_file, ties)


GOOD = (1e-4, 1e-4, 1e-4)


def test_equal_sides_hold() -> None:
    report = parity(image(GOOD, GOOD, ties=1), image())
    assert report.holds
    assert (report.matched, report.ties, report.images) == (2, 1, 2)
    assert "the check holds" in str(report)
    assert json.loads(json.dumps(report.as_dict()))["holds"] is True


@pytest.mark.parametrize(
    ("pair", "message"),
    [((0.02, 0, 0), "1 - IoU"), ((0, 0.003, 0), "score"), ((0, 0, 0.02), "angle"), ((math.nan, 0, 0), "1 - IoU nan")],
)
def test_one_pair_too_far_apart_fails(pair: tuple[float, float, float], message: str) -> None:
    report = parity(*[image(GOOD)] * 500, image(pair))
    assert len(report.wrong) == 1
    assert message in report.wrong[0]


@pytest.mark.parametrize("missing", [{"torch": 1}, {"file": 1}])
def test_one_missing_detection_fails_in_fp32(missing: dict[str, int]) -> None:
    report = parity(*[image(GOOD)] * 500, image(**missing))
    assert "one-sided" in report.wrong[0]
    assert parity(*[image(GOOD)] * 500, image(**missing), tolerance=TOLERANCES["FP16"]).holds
    assert report.listed[0]["only"] == {"torch": "PyTorch", "file": "file"}[next(iter(missing))]


def test_int8_is_judged_by_its_ninetieth_percentile() -> None:
    int8 = TOLERANCES["INT8"]
    assert parity(*[image(GOOD)] * 91, *[image((0.4, 0.4, 1.0))] * 9, tolerance=int8).holds
    assert len(parity(*[image(GOOD)] * 88, *[image((0.4, 0.4, 1.0))] * 12, tolerance=int8).wrong) == 3


def test_nothing_to_compare_proves_nothing() -> None:
    report = parity(image(), image())
    assert not report.holds
    assert "no detections" in report.wrong[0]


def test_nothing_to_compare_is_inconclusive_and_no_failure() -> None:
    report = parity(image(), image())
    assert report.inconclusive
    assert not report.failed
    assert "the check is inconclusive: no detections of score 0.25 and more to compare: name images" in str(report)
    assert "FAILED" not in str(report)
    assert json.loads(json.dumps(report.as_dict()))["inconclusive"] is True


def test_one_missing_detection_is_a_failure_and_not_inconclusive() -> None:
    report = parity(image(torch=1), image())
    assert report.failed
    assert not report.inconclusive
