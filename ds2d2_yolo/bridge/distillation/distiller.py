"""The terms of DS2D2 for a pair of Ultralytics models: features and predictions in, losses out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ds2d2_yolo.bridge.distillation.adapter_fit import AdapterFit
from ds2d2_yolo.bridge.distillation.batch import HeadOutputs, StudentInputs, TeacherOutputs
from ds2d2_yolo.bridge.distillation.finite_guard import FiniteGuard, valid_images
from ds2d2_yolo.bridge.distillation.prediction_loss import prediction_loss, select_images, shared_classes
from ds2d2_yolo.bridge.distillation.targets import Targets
from ds2d2_yolo.bridge.distillation.teacher_assignment import TeacherAssignment
from ds2d2_yolo.bridge.distillation.weighting import (
    level_scores,
    level_weights,
    sum_levels,
    teacher_score_sum,
    weight_maps,
)
from ds2d2_yolo.bridge.models.amplifier import Amplifier
from ds2d2_yolo.bridge.models.composed_head import AdaptedHead
from ds2d2_yolo.bridge.models.heads import box_bins, logits_and_boxes, raw_predictions, strides_of, take_levels
from ds2d2_yolo.bridge.models.teacher import FrozenTeacher
from ds2d2_yolo.config.settings import EXPLICIT, IMPLICIT, Settings
from ds2d2_yolo.core import confident_scores, explicit_loss
from ds2d2_yolo.core.aligned_scale import align_scale
from ds2d2_yolo.core.explained_variance import explained_variance

if TYPE_CHECKING:
    from ultralytics.nn.modules.head import Detect


class Distiller:
    """Computes the active terms of one batch at gain 1. `build.build_distiller` assembles one.

    Args:
        settings (Settings): Of the run.
        student_head (Detect): The student's head, uncompiled.
        teacher (FrozenTeacher): Bound to the student's levels.
        adapters (nn.ModuleList): One 1 x 1 convolution per pair of levels.
        amplifier (Amplifier | None): High-frequency amplifier, needed while `imhi` is active.
        teacher_columns (list[int] | None): The teacher's classes that are distilled, None for all.
        student_columns (list[int] | None): The student's classes that are distilled, in the order of `teacher_columns`.
        seed (int): Seed of the choice of images where `implicit_fraction` is below 1.

    Attributes:
        adapter_fit (AdapterFit): Sets the adapters in the first `adapter_fit_epochs` epochs.
        left_out (dict[str, Tensor]): For each term of the last call, whether it was not finite and left out.
        assigns (bool): Whether the teacher assigns the ground truth in the current epoch.
    """

    def __init__(
        self,
        settings: Settings,
        student_head: Detect,
        teacher: FrozenTeacher,
        adapters: nn.ModuleList,
        amplifier: Amplifier | None,
        teacher_columns: list[int] | None = None,
        student_columns: list[int] | None = None,
        seed: int = 0,
    ) -> None:
        self.settings = settings
        self.teacher = teacher
        self.adapters = adapters
        self.adapter_fit = AdapterFit(settings.adapter_fit_epochs)
        self.amplifier = amplifier
        self.teacher_columns = teacher_columns
        self.student_columns = student_columns
        self.strides = strides_of(teacher.head)
        self.left_out: dict[str, Tensor] = {}
        self.assigns = settings.assign_epochs > 0
        self.heads = {"imfu": AdaptedHead(teacher.head)}
        if amplifier is not None:
            self.heads["imhi"] = AdaptedHead(amplifier.head)
        # decodes as the teacher's head does: upright boxes as corners
        self._student_head = take_levels(student_head, self.levels)
        self._student_head.stride = self._student_head.stride.cpu()  # reading them must not wait for a GPU
        # a generator of its own: the choice of images must not move the random state that the run's data depend on
        self._random = torch.Generator().manual_seed(seed)

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

    def start_epoch(self, seed: int, epoch: int = 0) -> None:
        """Begin an epoch. It depends on the arguments only, so that a resumed or repeated epoch does the same.

        Args:
            seed (int): Seed of the epoch's choice of images.
            epoch (int): Epoch, from 0; it determines who assigns the ground truth and whether adapters are fitted.
        """
        self._random.manual_seed(seed)
        self.adapter_fit.start_epoch(epoch)
        self.assigns = epoch < self.settings.assign_epochs

    def fit_adapters(self, student: StudentInputs, teacher: TeacherOutputs) -> None:
        """Set the adapters from the features of a batch, in the epochs of `adapter_fit_epochs`.

        Args:
            student (StudentInputs): The student's side of the batch.
            teacher (TeacherOutputs): The teacher's side.
        """
        features = [student.features[level] for level in self.levels]
        self.adapter_fit.update(self.adapters, features, teacher.features, teacher.valid)

    @torch.no_grad()
    def teacher_outputs(self, images: Tensor, all_images: bool = False) -> TeacherOutputs:
        """Return the outputs of teacher and amplifiers for a batch.

        Args:
            images (Tensor): B x C x H x W in [0, 1].
            all_images (bool): Whether the implicit stream takes all images whatever `implicit_fraction` is. The choice
                is drawn all the same, so that later batches draw the same images.

        Returns:
            (TeacherOutputs): For the call.
        """
        active = self.settings.active
        uses_scores = self.settings.weight_map != "disw" or self.settings.level_balance == "score"
        needs_scores = uses_scores and bool(set(active) & set(EXPLICIT))
        if not (needs_scores or self.assigns or set(active) & set(IMPLICIT)):
            features = self.teacher.features(images)
            return TeacherOutputs(*_mask_invalid(features, valid_images(features)), None, {}, None, None)
        raw = self.teacher(images)
        decoded = self._decode(self.teacher.head, raw)
        features, valid = _mask_invalid(raw["feats"], valid_images([*raw["feats"], *decoded]))
        shared_logits = shared_classes(decoded[0], self.teacher_columns)
        scores = level_scores(shared_logits, features, valid) if needs_scores else None
        drawn = self._draw_images(len(images), images.device)
        chosen = None if all_images else drawn
        predictions = {}
        if "imfu" in active:
            predictions["imfu"] = _head_outputs(
                [select_images(x, chosen) for x in decoded], select_images(valid, chosen)
            )
        if "imhi" in active and self.amplifier is not None:
            amplified = self.amplifier([select_images(f, chosen) for f in features])
            high = self._decode(self.amplifier.head, amplified)
            predictions["imhi"] = _head_outputs(high, select_images(valid, chosen) & valid_images(high))
        score_sum = teacher_score_sum(shared_logits, valid)
        assignment = confidence = None
        if self.assigns:
            classes = int(self._student_head.nc)
            assignment = TeacherAssignment.of(shared_logits, decoded[1], valid, self.student_columns, classes)
        if self.settings.box_distribution or self.settings.box_angle:
            confidence = confident_scores(shared_logits).where(valid[:, None], 0)
        return TeacherOutputs(features, valid, chosen, predictions, score_sum, scores, assignment, confidence)

    def __call__(self, student: StudentInputs, teacher: TeacherOutputs) -> dict[str, Tensor]:
        """Return the active terms at gain 1.

        Images that are not valid contribute nothing. If a term of a stream is not finite nevertheless (features that
        the teacher's head cannot take, for example), it is exactly 0 with a gradient of 0; see `left_out`.

        Args:
            student (StudentInputs): The student's side of the batch.
            teacher (TeacherOutputs): The teacher's side.

        Returns:
            (dict[str, Tensor]): Float32 scalars by term.
        """
        features = [student.features[level] for level in self.levels]
        active = self.settings.active
        losses: dict[str, Tensor] = {}
        adapted: list[Tensor] | None = None
        if set(active) & set(EXPLICIT):
            adapted = [adapter(x) for adapter, x in zip(self.adapters, features, strict=True)]
            losses |= self._explicit(adapted, teacher, student.targets)
        losses |= self._implicit(features, adapted, student, teacher)
        return {term: losses[term] for term in active}

    def student_predictions(self, raw: dict[str, Any]) -> tuple[Tensor, ...]:
        """Decode the student's raw outputs on the distilled levels.

        Args:
            raw (dict[str, Any]): Raw one-to-many outputs of all levels.

        Returns:
            logits (Tensor): B x anchors x distilled classes.
            boxes (Tensor): B x anchors x 4 or 5, pixels.
            bins (Tensor): B x anchors x 4 x bins, with `box_distribution` only.
        """
        features = raw["feats"]
        cells = [f.shape[2] * f.shape[3] for f in features]
        distilled: dict[str, Any] = {
            key: torch.cat([torch.split(x, cells, -1)[level] for level in self.levels], -1)
            for key, x in raw.items()
            if key in ("scores", "boxes", "angle")
        }
        distilled["feats"] = [features[level] for level in self.levels]
        logits, *others = self._decode(self._student_head, distilled)
        return (logits if self.student_columns is None else logits[..., self.student_columns], *others)

    def _decode(self, head: Detect, raw: dict[str, Any]) -> tuple[Tensor, ...]:
        """Return what a head predicts: logits, boxes and, with `box_distribution`, the logits of the DFL bins."""
        decoded = logits_and_boxes(head, raw)
        return (*decoded, box_bins(head, raw)) if self.settings.box_distribution else decoded

    def _draw_images(self, batch_size: int, device: torch.device) -> Tensor | None:
        """Draw the images of the implicit stream, None for all."""
        count = max(1, round(self.settings.implicit_fraction * batch_size))
        if count >= batch_size:
            return None
        return torch.randperm(batch_size, generator=self._random)[:count].to(device, non_blocking=True)

    def _explicit(self, adapted: list[Tensor], teacher: TeacherOutputs, targets: Targets) -> dict[str, Tensor]:
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
        weights = level_weights(self.settings, adapted, teacher.scores)
        sums = {term: sum_levels([level[term] for level in levels], weights) for term in levels[0]}
        losses = dict(zip(sums, guard.outputs(*sums.values()), strict=True))
        self.left_out |= dict.fromkeys(losses, guard.left_out)
        return losses

    def _explicit_level(self, student: Tensor, teacher: Tensor, weight: Tensor, valid: Tensor) -> dict[str, Tensor]:
        """Return the explicit terms of one level. The weight map has the cells of the wavelet's bands."""
        options = self.settings.wavelet, self.settings.feature_norm, self.settings.robust
        low, high = explicit_loss(student, teacher, weight, *options, valid, self.settings.fused_explicit)
        if self.settings.adapter_gate:
            gate = (explained_variance(student, teacher, valid) > 0).to(low.dtype)
            low, high = low * gate, high * gate
        return {"exlo": low, "exhi": high}

    def _implicit(
        self, features: list[Tensor], adapted: list[Tensor] | None, student: StudentInputs, teacher: TeacherOutputs
    ) -> dict[str, Tensor]:
        """Return the implicit terms: predictions from the student's features against those from the teacher's."""
        chosen = [select_images(x, teacher.images) for x in features]
        adapted = adapted and [select_images(a, teacher.images) for a in adapted]
        # a sample without replacement, scaled up: its mean over all samples is the term of the full batch
        scale = len(features[0]) / len(chosen[0])
        own_head = self.settings.imfu_head
        losses = {}
        for term, wanted in teacher.predictions.items():
            guard = FiniteGuard()
            compared = []
            if term != "imfu" or own_head != "own":
                compared.append(self._amplified(term, guard, chosen, adapted, teacher))
            if term == "imfu" and own_head != "teacher":
                predictions = self.student_predictions(student.predictions)
                compared.append(tuple(guard.inputs([select_images(x, teacher.images) for x in predictions])))
            values = [
                prediction_loss(self.settings, predictions, wanted, teacher, self.teacher_columns)
                for predictions in compared
            ]
            (losses[term],) = guard.outputs(scale * torch.stack(values).sum())
            self.left_out[term] = guard.left_out
        return losses

    def _amplified(
        self,
        term: str,
        guard: FiniteGuard,
        features: list[Tensor],
        adapted: list[Tensor] | None,
        teacher: TeacherOutputs,
    ) -> tuple[Tensor, ...]:
        """Return an amplifier's predictions for the student's features, with the logits of the distilled classes."""
        head, inputs = self.heads[term], guard.inputs(features)
        weights = guard.inputs(list(self.adapters.parameters()))  # one per adapter, they have no bias
        if term == "imhi" and self.amplifier is not None:
            # hf acts on each channel separately, so hf(A S) = A hf(S), on as many channels as the student has
            raw = head(self.amplifier.inputs(inputs), weights)
        elif self.settings.adapter_scale == "aligned":
            adapted = (
                guard.inputs(adapted) if adapted else [F.conv2d(*pair) for pair in zip(inputs, weights, strict=True)]
            )
            raw = raw_predictions(head.head, _align(adapted, teacher))
        else:
            raw = head(inputs, weights, adapted and guard.inputs(adapted))
        logits, *others = self._decode(head.head, raw)
        return (shared_classes(logits, self.teacher_columns), *others)


def _head_outputs(decoded: Sequence[Tensor], valid: Tensor) -> HeadOutputs:
    """Name the tensors of `Distiller._decode`."""
    logits, boxes, *bins = decoded
    return HeadOutputs(logits, boxes, valid, *bins)


def _align(adapted: list[Tensor], teacher: TeacherOutputs) -> list[Tensor]:
    """Give adapted features of the chosen images the scale of the teacher's."""
    valid = select_images(teacher.valid, teacher.images)
    wanted = [select_images(t, teacher.images) for t in teacher.features]
    return [align_scale(a, t, valid) for a, t in zip(adapted, wanted, strict=True)]


def _mask_invalid(features: list[Tensor], valid: Tensor) -> tuple[list[Tensor], Tensor]:
    """Zero the features of images that are not valid, in place, and return both."""
    return [f.masked_fill_(~valid[:, None, None, None], 0) for f in features], valid
