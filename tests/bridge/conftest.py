"""A distillation of seconds, as a function of its settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ultralytics.utils import nms

from ds2d2_yolo import DS2D2OBBTrainer, DS2D2Trainer

PAIRS = {"obb": ("yolov8s-obb.yaml", "yolov8n-obb.yaml"), "detect": ("yolov8s.yaml", "yolov8n.yaml")}
TRAINERS = {"obb": DS2D2OBBTrainer, "detect": DS2D2Trainer}
OFF = dict.fromkeys(("exlo", "exhi", "imfu", "imhi"), 0.0)


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the clock of Ultralytics' suppression, whose results depend on the time that it takes (see test_patient)."""
    monkeypatch.setattr(nms, "time", SimpleNamespace(time=lambda: 0.0))


@pytest.fixture
def tiny_trainer(
    tiny_data: Callable[[str], Path], checkpoint: Callable[..., Path], tiny_settings: dict[str, Any]
) -> Callable[..., DS2D2Trainer]:
    """Make a trainer of a task on the tiny data; keywords override its settings."""

    def make(task: str = "obb", **keys: Any) -> DS2D2Trainer:
        teacher, student = PAIRS[task]
        settings = {
            **tiny_settings, "teacher": str(checkpoint(teacher)), "model": student, "data": str(tiny_data(task)),
            **keys,
        }  # fmt: skip
        return TRAINERS[task](overrides=settings)

    return make
