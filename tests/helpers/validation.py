"""Models and settings of validations that take seconds."""

from __future__ import annotations

from typing import Any

import pytest

MODELS = {"detect": "yolov8n.yaml", "obb": "yolov8n-obb.yaml"}
QUICK: dict[str, Any] = {"imgsz": 96, "device": "cpu", "workers": 0, "plots": False, "verbose": False, "batch": 4}
TASKS = pytest.mark.parametrize("task", ["detect", "obb"])
