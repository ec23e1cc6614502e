"""Assignment of the ground truth to the student's anchors by the teacher's predictions.

Not part of the published method. Sources: LAD (Nguyen et al., WACV 2022, arXiv 2108.10520) lets the teacher assign in
all epochs. PP-YOLOE (Xu et al. 2022, arXiv 2203.16250) replaces the task-aligned assigner in the first epochs, with one
that needs no predictions: those of an untrained model are close to noise.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ds2d2_yolo.bridge.data.class_map import ClassMap, join_names
from ds2d2_yolo.bridge.distillation.targets import dense_criterion
from ds2d2_yolo.config.settings import Settings
from ds2d2_yolo.core.transfer import copy_to_device
from ds2d2_yolo.errors import BadUseError


@dataclass(frozen=True)
class TeacherAssignment:
    """The teacher's predictions as the student's task-aligned assigner takes them. Not part of the published method.

    The target of anchor i for object j becomes ``t_ij / max_i t_ij * max_i IoU_ij`` with
    ``t_ij = s_T^0.5 IoU(b_T, g_j)^6`` (TOOD, Feng et al. 2021, with Ultralytics' exponents). s_T is the teacher's score
    of the object's class at the anchor, b_T the teacher's box; the maxima are over the object's positives.

    Attributes:
        scores (Tensor): B x anchors x student's classes, 0 to 1, float32; 0 for classes that the teacher lacks.
        boxes (Tensor): B x anchors x 4 (xyxy) or 5 (xywhr, radians) in pixels, float32.
        valid (Tensor): B bool. The student's own predictions assign in images that are not valid.
    """

    scores: Tensor
    boxes: Tensor
    valid: Tensor

    @classmethod
    def of(
        cls, logits: Tensor, boxes: Tensor, valid: Tensor, student_columns: list[int] | None, classes: int
    ) -> TeacherAssignment:
        """Bring the teacher's class scores into the order of the student's classes.

        Args:
            logits (Tensor): The teacher's logits of the shared classes, B x anchors x shared classes.
            boxes (Tensor): The teacher's boxes.
            valid (Tensor): B bool.
            student_columns (list[int] | None): The student's index of each shared class, None for all in order.
            classes (int): Number of the student's classes.

        Returns:
            (TeacherAssignment): Of the batch.
        """
        scores = logits.sigmoid()
        if student_columns is not None:
            ordered = scores.new_zeros((*scores.shape[:2], classes))
            ordered[..., copy_to_device(torch.tensor(student_columns), scores.device)] = scores
            scores = ordered
        return cls(scores, boxes, valid)

    def replace_predictions(self, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Put the teacher's predictions of valid images in the place of the student's.

        Args:
            args (tuple[Tensor, ...]): Arguments of the assigner; the first two are the student's scores and boxes.

        Returns:
            (tuple[Tensor, ...]): The same arguments with scores and boxes replaced, of the same types.
        """
        valid = self.valid[:, None, None]
        scores, boxes = (
            torch.where(valid, taught.to(student.dtype), student)
            for taught, student in zip((self.scores, self.boxes), args[:2], strict=True)
        )
        return scores, boxes, *args[2:]


@contextmanager
def assign_by_teacher(criterion: Any, assignment: TeacherAssignment | None) -> Iterator[None]:
    """Let the teacher's predictions assign the ground truth while the context lasts. Not part of the published method.

    Only the one-to-many branch of an end-to-end student takes them: features reach the neck through it. The one-to-one
    branch keeps its own assignment.

    Args:
        criterion (Any): The student's criterion.
        assignment (TeacherAssignment | None): The teacher's predictions; None changes nothing.

    Yields:
        (None): While it lasts, each call of the criterion uses that assignment.
    """
    if assignment is None:
        yield
        return

    def replace(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return assignment.replace_predictions(args)

    handle = dense_criterion(criterion).assigner.register_forward_pre_hook(replace)
    try:
        yield
    finally:
        handle.remove()


def refuse_missing_levels(
    settings: Settings, student_strides: Sequence[float], pairs: Sequence[tuple[int, int]]
) -> None:
    """Refuse an assignment by a teacher that does not predict at all of the student's anchors.

    Args:
        settings (Settings): With `assign_epochs`.
        student_strides (Sequence[float]): Strides of the student's levels.
        pairs (Sequence[tuple[int, int]]): Student index and teacher index of each distilled level.

    Raises:
        BadUseError: If a level of the student is not distilled, or the levels are in another order.
    """
    if settings.assign_epochs and [s for s, _ in pairs] != list(range(len(student_strides))):
        student = ", ".join(f"{s:g}" for s in student_strides)
        distilled = ", ".join(f"{student_strides[s]:g}" for s, _ in pairs)
        raise BadUseError(
            f"assign_epochs={settings.assign_epochs} needs every level of the student ({student}), distilled are "
            f"{distilled}: use a teacher with these strides and no levels=, or leave out assign_epochs="
        )


def refuse_unknown_classes(settings: Settings, class_map: ClassMap, args: Namespace) -> None:
    """Refuse an assignment by a teacher that does not know each class of the labels.

    Args:
        settings (Settings): With `assign_epochs`.
        class_map (ClassMap): Classes of teacher and data.
        args (Namespace): Ultralytics' settings: labels of classes that `classes=` leaves out do not count.

    Raises:
        BadUseError: Naming the classes that the teacher lacks.
    """
    if not settings.assign_epochs:
        return
    wanted = args.classes if isinstance(args.classes, (list, tuple)) else [args.classes]
    every, shared = args.single_cls or args.classes is None, {d for d, _ in class_map.pairs}
    unknown = [name for i, name in enumerate(class_map.data) if i not in shared and (every or i in wanted)]
    if unknown:
        raise BadUseError(
            f"assign_epochs={settings.assign_epochs}: the teacher does not know the data's {join_names(unknown)}, name "
            "the classes alike or leave out assign_epochs="
        )
