"""The criterion of a distilled student: its usual loss plus the DS2D2 terms. The model stays the plain student."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ds2d2_yolo.bridge.distillation.batch import StudentInputs
from ds2d2_yolo.bridge.distillation.criterion_with_terms import CriterionWithTerms
from ds2d2_yolo.bridge.distillation.distiller import Distiller
from ds2d2_yolo.bridge.distillation.gains import Gains
from ds2d2_yolo.bridge.distillation.gradients.norms import measure_gradients
from ds2d2_yolo.bridge.distillation.targets import capture_assigner_calls
from ds2d2_yolo.bridge.distillation.teacher_size import teacher_images
from ds2d2_yolo.bridge.distillation.unlabelled.labelled_rows import labelled_count, loss_images, task_loss
from ds2d2_yolo.config.settings import TERMS

if TYPE_CHECKING:
    from ultralytics.nn.modules.head import Detect

LOSS_NAMES = {term: f"{term}_loss" for term in TERMS}  # 'loss' in the name: results.png plots such columns only


def loss_ratios(losses: Mapping[str, Any]) -> dict[str, float]:
    """Return each term's loss, gain included, over the task's loss.

    Ultralytics reports the one-to-one branch of an end-to-end student, so the ratio refers to that branch.

    Args:
        losses (Mapping[str, Any]): Means of an epoch by name: parts of the task's loss and the terms of `LOSS_NAMES`.

    Returns:
        (dict[str, float]): 'ratio/<term>' for each term, NaN where the task's loss is 0.
    """
    task = sum(float(v) for k, v in losses.items() if k not in LOSS_NAMES.values())
    return {f"ratio/{t}": float(losses[name]) / task if task else math.nan for t, name in LOSS_NAMES.items()}


class DistillationCriterion(CriterionWithTerms):
    """A student's usual criterion with the DS2D2 terms added.

    total = YOLO loss + batch size x sum over the terms of gain x term; the logged columns hold gain x term. With
    unlabelled images the YOLO loss is that of the labelled ones, whose number is the batch size in this formula. Where
    gradients are off (validation) or no term is active in the epoch, the plain loss is returned with zeros in the
    columns.

    Args:
        base (Any): The criterion that the student would have had (v8DetectionLoss, v8OBBLoss or E2ELoss).
        head (Detect): The student's head, uncompiled.
        distiller (Distiller | None): Computes the terms; None where no term is active.
        gains (Gains): Factors of the terms.
    """

    def __init__(self, base: Any, head: Detect, distiller: Distiller | None, gains: Gains) -> None:
        super().__init__(base)
        self.head = head
        self.distiller = distiller
        self.gains = gains

    def __call__(self, preds: Any, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss vector, multiplied by the batch size as Ultralytics does, and its detached parts."""
        distiller = self.distiller
        if distiller is None or not torch.is_grad_enabled() or self.gains.factor == 0:
            return self._plain(preds, batch)
        # Calibrate on the whole batch: the rescaled gradient of a subset has a larger norm, which biased the gains low.
        teacher = distiller.teacher_outputs(teacher_images(batch), labelled_count(batch))
        with capture_assigner_calls(self.base) as calls:
            loss, items = task_loss(self.base, preds, batch)
        student = StudentInputs.of(self.base, preds, teacher.complete_targets(calls[0].targets))
        distiller.set_adapters(student, teacher)
        if self.gains.calibrating:
            optional = distiller.settings.active if self.gains.calibrated else ()
            norms = measure_gradients(self.base, self.head, distiller, student, teacher, batch, optional)
            self.gains.calibrate(norms, self.one2many_weight, distiller.strides)
        losses = distiller(student, teacher, self.gains.current_weights(distiller.strides))
        self.gains.count_left_out(teacher.valid, distiller.left_out)
        return self._total(loss, items, losses, loss_images(batch))

    def _plain(self, preds: Any, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the usual loss, with zeros in the columns of the terms."""
        loss, items = task_loss(self.base, preds, batch)
        zero = loss.detach().new_zeros(())
        return self._touch_adapters(loss), {**items, **dict.fromkeys(LOSS_NAMES.values(), zero)}

    def _total(
        self, loss: Tensor, items: dict[str, Tensor], losses: dict[str, Tensor], images: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Append gain x term to the usual loss vector and to its logged parts."""
        gains = self.gains.current(self.one2many_weight)
        zero = loss.detach().new_zeros(())
        distilled = torch.stack([gains[t] * losses[t] if t in losses else zero for t in TERMS])
        columns = dict(zip(LOSS_NAMES.values(), distilled.detach().unbind(), strict=True))
        return torch.cat((loss, distilled * images)), {**items, **columns}

    def _touch_adapters(self, loss: Tensor) -> Tensor:
        """Tie the adapters to the loss by a zero: DDP with a static graph needs every parameter in every step."""
        if self.distiller is None or not torch.is_grad_enabled():
            return loss
        return loss + 0 * torch.stack([p.sum() for p in self.distiller.adapters.parameters()]).sum()
