"""Students, criteria and batches of a distillation without a trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import DetectionModel, OBBModel

from ds2d2_yolo.bridge.distillation.build import build_distiller
from ds2d2_yolo.bridge.distillation.criterion import DistillationCriterion
from ds2d2_yolo.bridge.distillation.gains import Gains
from ds2d2_yolo.bridge.models.adapters import attach_adapters
from ds2d2_yolo.bridge.models.heads import dense_head
from ds2d2_yolo.bridge.models.teacher import load_teacher
from ds2d2_yolo.config.settings import Settings

PAIRS = [
    ("yolov8n-obb.yaml", "yolov8s-obb.yaml"),
    ("yolov8n.yaml", "yolov8s.yaml"),
    ("yolo26n-obb.yaml", "yolo11s-obb.yaml"),
    ("yolov8n-obb.yaml", "yolo26s-obb.yaml"),
    ("yolov8n.yaml", "yolov10s.yaml"),
    ("yolov8n-p2.yaml", "yolov8s.yaml"),
]


def build(student: str, teacher: Path, ratio: int = 1, **gains: Any) -> tuple[nn.Module, DistillationCriterion]:
    """A student in training mode and its criterion, the amplifier being the teacher's own head, untuned.

    The teacher's images are `ratio` times as large as the student's.
    """
    rotated = "obb" in student
    torch.manual_seed(0)
    model = (OBBModel if rotated else DetectionModel)(student, nc=2, verbose=False).train()
    model.args = get_cfg()
    settings, head = Settings(**{"gains": 1.0, **gains}), dense_head(model, "student")
    loaded = load_teacher(str(teacher), "obb" if rotated else "detect")
    distiller = build_distiller(head, loaded, settings, ratio=ratio)
    attach_adapters(model, distiller.adapters)
    return model, DistillationCriterion(model.init_criterion(), head, distiller, Gains(settings))


def batch_of(rotated: bool, boxes: int = 6, size: int = 128) -> dict[str, Tensor]:
    """Two images with boxes in both."""
    rng = torch.Generator().manual_seed(1)
    bboxes = torch.rand(boxes, 4, generator=rng) * 0.3 + 0.25
    if rotated:
        bboxes = torch.cat((bboxes, torch.rand(boxes, 1, generator=rng)), 1)
    return {
        "img": torch.rand(2, 3, size, size, generator=rng),
        "batch_idx": torch.arange(boxes) // max(boxes // 2, 1),  # sorted, as Ultralytics collates them
        "cls": torch.zeros(boxes, 1),
        "bboxes": bboxes,
    }
