"""How Ultralytics' task-aligned assigner gives anchors to objects, for any predictions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ds2d2_yolo.bridge.distillation.targets import AssignerCall, dense_criterion


@dataclass(frozen=True)
class Assignment:
    """Sums over the objects of some batches.

    Attributes:
        objects (int): Objects.
        without (int): Objects without a positive anchor.
        positives (int): Positive anchors of all objects.
        best_targets (float): Sum over the objects of the largest target score, 0 for an object without a positive.
    """

    objects: int = 0
    without: int = 0
    positives: int = 0
    best_targets: float = 0.0

    def __add__(self, other: Assignment) -> Assignment:
        """Return the sums over the batches of both."""
        return Assignment(
            self.objects + other.objects,
            self.without + other.without,
            self.positives + other.positives,
            self.best_targets + other.best_targets,
        )


def assignment_of(call: AssignerCall) -> Assignment:
    """Return the sums over the objects of a batch.

    Args:
        call (AssignerCall): The assigner's call for the batch.

    Returns:
        (Assignment): The sums.
    """
    mask = call.targets.mask
    if not mask.numel():
        return Assignment()
    positive, index = call.positives, call.outputs[4].long()
    scores = call.outputs[2].amax(2).where(positive, 0)
    counts = torch.zeros_like(mask, dtype=torch.long).scatter_add_(1, index, positive.long())
    best = scores.new_zeros(mask.shape).scatter_reduce_(1, index, scores, "amax")
    count = int(mask.sum())
    without = int((counts[mask] == 0).sum())
    return Assignment(count, without, int(counts[mask].sum()), float(best[mask].sum()))


def reassigned(criterion: Any, call: AssignerCall, scores: Tensor, boxes: Tensor) -> AssignerCall:
    """Repeat a call of the one-to-many assigner with other predictions.

    Args:
        criterion (Any): The student's criterion.
        call (AssignerCall): The call.
        scores (Tensor): B x anchors x classes of the data, 0 to 1.
        boxes (Tensor): B x anchors x 4 (xyxy) or 5 (xywhr, radians) in pixels.

    Returns:
        (AssignerCall): For the same ground truth.
    """
    inputs = (scores, boxes.to(call.inputs[4].dtype), *call.inputs[2:])
    return AssignerCall(inputs, call.extra, dense_criterion(criterion).assigner(*inputs, **call.extra))
