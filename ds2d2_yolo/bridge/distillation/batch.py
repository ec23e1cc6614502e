"""What student and teacher contribute to the distillation of one batch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ds2d2_yolo.bridge.distillation.targets import Targets, dense_criterion
from ds2d2_yolo.bridge.distillation.unlabelled.teacher_boxes import append_detections


@dataclass(frozen=True)
class HeadOutputs:
    """Decoded predictions of a head.

    Attributes:
        logits (Tensor): B x anchors x classes, float32.
        boxes (Tensor): B x anchors x 4 (xyxy) or 5 (xywhr, radians) in pixels of the teacher's images, float32.
        valid (Tensor): B bool, images with finite predictions; the others contribute nothing.
    """

    logits: Tensor
    boxes: Tensor
    valid: Tensor


@dataclass(frozen=True)
class TeacherOutputs:
    """The teacher's side of one batch; nothing in it requires a gradient.

    Attributes:
        features (list[Tensor]): Neck outputs of the shared levels, B x C x H x W, zeros for images that are not valid.
        valid (Tensor): B bool, images with finite outputs; the others contribute nothing.
        predictions (dict[str, HeadOutputs]): The amplifier's predictions by implicit term.
        score_sum (Tensor | None): Normaliser of the implicit terms, see `weighting.teacher_score_sum`.
        scores (list[Tensor] | None): Largest class score of each cell, B x H x W, where `weight_map` needs it.
        detections (list[Tensor]): Detections of each unlabelled image, see `teacher_boxes.teacher_detections`; empty
            without unlabelled images, or where no term needs boxes.
    """

    features: list[Tensor]
    valid: Tensor
    predictions: dict[str, HeadOutputs]
    score_sum: Tensor | None
    scores: list[Tensor] | None
    detections: list[Tensor] = field(default_factory=list)

    def complete_targets(self, targets: Targets) -> Targets:
        """Return the targets of all images: the ground truth, then the teacher's detections on unlabelled images.

        Args:
            targets (Targets): Ground truth of the labelled images.

        Returns:
            (Targets): The same where there are no detections.
        """
        return append_detections(targets, self.detections) if self.detections else targets


@dataclass(frozen=True)
class StudentInputs:
    """The student's side of one batch.

    Attributes:
        features (list[Tensor]): Neck outputs of all levels, B x C x H x W.
        targets (Targets): Ground truth as the assigner received it.
    """

    features: list[Tensor]
    targets: Targets

    @classmethod
    def of(cls, criterion: Any, outputs: Any, targets: Targets) -> StudentInputs:
        """Take the neck features from a head's outputs.

        Args:
            criterion (Any): The student's criterion, which knows the layout of the outputs.
            outputs (Any): What the student's forward pass returned.
            targets (Targets): Ground truth of the batch.

        Returns:
            (StudentInputs): For `Distiller`.
        """
        parsed = dense_criterion(criterion).parse_output(outputs)
        return cls(parsed.get("one2many", parsed)["feats"], targets)
