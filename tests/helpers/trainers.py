"""Trainers of each task, with a teacher and a student."""

from __future__ import annotations

from ds2d2_yolo import DS2D2OBBTrainer, DS2D2Trainer

PAIRS = {"obb": ("yolov8s-obb.yaml", "yolov8n-obb.yaml"), "detect": ("yolov8s.yaml", "yolov8n.yaml")}
TRAINERS = {"obb": DS2D2OBBTrainer, "detect": DS2D2Trainer}
