"""A distillation of seconds, as a function of its settings."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ultralytics.utils import nms

from ds2d2_yolo import DS2D2OBBTrainer, DS2D2Trainer
from ds2d2_yolo.config.settings import TERMS

PAIRS = {"obb": ("yolov8s-obb.yaml", "yolov8n-obb.yaml"), "detect": ("yolov8s.yaml", "yolov8n.yaml")}
TRAINERS = {"obb": DS2D2OBBTrainer, "detect": DS2D2Trainer}
OFF = dict.fromkeys(TERMS, 0.0)


@pytest.fixture(scope="session", autouse=True)
def no_search_of_the_libraries() -> Iterator[None]:
    """Spare Ultralytics' many calls of the garbage collector what was imported: a tenth of a small run's time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()  # else libraries count at the exit what they think is lost


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
