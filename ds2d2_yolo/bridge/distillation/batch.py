"""What student and teacher contribute to the distillation of one batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ds2d2_yolo.bridge.distillation.targets import Targets, dense_criterion
from ds2d2_yolo.bridge.distillation.teacher_assignment import TeacherAssignment


@dataclass(frozen=True)
class HeadOutputs:
    """Decoded predictions of a head.

    Attributes:
        logits (Tensor): B x anchors x classes, float32.
        boxes (Tensor): B x anchors x 4 (xyxy) or 5 (xywhr, radians) in pixels, float32.
        valid (Tensor): B bool, images with finite predictions; the others contribute nothing.
        bins (Tensor | None): Logits of the DFL bins, B x anchors x 4 x bins, float32, where `box_distribution` needs
            them.
    """

    logits: Tensor
    boxes: Tensor
    valid: Tensor
    bins: Tensor | None = None


@dataclass(frozen=True)
class TeacherOutputs:
    """The teacher's side of one batch; nothing in it requires a gradient.

    Attributes:
        features (list[Tensor]): Neck outputs of the shared levels, B x C x H x W, zeros for images that are not valid.
        valid (Tensor): B bool, images with finite outputs; the others contribute nothing.
        images (Tensor | None): Indices of the images in the implicit stream, None for all.
        predictions (dict[str, HeadOutputs]): The amplifier's predictions by implicit term, for `images`.
        score_sum (Tensor | None): Normaliser of the implicit terms, see `weighting.teacher_score_sum`.
        scores (list[Tensor] | None): Largest class score of each cell, B x H x W, where `weight_map` or
            `level_balance` needs it.
        assignment (TeacherAssignment | None): Predictions of all images in the epochs in which the teacher assigns.
        confidence (Tensor | None): Weight of each anchor, B x anchors, where `box_distribution` or `box_angle` is on:
            `core.confident_scores` of the teacher in all implicit terms, for all images, 0 for those not valid.
    """

    features: list[Tensor]
    valid: Tensor
    images: Tensor | None
    predictions: dict[str, HeadOutputs]
    score_sum: Tensor | None
    scores: list[Tensor] | None
    assignment: TeacherAssignment | None = None
    confidence: Tensor | None = None


@dataclass(frozen=True)
class StudentInputs:
    """The student's side of one batch.

    Attributes:
        features (list[Tensor]): Neck outputs of all levels, B x C x H x W.
        predictions (dict[str, Any]): Raw one-to-many outputs of the head: 'scores', 'boxes', 'feats', 'angle'.
        targets (Targets): Ground truth as the assigner received it.
    """

    features: list[Tensor]
    predictions: dict[str, Any]
    targets: Targets

    @classmethod
    def of(cls, criterion: Any, outputs: Any, targets: Targets) -> StudentInputs:
        """Take the one-to-many predictions and the neck features from a head's outputs.

        Args:
            criterion (Any): The student's criterion, which knows the layout of the outputs.
            outputs (Any): What the student's forward pass returned.
            targets (Targets): Ground truth of the batch.

        Returns:
            (StudentInputs): For `Distiller`.
        """
        parsed = dense_criterion(criterion).parse_output(outputs)
        predictions = dict(parsed.get("one2many", parsed))
        return cls(predictions["feats"], predictions, targets)
