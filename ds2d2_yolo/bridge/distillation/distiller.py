"""The terms of DS2D2 for a pair of Ultralytics models: features and predictions in, losses out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ds2d2_yolo.bridge.distillation.adapter_init import RidgeInit
from ds2d2_yolo.bridge.distillation.batch import HeadOutputs, StudentInputs, TeacherOutputs
from ds2d2_yolo.bridge.distillation.finite_guard import FiniteGuard, valid_images, zero_invalid
from ds2d2_yolo.bridge.distillation.prediction_loss import prediction_loss, shared_classes
from ds2d2_yolo.bridge.distillation.targets import Targets
from ds2d2_yolo.bridge.distillation.teacher_size import in_student_frame
from ds2d2_yolo.bridge.distillation.unlabelled.teacher_boxes import teacher_detections
from ds2d2_yolo.bridge.distillation.weighting import level_scores, sum_levels, teacher_score_sum, weight_maps
from ds2d2_yolo.bridge.models.amplifier import Amplifier
from ds2d2_yolo.bridge.models.composed_head import AdaptedHead
from ds2d2_yolo.bridge.models.heads import logits_and_boxes, strides_of
from ds2d2_yolo.bridge.models.teacher import FrozenTeacher
from ds2d2_yolo.config.settings import EXPLICIT, IMPLICIT, Settings
from ds2d2_yolo.core import explicit_loss


class Distiller:
    """Computes the active terms of one batch at gain 1. `build.build_distiller` assembles one.

    Args:
        settings (Settings): Of the run.
        teacher (FrozenTeacher): Bound to the student's levels.
        adapters (nn.ModuleList): One 1 x 1 convolution per pair of levels.
        amplifier (Amplifier | None): High-frequency amplifier, needed while `imhi` is active.
        teacher_columns (list[int] | None): The teacher's classes that are distilled, None for all.
        student_columns (list[int] | None): The student's classes that are distilled, in the order of `teacher_columns`.

    Attributes:
        strides (tuple[float, ...]): Strides of the distilled levels in pixels of the student's images.
        left_out (dict[str, Tensor]): For each term of the last call, whether it was not finite and left out.
    """

    def __init__(
        self,
        settings: Settings,
        teacher: FrozenTeacher,
        adapters: nn.ModuleList,
        amplifier: Amplifier | None,
        teacher_columns: list[int] | None = None,
        student_columns: list[int] | None = None,
    ) -> None:
        self.settings = settings
        self.teacher = teacher
        self.adapters = adapters
        self.amplifier = amplifier
        self.teacher_columns = teacher_columns
        self.student_columns = student_columns
        self.strides = tuple(s / teacher.ratio for s in strides_of(teacher.head))
        self.left_out: dict[str, Tensor] = {}
        self.ridge_init = RidgeInit(adapters) if settings.adapter_init == "ridge" else None
        self.heads = {"imfu": AdaptedHead(teacher.head)}
        if amplifier is not None:
            self.heads["imhi"] = AdaptedHead(amplifier.head)

    def to(self, device: torch.device) -> Distiller:
        """Move teacher, adapters and amplifier to a device and return the distiller.

        Args:
            device (torch.device): The device.

        Returns:
            (Distiller): This distiller.
        """
        self.teacher.to(device)
        self.adapters.to(device)
        if self.amplifier is not None:
            self.amplifier.to(device)
        return self

    @property
    def levels(self) -> list[int]:
        """(list[int]): Indices of the student's levels that are distilled."""
        return [student_level for student_level, _ in self.teacher.pairs]

    def start_epoch(self, epoch: int) -> None:
        """Begin an epoch; the first one sets the adapters if `adapter_init` is 'ridge'.

        Args:
            epoch (int): Epoch, from 0.
        """
        if self.ridge_init is not None:
            self.ridge_init.start_epoch(epoch)

    def set_adapters(self, student: StudentInputs, teacher: TeacherOutputs) -> None:
        """Set the adapters from a batch where `adapter_init` asks for it, before the terms of the batch.

        Args:
            student (StudentInputs): The student's side of the batch.
            teacher (TeacherOutputs): The teacher's side.
        """
        if self.ridge_init is not None:
            features = [student.features[level] for level in self.levels]
            self.ridge_init.update(features, teacher.features, teacher.valid)

    @torch.no_grad()
    def teacher_outputs(self, images: Tensor, labelled: int | None = None) -> TeacherOutputs:
        """Return the outputs of teacher and amplifiers for a batch.

        Args:
            images (Tensor): B x C x H x W in [0, 1], of the teacher's size.
            labelled (int | None): Number of images with labels, which come first; None for all.

        Returns:
            (TeacherOutputs): For the call.
        """
        active = self.settings.active
        needs_scores = self.settings.weight_map != "disw" and bool(set(active) & set(EXPLICIT))
        needs_boxes = labelled not in {None, len(images)} and self._uses_boxes
        if not (needs_scores or needs_boxes or set(active) & set(IMPLICIT)):
            features = self.teacher.features(images)
            valid = valid_images(features)
            return TeacherOutputs(zero_invalid(features, valid), valid, {}, None, None)
        raw = self.teacher(images)
        decoded = logits_and_boxes(self.teacher.head, raw)
        valid = valid_images([*raw["feats"], *decoded])
        features = zero_invalid(raw["feats"], valid)
        shared_logits = shared_classes(decoded[0], self.teacher_columns)
        scores = level_scores(shared_logits, features, valid) if needs_scores else None
        predictions = {}
        if "imfu" in active:
            predictions["imfu"] = HeadOutputs(*decoded, valid)
        if "imhi" in active and self.amplifier is not None:
            high = logits_and_boxes(self.amplifier.head, self.amplifier(features))
            predictions["imhi"] = HeadOutputs(*high, valid & valid_images(list(high)))
        detections = []
        if needs_boxes:
            boxes = in_student_frame(decoded[1][labelled:], self.teacher.ratio)
            size = [side // self.teacher.ratio for side in images.shape[2:]]
            predicted = shared_logits[labelled:], boxes, valid[labelled:]
            detections = teacher_detections(*predicted, self.settings.unlabelled_conf, size)
        return TeacherOutputs(features, valid, predictions, teacher_score_sum(shared_logits, valid), scores, detections)

    @property
    def _uses_boxes(self) -> bool:
        """(bool): Whether an active term weighs cells by boxes."""
        return self.settings.weight_map != "score" and bool(set(self.settings.active) & set(EXPLICIT))

    def __call__(
        self, student: StudentInputs, teacher: TeacherOutputs, measured: Mapping[str, Sequence[float]] | None = None
    ) -> dict[str, Tensor]:
        """Return the active terms at gain 1.

        Images that are not valid contribute nothing. If a term of a stream is not finite nevertheless (features that
        the teacher's head cannot take, for example), it is exactly 0 with a gradient of 0; see `left_out`.

        Args:
            student (StudentInputs): The student's side of the batch.
            teacher (TeacherOutputs): The teacher's side.
            measured (Mapping[str, Sequence[float]] | None): Weight of each level by explicit term, for `level_balance`
                'measured': see `Gains.current_weights`. None gives each level a weight of 1, at which the gradients
                are measured.

        Returns:
            (dict[str, Tensor]): Float32 scalars by term.
        """
        features = [student.features[level] for level in self.levels]
        active = self.settings.active
        losses: dict[str, Tensor] = {}
        adapted: list[Tensor] | None = None
        if set(active) & set(EXPLICIT):
            adapted = [adapter(x) for adapter, x in zip(self.adapters, features, strict=True)]
            losses |= self._explicit(adapted, teacher, student.targets, measured)
        losses |= self._implicit(features, adapted, teacher)
        return {term: losses[term] for term in active}

    def _explicit(
        self,
        adapted: list[Tensor],
        teacher: TeacherOutputs,
        targets: Targets,
        measured: Mapping[str, Sequence[float]] | None = None,
    ) -> dict[str, Tensor]:
        """Return the explicit terms, weighted and summed over the levels; zeros if one of them is not finite."""
        guard = FiniteGuard()
        maps = weight_maps(self.settings, adapted, self.strides, targets, teacher.scores)
        valid = teacher.valid[:, None, None, None]
        levels = [
            self._explicit_level(student_features, teacher_features, weight * valid, teacher.valid)
            for student_features, teacher_features, weight in zip(
                guard.inputs(adapted), teacher.features, maps, strict=True
            )
        ]
        sums = {term: sum_levels([level[term] for level in levels], (measured or {}).get(term)) for term in levels[0]}
        losses = dict(zip(sums, guard.outputs(*sums.values()), strict=True))
        self.left_out |= dict.fromkeys(losses, guard.left_out)
        return losses

    def _explicit_level(self, student: Tensor, teacher: Tensor, weight: Tensor, valid: Tensor) -> dict[str, Tensor]:
        """Return the explicit terms of one level. The weight map has the cells of the wavelet's bands."""
        options = self.settings.wavelet, self.settings.feature_norm
        low, high = explicit_loss(student, teacher, weight, *options, valid, self.settings.fused_explicit)
        return {"exlo": low, "exhi": high}

    def _implicit(
        self, features: list[Tensor], adapted: list[Tensor] | None, teacher: TeacherOutputs
    ) -> dict[str, Tensor]:
        """Return the implicit terms: predictions from the student's features against those from the teacher's."""
        losses = {}
        for term, teacher_predictions in teacher.predictions.items():
            guard = FiniteGuard()
            student_predictions = self._amplified(term, guard, features, adapted, teacher)
            assert teacher.score_sum is not None
            value = prediction_loss(
                student_predictions,
                teacher_predictions,
                teacher.score_sum,
                self.teacher_columns,
                self.settings.box_distance,
            )
            (losses[term],) = guard.outputs(value)
            self.left_out[term] = guard.left_out
        return losses

    def _amplified(
        self,
        term: str,
        guard: FiniteGuard,
        features: list[Tensor],
        adapted: list[Tensor] | None,
        teacher: TeacherOutputs,
    ) -> tuple[Tensor, Tensor]:
        """Return logits of the distilled classes and boxes that an amplifier predicts from the student's features."""
        head, inputs = self.heads[term], guard.inputs(features)
        weights = guard.inputs(list(self.adapters.parameters()))  # one per adapter, they have no bias
        if term == "imhi" and self.amplifier is not None:
            # hf acts on each channel separately, so hf(A S) = A hf(S), on as many channels as the student has
            raw = head(self.amplifier.inputs(inputs), weights)
        else:
            raw = head(inputs, weights, adapted and guard.inputs(adapted))
        logits, boxes = logits_and_boxes(head.head, raw)
        return shared_classes(logits, self.teacher_columns), boxes
