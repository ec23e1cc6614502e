"""AutoBatch that counts the teacher. Ultralytics profiles the model that the trainer holds: the student only."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.utils.torch_utils import unwrap_model

from ds2d2_yolo.bridge.distillation.batch import StudentInputs
from ds2d2_yolo.bridge.distillation.distiller import Distiller
from ds2d2_yolo.bridge.distillation.gradients.norms import measure_gradients
from ds2d2_yolo.bridge.distillation.targets import Targets
from ds2d2_yolo.bridge.distillation.teacher_size import enlarge
from ds2d2_yolo.bridge.models.adapters import get_adapters
from ds2d2_yolo.bridge.models.heads import dense_head, is_rotated


@contextmanager
def profiled_with_teacher(trainer: Any, distiller: Distiller | None, boxes: int) -> Iterator[None]:
    """Let a trainer's AutoBatch profile student and teacher together while the context lasts.

    Args:
        trainer (Any): The trainer, whose `model` is replaced.
        distiller (Distiller | None): The distillation, None where no term is active.
        boxes (int): Objects per image, at most.

    Yields:
        (None): While it lasts, `trainer.model` runs the distillation too.
    """
    student = trainer.model
    if distiller is not None:
        trainer.model = WithTeacher(unwrap_model(student), distiller, max(boxes, 1))
    try:
        yield
    finally:
        trainer.model = student


class WithTeacher(nn.Module):
    """A student whose forward pass runs the distillation too, for a profiler that calls it and goes backward.

    The profiler copies it; the copies share teacher and amplifier, which lie on the device once in training. The pass
    is the largest that a step makes: all images in the implicit stream, with the measurement of the gains. Ultralytics'
    loss is not included, the profiler adds an estimate of it.

    Args:
        student (Any): With its adapters, not compiled.
        distiller (Distiller): Bound to it.
        boxes (int): Objects per image.

    Attributes:
        yaml (dict): The student's, as `names` and `stride`: the profiler reads them.
    """

    def __init__(self, student: Any, distiller: Distiller, boxes: int) -> None:
        super().__init__()
        self.student = student
        self.yaml, self.names, self.stride = student.yaml, student.names, student.stride
        self.boxes = boxes
        self._distiller = distiller

    def __deepcopy__(self, memo: dict[int, Any]) -> WithTeacher:
        """Copy the student only."""
        return WithTeacher(copy.deepcopy(self.student, memo), self._distiller, self.boxes)

    def forward(self, images: Tensor) -> Any:
        """Return the student's predictions and the terms, all of which require a backward pass."""
        outputs = self.student(images)
        distiller = copy.copy(self._distiller)
        distiller.adapters = get_adapters(self.student) or distiller.adapters  # a copy's adapters take the gradient
        student = StudentInputs.of(_SumCriterion(), outputs, self._targets(images))
        with torch.enable_grad():
            teacher = distiller.teacher_outputs(enlarge(images.detach(), distiller.teacher.ratio))
            head = dense_head(self.student, "the student")
            measure_gradients(_SumCriterion(), head, distiller, student, teacher, {"img": images})
            return outputs, distiller(student, teacher)

    def _targets(self, images: Tensor) -> Targets:
        """Return `boxes` objects in each image, each a sixteenth of its area."""
        height, width = images.shape[2:]
        box = [width / 2, height / 2, width / 4, height / 4, 0.5]
        if not is_rotated(dense_head(self.student, "the student")):
            box = [0, 0, width / 4, height / 4]
        boxes = torch.tensor(box, device=images.device).expand(len(images), self.boxes, -1)
        return Targets(boxes, torch.ones(boxes.shape[:2], dtype=torch.bool, device=images.device))


class _SumCriterion:
    """Stands in for the student's criterion: the sum of the head's outputs, without an assigner."""

    def __call__(self, outputs: Any, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the sum of all outputs as loss."""
        return _sum(outputs), {}

    def parse_output(self, outputs: Any) -> Any:
        """Return the outputs of a model in training mode unchanged.

        Args:
            outputs (Any): The model's outputs.

        Returns:
            (Any): The same object.
        """
        return outputs


def _sum(outputs: Any) -> Tensor:
    """Return the sum of nested tensors."""
    if isinstance(outputs, Tensor):
        return outputs.sum()
    values = outputs.values() if isinstance(outputs, dict) else outputs
    return torch.stack([_sum(v) for v in values]).sum()
