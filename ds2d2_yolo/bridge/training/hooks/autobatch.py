"""AutoBatch that counts the teacher: Ultralytics' own profiles whatever model the trainer holds, the student alone."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.utils.torch_utils import unwrap_model

from ds2d2_yolo.bridge.distillation.distiller import Distiller
from ds2d2_yolo.bridge.distillation.gradient_norms import neck_gradients
from ds2d2_yolo.bridge.distillation.targets import Targets
from ds2d2_yolo.bridge.models.adapters import get_adapters
from ds2d2_yolo.bridge.models.heads import dense_head, is_rotated


class WithTeacher(nn.Module):
    """A student whose forward pass runs the distillation too, for a profiler that calls it and goes backward.

    The profiler copies it; teacher and amplifier are shared by the copies, as they lie on the device once in training.
    The pass is the most that a step does: all images in the implicit stream, with the measurement of the gains. The
    loss of Ultralytics is not in it, the profiler adds an estimate of its own.

    Args:
        student (Any): With its adapters, not compiled.
        distiller (Distiller): Bound to it.
        boxes (int): Objects per image.

    Attributes:
        yaml (dict): The student's, as `names` and `stride`: what Ultralytics' profiler reads.
    """

    def __init__(self, student: Any, distiller: Distiller, boxes: int) -> None:
        super().__init__()
        self.student = student
        self.yaml, self.names, self.stride = student.yaml, student.names, student.stride
        self.boxes = boxes
        self._distiller = distiller

    def __deepcopy__(self, memo: dict[int, Any]) -> WithTeacher:
        """Copy the student alone."""
        return WithTeacher(copy.deepcopy(self.student, memo), self._distiller, self.boxes)

    def forward(self, images: Tensor) -> Any:
        """Return the student's predictions and the terms, all of which want a backward pass."""
        predictions = self.student(images)
        dense = predictions.get("one2many", predictions)
        features = dense["feats"]
        distiller = copy.copy(self._distiller)
        distiller.adapters = get_adapters(self.student) or distiller.adapters  # a copy's own take the gradient
        head, targets = dense_head(self.student, "the student"), self._targets(images)
        with torch.enable_grad():
            guide = distiller.guide(images.detach(), whole=True)
            neck_gradients(
                head,
                _sum,
                lambda f, p: distiller.terms(f, guide, targets, distiller.own(head, p.get("one2many", p))),
                features,
                distiller.levels,
            )
            return predictions, distiller.terms(features, guide, targets, distiller.own(head, dense))

    def _targets(self, images: Tensor) -> Targets:
        """Return as many objects in each image as there may be, each a sixteenth of it."""
        height, width = images.shape[2:]
        box = [width / 2, height / 2, width / 4, height / 4, 0.5]
        if not is_rotated(dense_head(self.student, "the student")):
            box = [0, 0, width / 4, height / 4]
        boxes = torch.tensor(box, device=images.device).expand(len(images), self.boxes, -1)
        return Targets(boxes, torch.ones(boxes.shape[:2], dtype=torch.bool, device=images.device))


def _sum(outputs: Any) -> Tensor:
    """Return the sum of a head's outputs, in place of its loss."""
    if isinstance(outputs, Tensor):
        return outputs.sum()
    values = outputs.values() if isinstance(outputs, dict) else outputs
    return torch.stack([_sum(v) for v in values]).sum()


class TeacherAutoBatch(BaseTrainer):
    """A trainer whose AutoBatch profiles the student with its teacher; it stands behind Ultralytics' own trainers.

    `DetectionTrainer.auto_batch` finds the number of objects and hands it on to this one. On a CPU Ultralytics profiles
    nothing and takes 16 (8.4.190).
    """

    model: Any
    _distiller: Distiller | None

    def auto_batch(self, max_num_obj: int = 0, dataset_size: int = 0) -> int:
        """Return the batch size that fits the memory.

        Args:
            max_num_obj (int): Objects per image, at most.
            dataset_size (int): Training images.

        Returns:
            (int): Images per batch.
        """
        if self._distiller is None:
            return int(super().auto_batch(max_num_obj, dataset_size))
        model = self.model
        self.model = WithTeacher(unwrap_model(model), self._distiller, max(max_num_obj, 1))
        try:
            return int(super().auto_batch(max_num_obj, dataset_size))
        finally:
            self.model = model
