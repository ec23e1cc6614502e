"""Reports of runs that a trainer has prepared."""

from __future__ import annotations

from typing import Any

from torch import nn

from ds2d2_yolo import DS2D2Trainer
from ds2d2_yolo.bridge.models.loading import build_student
from ds2d2_yolo.bridge.preflight.collect import collect_report
from ds2d2_yolo.report.facts import Report


def student_of(trainer: DS2D2Trainer) -> Any:
    """The student that a trainer holds, or is going to build."""
    return trainer.model if isinstance(trainer.model, nn.Module) else build_student(trainer.args, trainer.data)


def report_of(trainer: DS2D2Trainer) -> Report:
    """The report of a trainer's run."""
    return collect_report(trainer.run, student_of(trainer))
