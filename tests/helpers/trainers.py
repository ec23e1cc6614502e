"""Trainers of each task, with a teacher and a student.

The models are the smallest that differ in width, since the tests that use them ask about the trainer. `test_pairs.py`
trains the real families and sizes.
"""

from __future__ import annotations

from pathlib import Path

from ds2d2_yolo import DS2D2OBBTrainer, DS2D2Trainer
from ds2d2_yolo.config.resources import resource_dir

PAIRS = {
    "obb": ("yolov8n-obb.yaml", str(resource_dir("cfg") / "models/yolov8-pico-obb.yaml")),
    "detect": ("yolov8n.yaml", str(Path(__file__).parent / "models/yolov8-pico.yaml")),
}
TRAINERS = {"obb": DS2D2OBBTrainer, "detect": DS2D2Trainer}
