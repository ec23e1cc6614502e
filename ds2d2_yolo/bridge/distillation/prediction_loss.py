"""The value of an implicit term: predictions from the student's features against those from the teacher's."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ds2d2_yolo.bridge.distillation.batch import HeadOutputs
from ds2d2_yolo.core import implicit_box_loss, implicit_class_loss
from ds2d2_yolo.core.transfer import copy_to_device


def shared_classes(logits: Tensor, columns: list[int] | None) -> Tensor:
    """Return a model's columns of the classes that are distilled.

    Args:
        logits (Tensor): B x anchors x classes of the model.
        columns (list[int] | None): Indices of the classes, None for all.

    Returns:
        (Tensor): B x anchors x distilled classes.
    """
    return logits if columns is None else logits[..., copy_to_device(torch.tensor(columns), logits.device)]


def prediction_loss(
    predictions: tuple[Tensor, Tensor],
    teacher_predictions: HeadOutputs,
    score_sum: Tensor,
    teacher_columns: list[int] | None,
    box_distance: Literal["iou", "kfiou"] = "iou",
) -> Tensor:
    """Return class and box distillation of predictions against those from the teacher's features.

    Args:
        predictions (tuple[Tensor, Tensor]): From the student's features: logits of the distilled classes, and boxes.
        teacher_predictions (HeadOutputs): From the teacher's features.
        score_sum (Tensor): Normaliser, see `weighting.teacher_score_sum`.
        teacher_columns (list[int] | None): The teacher's classes that are distilled, None for all.
        box_distance (str): Distance of the boxes, see `implicit_box_loss`.

    Returns:
        (Tensor): Float32 scalar.
    """
    logits, boxes = predictions
    valid = teacher_predictions.valid[:, None, None]
    # both sides are 0 for images that are not valid: so are the terms, and torch.where passes no gradient
    teacher_logits = shared_classes(teacher_predictions.logits, teacher_columns)
    logits, teacher_logits, boxes, teacher_boxes = (
        torch.where(valid, x, 0) for x in (logits, teacher_logits, boxes, teacher_predictions.boxes)
    )
    class_loss = implicit_class_loss(logits, teacher_logits, score_sum)
    return class_loss + implicit_box_loss(boxes, teacher_boxes, teacher_logits, score_sum, box_distance)
