"""The value of an implicit term: the distance of the boxes is a setting, all else stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from ds2d2_yolo.bridge.distillation.batch import HeadOutputs
from ds2d2_yolo.bridge.distillation.prediction_loss import prediction_loss
from ds2d2_yolo.core import implicit_box_loss, implicit_class_loss
from tests.helpers.core_inputs import dense_predictions
from tests.helpers.distillation import batch_of, build


def test_kfiou_takes_the_place_of_the_box_term_only() -> None:
    logits, boxes, teacher_logits, teacher_boxes = dense_predictions(torch.float32, 5)
    teacher_outputs = HeadOutputs(teacher_logits, teacher_boxes, torch.tensor([True, True]))
    total = torch.tensor(3.0)
    for distance in ("iou", "kfiou"):
        value = prediction_loss((logits, boxes), teacher_outputs, total, None, distance)
        box_term = implicit_box_loss(boxes, teacher_boxes, teacher_logits, total, distance)
        torch.testing.assert_close(value, implicit_class_loss(logits, teacher_logits, total) + box_term)


def test_the_setting_reaches_both_implicit_terms_and_no_explicit_one(checkpoint: Callable[..., Path]) -> None:
    values = {}
    for distance in ("iou", "kfiou"):
        model, criterion = build("yolov8n-obb.yaml", checkpoint("yolov8s-obb.yaml"), box_distance=distance)
        batch = batch_of(rotated=True)
        loss, values[distance] = criterion(model(batch["img"]), batch)
        loss.sum().backward()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    differs = {k: bool(values["iou"][k] != values["kfiou"][k]) for k in values["iou"]}
    assert {k for k, is_different in differs.items() if is_different} == {"imfu_loss", "imhi_loss"}
