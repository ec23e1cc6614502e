"""What is measured does not hang on how long Ultralytics' suppression takes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
from ultralytics import YOLO
from ultralytics.data.utils import check_det_dataset
from ultralytics.utils import nms

from ds2d2_yolo.bridge.classes import class_names, match_classes
from ds2d2_yolo.bridge.teacher import load_teacher
from ds2d2_yolo.bridge.teacher_check import teacher_map
from ds2d2_yolo.bridge.validating import validate

from .taught import CONF, SIZE, write_taught
from .test_teacher_check import settings

KEYS = {"imgsz": SIZE, "batch": 4, "conf": CONF, "device": "cpu", "plots": False, "verbose": False}


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Make a clock by which every image takes 100 seconds in suppression."""

    def start() -> None:
        monkeypatch.setattr(nms, "time", SimpleNamespace(time=count(step=100.0).__next__))

    return start


@pytest.mark.parametrize("task", ["detect", "obb"])
def test_no_image_of_a_slow_batch_goes_without_detections(task: str, tmp_path: Path, slow: Callable[[], None]) -> None:
    teacher, data = write_taught(tmp_path, task)
    loaded, checked = load_teacher(str(teacher), task), check_det_dataset(data)
    classes, args = match_classes(loaded.names, class_names(checked["names"])), settings(task, data)

    def measured() -> tuple[float, float]:
        return teacher_map(loaded, checked, args, classes)

    def evaluated(name: str) -> tuple[float, int]:
        done = validate(str(teacher), str(data), save_dir=str(tmp_path / name), **KEYS)
        return float(done.metrics.box.map), len(done.found.image)

    quick = measured(), evaluated("quick")
    assert quick[0][0] > 0.1
    slow()
    assert (measured(), evaluated("slow")) == quick
    theirs = YOLO(teacher).val(data=str(data), save_dir=str(tmp_path / "theirs"), **KEYS)
    assert theirs.box.map < 0.9 * quick[1][0], "Ultralytics has all the time it needs: the override may go"
