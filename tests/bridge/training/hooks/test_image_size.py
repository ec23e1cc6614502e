"""Sizes fit a teacher that is coarser than the student, and are the plain run's with any other."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ultralytics.engine import trainer as engine
from ultralytics.models.yolo.detect import DetectionTrainer

from ds2d2_yolo import DS2D2Trainer
from tests.helpers.data import write_tiny_data
from tests.helpers.terms import ACTIVE

Trainer = Callable[..., DS2D2Trainer]
P6, P5 = "yolov8n-p6.yaml", "yolov8n.yaml"


@pytest.fixture
def coarse(tiny_trainer: Trainer, checkpoint: Callable[..., Path]) -> Trainer:
    """A trainer whose teacher has a level of stride 64."""
    return lambda **keys: tiny_trainer("detect", teacher=str(checkpoint(P6)), **{"imhi": 0, **keys})


def shapes_of(trainer: Any) -> list[tuple[int, ...]]:
    """Train, and return the size of the images of each batch that the student saw."""
    seen: list[tuple[int, ...]] = []
    original = trainer.preprocess_batch

    def record(batch: dict[str, Any]) -> dict[str, Any]:
        done: dict[str, Any] = original(batch)
        seen.append(tuple(done["img"].shape[2:]))
        return done

    trainer.preprocess_batch = record
    trainer.train()
    return seen


def test_imgsz_is_rounded_up_for_teacher_and_amplifier(coarse: Trainer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING"):
        trainer = coarse(imhi=0.5)
    assert trainer.args.imgsz == 128
    assert "imgsz=[96] must be multiple of max stride 64, updating to [128]" in caplog.text
    assert shapes_of(trainer) == [(128, 128)] * 2
    assert all(0 < float(trainer.tloss[f"{t}_loss"]) < math.inf for t in ACTIVE)


def test_multi_scale_draws_multiples_of_the_teachers_stride(coarse: Trainer) -> None:
    seen = shapes_of(coarse(multi_scale=0.5, imgsz=192, epochs=3, imfu=0, exhi=0))
    assert len(set(seen)) > 1
    assert all(side % 64 == 0 for shape in seen for side in shape)


def test_autobatch_profiles_at_a_size_that_the_teacher_takes(coarse: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    autobatch_arguments: dict[str, Any] = {}
    monkeypatch.setattr(engine, "check_train_batch_size", lambda **keys: autobatch_arguments.update(keys) or 4)
    coarse(batch=-1, multi_scale=0.25, imgsz=128)._setup_train()
    assert autobatch_arguments["imgsz"] == 192, "128 x 1.25, the next multiple of 64"


def test_rect_batches_are_multiples_of_the_teachers_stride(coarse: Trainer, wide_data: Path) -> None:
    trainer = coarse(rect=True, imgsz=192, imfu=0, exhi=0, data=str(wide_data))
    assert shapes_of(trainer) == [(128, 192)] * 2
    shapes = {tuple(s) for s in trainer.test_loader.dataset.batch_shapes.tolist()}
    assert shapes == {(128, 224)}, "validation is the plain run's"


@pytest.fixture
def wide_data(tmp_path: Path) -> Path:
    """The tiny data set with images cut to 96 x 45."""
    import cv2

    yaml = write_tiny_data(tmp_path / "wide", "detect")
    for file in (tmp_path / "wide" / "images").rglob("*.png"):
        cv2.imwrite(str(file), cv2.imread(str(file))[:45])
    return yaml


@pytest.mark.parametrize(("student", "teacher"), [(P5, P5), pytest.param(P6, P6, marks=pytest.mark.slow)])
def test_with_a_teacher_no_coarser_all_sizes_are_the_plain_runs(
    student: str, teacher: str, tiny_trainer: Trainer, checkpoint: Callable[..., Path], tiny_settings: dict[str, Any],
    wide_data: Path,
) -> None:  # fmt: skip
    keys = {"model": student, "data": str(wide_data), "imgsz": 150, "rect": True, "multi_scale": 0.5}
    plain = DetectionTrainer(overrides={**tiny_settings, **keys})
    expected_shapes = shapes_of(plain)
    distilled = tiny_trainer(
        "detect", teacher=str(checkpoint(teacher)), imhi=0, imfu=0, **{**keys, "name": "distilled"}
    )
    assert shapes_of(distilled) == expected_shapes
    assert distilled.args.imgsz == plain.args.imgsz
    assert distilled.stride == plain.stride
    for distilled_loader, plain_loader in (
        (distilled.train_loader, plain.train_loader),
        (distilled.test_loader, plain.test_loader),
    ):
        assert distilled_loader.dataset.batch_shapes.tolist() == plain_loader.dataset.batch_shapes.tolist()
