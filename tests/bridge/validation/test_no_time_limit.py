"""What is measured does not hang on how long Ultralytics' suppression takes, nor its pictures on its threads."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import Tensor
from ultralytics import YOLO
from ultralytics.data.utils import check_det_dataset
from ultralytics.models.yolo.detect import val as detect_val
from ultralytics.models.yolo.obb import val as obb_val
from ultralytics.utils import nms

from ds2d2_yolo.bridge.data.class_map import class_names, match_classes
from ds2d2_yolo.bridge.models.teacher import load_teacher
from ds2d2_yolo.bridge.validation.teacher_map import teacher_map
from ds2d2_yolo.bridge.validation.validate import validate
from tests.helpers.taught import CONF, SIZE, settings, write_taught

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
        return float(done.metrics.box.map), len(done.detections.image)

    quick = measured(), evaluated("quick")
    assert quick[0][0] > 0.1
    slow()
    assert (measured(), evaluated("slow")) == quick
    ultralytics_metrics = YOLO(teacher).val(data=str(data), save_dir=str(tmp_path / "ultralytics"), **KEYS)
    assert ultralytics_metrics.box.map < 0.9 * quick[1][0], "Ultralytics has all the time it needs: the override may go"


@pytest.mark.parametrize("task", [pytest.param("detect", marks=pytest.mark.slow), "obb"])
def test_no_picture_is_drawn_from_images_that_another_thread_works_on(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher, data = write_taught(tmp_path, task)
    brightest: list[float] = []

    def draw(labels: dict[str, Any], images: Tensor | None = None, **_: Any) -> None:
        pixels = labels.get("img", images).numpy()
        brightest.append(float(pixels.max()))
        pixels *= 255  # as Ultralytics' `plot_images` does, in a thread that may be anywhere in between

    for module in (detect_val, obb_val):
        monkeypatch.setattr(module, "plot_images", draw)
    keys = {**KEYS, "plots": True}
    validate(str(teacher), str(data), save_dir=str(tmp_path / "validate"), **keys)
    brightest_of_validate = brightest.copy()
    assert len(brightest_of_validate) >= 2
    assert max(brightest_of_validate) <= 1
    brightest.clear()
    YOLO(teacher).val(data=str(data), save_dir=str(tmp_path / "ultralytics"), **keys)
    assert max(brightest) > 1, "Ultralytics' threads have images of their own: the override may go"
