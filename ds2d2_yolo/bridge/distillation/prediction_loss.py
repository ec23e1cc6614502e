"""The value of an implicit term: predictions from the student's features against those from the teacher's."""

from __future__ import annotations

import torch
from torch import Tensor

from ds2d2_yolo.bridge.distillation.batch import HeadOutputs, TeacherOutputs
from ds2d2_yolo.config.settings import Settings
from ds2d2_yolo.core import box_angle_loss, box_distribution_loss, implicit_box_loss, implicit_class_loss
from ds2d2_yolo.core.transfer import copy_to_device


def select_images(x: Tensor, images: Tensor | None) -> Tensor:
    """Return the chosen images of a batch.

    Args:
        x (Tensor): Of shape (B, ...).
        images (Tensor | None): Indices, None for all.

    Returns:
        (Tensor): The rows of these images.
    """
    return x if images is None else x[images]


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
    settings: Settings,
    predictions: tuple[Tensor, ...],
    wanted: HeadOutputs,
    teacher: TeacherOutputs,
    teacher_columns: list[int] | None,
) -> Tensor:
    """Return class and box distillation of predictions against those from the teacher's features.

    Args:
        settings (Settings): Weights of the experimental parts of the box term.
        predictions (tuple[Tensor, ...]): From the student's features: logits of the distilled classes, boxes and, with
            `box_distribution`, the logits of the DFL bins.
        wanted (HeadOutputs): From the teacher's features, of the same images.
        teacher (TeacherOutputs): Normalisers of the entire batch.
        teacher_columns (list[int] | None): The teacher's classes that are distilled, None for all.

    Returns:
        (Tensor): Float32 scalar.
    """
    logits, boxes, *bins = predictions
    score_sum, valid = teacher.score_sum, wanted.valid[:, None, None]
    assert score_sum is not None
    # both sides are 0 for images that are not valid: so are the terms, and torch.where passes no gradient
    teacher_logits = shared_classes(wanted.logits, teacher_columns)
    logits, teacher_logits, boxes, teacher_boxes = (
        torch.where(valid, x, 0) for x in (logits, teacher_logits, boxes, wanted.boxes)
    )
    class_loss = implicit_class_loss(logits, teacher_logits, score_sum)
    loss = class_loss + implicit_box_loss(boxes, teacher_boxes, teacher_logits, score_sum)
    if teacher.confidence is None:
        return loss
    # Not part of the published method. The sum is over all images, like `score_sum`: a draw of images is unbiased.
    confidence = select_images(teacher.confidence, teacher.images).where(wanted.valid[:, None], 0)
    weights = confidence, teacher.confidence.sum()
    if wanted.bins is not None:
        student_bins, teacher_bins = (torch.where(valid[..., None], x, 0) for x in (*bins, wanted.bins))
        divergence = box_distribution_loss(student_bins, teacher_bins, *weights, settings.box_temperature)
        loss = loss + settings.box_distribution * divergence
    if settings.box_angle:
        loss = loss + settings.box_angle * box_angle_loss(boxes, teacher_boxes, *weights)
    return loss
