"""Validation by size, crowding and orientation of the objects, for upright and oriented boxes.

Examples:
    >>> from ds2d2_yolo.evaluate import evaluate
    >>> evaluation = evaluate("best.pt", "dota.yaml", imgsz=1024)  # doctest: +SKIP
    >>> evaluation.row("size", "0-16").map50  # doctest: +SKIP
"""

from __future__ import annotations

from ds2d2_yolo.evaluate.metrics import GroupMetrics
from ds2d2_yolo.evaluate.modes import Evaluation, evaluate, val
from ds2d2_yolo.evaluate.options import ValOptions

__all__ = ["Evaluation", "GroupMetrics", "ValOptions", "evaluate", "val"]
