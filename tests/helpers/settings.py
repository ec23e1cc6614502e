"""Settings of runs that take seconds."""

from __future__ import annotations

from ds2d2_yolo.config.settings import TERMS

TINY = {
    "imgsz": 96, "epochs": 1, "batch": 4, "nbs": 4, "device": "cpu", "workers": 0, "optimizer": "AdamW", "lr0": 0.001,
    "warmup_epochs": 0, "plots": False, "val": False, "seed": 3, "mosaic": 0.0,
}  # fmt: skip
OFF = dict.fromkeys(TERMS, 0.0)
