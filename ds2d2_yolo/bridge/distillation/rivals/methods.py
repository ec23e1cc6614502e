"""The loss of a rival for a pair of Ultralytics models: a batch and the student's raw predictions in, a scalar out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from ds2d2_yolo.bridge.distillation.finite_guard import FiniteGuard, valid_images, zero_invalid
from ds2d2_yolo.bridge.models.teacher import FrozenTeacher

if TYPE_CHECKING:
    from ultralytics.nn.modules.head import Detect

FeatureLoss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class RivalBatch:
    """What a rival sees of one batch.

    Attributes:
        images (Tensor): B x C x H x W in [0, 1].
        raw (dict[str, Any]): The student's one-to-many predictions of all levels, see `heads.raw_predictions`.
        assigned (Tensor): B x anchors bool, the cells to which the student's assigner gave an object.
    """

    images: Tensor
    raw: dict[str, Any]
    assigned: Tensor


class Rival(Protocol):
    """A rival bound to a student and a teacher.

    Attributes:
        teacher (FrozenTeacher): Bound to the student's levels.
        adapters (nn.ModuleList | None): Trained 1 x 1 convolutions on the student's features; None if it needs none.
    """

    teacher: FrozenTeacher
    adapters: nn.ModuleList | None

    def __call__(self, batch: RivalBatch) -> Tensor:
        """Return the weighted loss of a batch, a float32 scalar; 0 with a gradient of 0 if it is not finite."""
        ...


class FeatureRival:
    """A rival that compares neck features, level by level.

    Args:
        teacher (FrozenTeacher): Bound to the student's levels.
        adapters (nn.ModuleList | None): One module per level; None where student and teacher are equally wide.
        loss (FeatureLoss): Loss of a level's features of student and teacher, of one shape.
        weight (float): Weight of each level.
    """

    def __init__(
        self, teacher: FrozenTeacher, adapters: nn.ModuleList | None, loss: FeatureLoss, weight: float
    ) -> None:
        self.teacher = teacher
        self.adapters = adapters
        self._loss = loss
        self._weight = weight

    def __call__(self, batch: RivalBatch) -> Tensor:
        """Return the weighted sum over the levels; features of images with non-finite teacher outputs count as 0."""
        guard = FiniteGuard()
        teacher_features = self.teacher.features(batch.images)
        valid = valid_images(teacher_features)
        features = [batch.raw["feats"][level] for level, _ in self.teacher.pairs]
        if self.adapters is not None:
            features = [adapter(x) for adapter, x in zip(self.adapters, features, strict=True)]
        levels = [
            self._loss(torch.where(valid[:, None, None, None], student, 0), teacher)
            for student, teacher in zip(guard.inputs(features), zero_invalid(teacher_features, valid), strict=True)
        ]
        (total,) = guard.outputs(self._weight * torch.stack(levels).sum())
        return total


class LocalizationRival:
    """Localization distillation: the distributions of the box edges at the cells that the student learns boxes from.

    The weight of a cell is the student's largest class score there, without gradient, as in the published code.

    Args:
        teacher (FrozenTeacher): Bound to the student's levels.
        bins (int): Bins of an edge's distribution, the same in student and teacher.
        loss (Callable[[Tensor, Tensor, Tensor], Tensor]): Of the student's logits, the teacher's and the weights.
        weight (float): Weight of the loss.
    """

    adapters: nn.ModuleList | None = None

    def __init__(
        self, teacher: FrozenTeacher, bins: int, loss: Callable[[Tensor, Tensor, Tensor], Tensor], weight: float
    ) -> None:
        self.teacher = teacher
        self._bins = bins
        self._loss = loss
        self._weight = weight

    def __call__(self, batch: RivalBatch) -> Tensor:
        """Return the weighted loss; images with non-finite teacher outputs are left out."""
        guard = FiniteGuard()
        logits = self.teacher(batch.images)["boxes"]
        valid = valid_images([logits])
        scores = batch.raw["scores"].detach().amax(1).sigmoid()
        weight = self._shared(scores * batch.assigned, batch.raw["feats"]) * valid[:, None]
        student = self._edges(self._shared(batch.raw["boxes"], batch.raw["feats"]))
        (student,) = guard.inputs([student])
        teacher = self._edges(logits).where(valid[:, None, None, None], 0)
        (total,) = guard.outputs(self._weight * self._loss(student, teacher, weight))
        return total

    def _shared(self, x: Tensor, features: list[Tensor]) -> Tensor:
        """Return the anchors (last axis) of the levels that student and teacher share."""
        parts = torch.split(x, [f.shape[2:].numel() for f in features], -1)
        return torch.cat([parts[level] for level, _ in self.teacher.pairs], -1)

    def _edges(self, boxes: Tensor) -> Tensor:
        """Return B x 4 bins x anchors as B x anchors x 4 x bins."""
        return boxes.reshape(boxes.shape[0], 4, self._bins, -1).permute(0, 3, 1, 2)


def bins_of(head: Detect) -> int:
    """Return the number of bins of a head's edge distributions; 1 for a head that predicts distances.

    Args:
        head (Detect): Dense head.

    Returns:
        (int): Bins of one edge.
    """
    return int(head.reg_max)
