"""Where the terms of a pair of models act: measured on a few batches, without a training."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from ds2d2_yolo.bridge.distillation.batch import StudentInputs, TeacherOutputs
from ds2d2_yolo.bridge.distillation.distiller import Distiller
from ds2d2_yolo.bridge.distillation.gains import Gains
from ds2d2_yolo.bridge.distillation.gradients.levels import TASK, level_fractions, level_key
from ds2d2_yolo.bridge.distillation.gradients.norms import neck_losses
from ds2d2_yolo.bridge.distillation.prediction_loss import shared_classes
from ds2d2_yolo.bridge.distillation.probing.assignment import Assignment, assignment_of, reassigned
from ds2d2_yolo.bridge.distillation.targets import Targets, capture_assigner_calls
from ds2d2_yolo.bridge.distillation.teacher_size import in_student_frame, teacher_images
from ds2d2_yolo.bridge.distillation.weighting import level_scores, weight_maps
from ds2d2_yolo.bridge.models.heads import dense_head, logits_and_boxes, strides_of
from ds2d2_yolo.core.explained_variance import explained_variance

Levels = list[float]  # one value for each distilled level
STUDENT, TEACHER = "student", "teacher"


@dataclass(frozen=True)
class Probe:
    """Means over some batches of what a pair of models shows on each distilled level.

    Attributes:
        strides (tuple[float, ...]): Strides of the distilled levels in pixels.
        images (int): Images that were measured.
        gradient (dict[str, Levels]): Part of the squared gradient of the task loss (`TASK`) and of each term that lies
            on a level of the student's neck, 0 to 1, of sum 1; zeros where there is no gradient.
        weights (dict[str, Levels]): Weight of each level by explicit term, measured on these batches as a run measures
            it (`level_balance` 'measured'); `gradient` has them. Empty with other values.
        cosine (dict[str, Levels]): Cosine of that gradient with the task loss's on the same level, 0 where one is 0.
        explained (Levels): R^2 of the adapted student features for the teacher's, at most 1.
        teacher_scores (Levels): Part of the sum of the teacher's largest class scores of all cells, 0 to 1.
        object_cells (Levels): Part of the cells of the wavelet's bands that hold an object, 0 to 1.
        object_weight (Levels): Part of the DISW map's weight on those cells, 0 to 1.
        assignment (dict[str, Assignment]): Assignment with the predictions of the `STUDENT` and of the `TEACHER`. The
            latter only where the teacher has all levels and all classes of the student.
    """

    strides: tuple[float, ...]
    images: int
    gradient: dict[str, Levels]
    weights: dict[str, Levels]
    cosine: dict[str, Levels]
    explained: Levels
    teacher_scores: Levels
    object_cells: Levels
    object_weight: Levels
    assignment: dict[str, Assignment]

    def rows(self) -> list[tuple[str, str, float | None, float]]:
        """Return the values as rows of a table.

        Returns:
            (list[tuple[str, str, float | None, float]]): Measure, of which loss or model, stride (None for a value of
                all levels), value.
        """
        levels = [("gradient", name, values) for name, values in self.gradient.items()]
        levels += [("weight", name, values) for name, values in self.weights.items()]
        levels += [("cosine", name, values) for name, values in self.cosine.items()]
        levels += [
            ("explained", "adapters", self.explained),
            ("scores", TEACHER, self.teacher_scores),
            ("object_cells", "disw", self.object_cells),
            ("object_weight", "disw", self.object_weight),
        ]
        rows: list[tuple[str, str, float | None, float]] = [
            (measure, name, stride, value)
            for measure, name, values in levels
            for stride, value in zip(self.strides, values, strict=True)
        ]
        for name, sums in self.assignment.items():
            rows += [(measure, name, None, float(value)) for measure, value in vars(sums).items()]
        return rows


class Prober:
    """Measures a pair of models batch by batch, in float32; the student's weights and buffers stay as they are.

    The student is in training mode, as in a run: its BatchNorm layers take the statistics of the batch, and update
    copies of their buffers. Gradients are those of the terms at gain 1; neither parts nor cosines depend on the gain.

    Args:
        model (Any): The student, in training mode, with `args`.
        distiller (Distiller): Bound to the student's head.
    """

    def __init__(self, model: Any, distiller: Distiller) -> None:
        self.model = model
        self.head = dense_head(model, "the student")
        self.criterion = model.init_criterion()
        self.distiller = distiller

    def measure(self, batches: Iterable[dict[str, Any]]) -> Probe:
        """Measure batches.

        Args:
            batches (Iterable[dict[str, Any]]): Batches as Ultralytics' criterion takes them, at least one, images in
                0 to 1.

        Returns:
            (Probe): Means over the batches; of the assignment the sums.
        """
        norms, measured = zip(*map(self._batch, batches), strict=True)
        first, strides = measured[0], self.distiller.strides
        gains = Gains(self.distiller.settings)
        gains.start_epoch(0, epochs=1, batches=len(norms), warm=True)
        for batch_norms in norms:
            gains.calibrate(batch_norms, one2many_weight=1.0, strides=strides)
        return Probe(
            strides,
            sum(p.images for p in measured),
            {k: level_fractions(gains.measured, k, strides) or [0.0] * len(strides) for k in first.cosine},
            gains.current_weights(strides),
            {name: _mean([p.cosine[name] for p in measured]) for name in first.cosine},
            _mean([p.explained for p in measured]),
            _mean([p.teacher_scores for p in measured]),
            _mean([p.object_cells for p in measured]),
            _mean([p.object_weight for p in measured]),
            {k: sum((p.assignment[k] for p in measured), Assignment()) for k in first.assignment},
        )

    def _batch(self, batch: dict[str, Any]) -> tuple[dict[str, float], Probe]:
        """Return the gradient norms of one batch, all levels at weight 1, and its probe without what they give."""
        distiller, images, larger = self.distiller, batch["img"], teacher_images(batch)
        with torch.no_grad():
            buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
            outputs = torch.func.functional_call(self.model, buffers, (images,))
            with capture_assigner_calls(self.criterion) as calls:
                self.criterion(outputs, batch)
            call = calls[0]
            logits, boxes = logits_and_boxes(distiller.teacher.head, distiller.teacher(larger))
            assignment = {STUDENT: assignment_of(call)}
            if (scores := self._scores_of_student_classes(logits)) is not None:
                boxes = in_student_frame(boxes, distiller.teacher.ratio)
                assignment[TEACHER] = assignment_of(reassigned(self.criterion, call, scores, boxes))
        student = StudentInputs.of(self.criterion, outputs, call.targets)
        teacher = distiller.teacher_outputs(larger)
        cells, weight = self._object_weight(student, call.targets)
        norms, cosine = self._gradients(student, teacher, batch)
        cell_scores = level_scores(shared_classes(logits, distiller.teacher_columns), teacher.features, teacher.valid)
        return norms, Probe(
            distiller.strides,
            len(images),
            {},
            {},
            cosine,
            self._explained(student, teacher),
            _parts(torch.stack([level.sum() for level in cell_scores])),
            cells,
            weight,
            assignment,
        )

    def _gradients(
        self, student: StudentInputs, teacher: TeacherOutputs, batch: dict[str, Any]
    ) -> tuple[dict[str, float], dict[str, Levels]]:
        """Return the norms of the gradients, as `measure_gradients` does, and the cosines with the task loss's."""
        with torch.enable_grad(), torch.autocast(batch["img"].device.type, enabled=False):
            losses, leaves = neck_losses(self.criterion, self.head, self.distiller, student, teacher, batch)
            gradients = {
                str(name): torch.autograd.grad(loss, leaves, retain_graph=True, materialize_grads=True)
                for name, loss in losses.items()
            }
        flat = {name: [g.flatten().double() for g in levels] for name, levels in gradients.items()}
        norms = {
            level_key(k, stride): float(g.norm())
            for k, levels in flat.items()
            for stride, g in zip(self.distiller.strides, levels, strict=True)
        } | {k: float(torch.cat(levels).norm()) for k, levels in flat.items()}
        cosines = {
            k: [float(cosine_similarity(g, t, dim=0, eps=0)) if g.any() and t.any() else 0.0 for g, t in pairs]
            for k, pairs in ((k, list(zip(levels, flat[TASK], strict=True))) for k, levels in flat.items())
        }
        return norms, cosines

    @torch.no_grad()
    def _explained(self, student: StudentInputs, teacher: TeacherOutputs) -> Levels:
        """Return R^2 of the adapted student features."""
        levels = [student.features[i] for i in self.distiller.levels]
        adapted = [adapter(x) for adapter, x in zip(self.distiller.adapters, levels, strict=True)]
        pairs = zip(adapted, teacher.features, strict=True)
        return [float(explained_variance(a, t, teacher.valid)) for a, t in pairs]

    def _object_weight(self, student: StudentInputs, targets: Targets) -> tuple[Levels, Levels]:
        """Return the part of the cells that hold an object, and the part of the DISW map's weight on them."""
        settings = self.distiller.settings
        levels = [student.features[i] for i in self.distiller.levels]
        disw = replace(settings, weight_map="disw", disw=1.0)
        cells, weights = [], []
        for published in weight_maps(disw, levels, self.distiller.strides, targets, None):
            inside, weight = published > 1, 1 + settings.disw * (published - 1)
            cells.append(float(inside.float().mean()))
            weights.append(float(weight[inside].sum() / weight.sum()))
        return cells, weights

    def _scores_of_student_classes(self, logits: Tensor) -> Tensor | None:
        """Return the teacher's scores in the order of the student's classes, None if it lacks a level or a class."""
        columns = self.distiller.student_columns
        shared = shared_classes(logits, self.distiller.teacher_columns).sigmoid()
        count = int(self.head.nc)
        order = list(range(shared.shape[-1])) if columns is None else columns
        if len(self.distiller.levels) < len(strides_of(self.head)) or sorted(order) != list(range(count)):
            return None
        return shared[..., [order.index(c) for c in range(count)]]


def _parts(values: Tensor) -> Levels:
    """Return values over their sum; zeros where the sum is 0."""
    total = float(values.sum())
    return [float(v) / total if total > 0 else 0.0 for v in values]


def _mean(batches: list[Levels]) -> Levels:
    """Return the mean over the batches of each level's value."""
    return [fmean(level) for level in zip(*batches, strict=True)]
