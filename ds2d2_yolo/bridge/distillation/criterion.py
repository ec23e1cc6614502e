"""The criterion of a distilled student: the one it would have had, plus the DS2D2 terms; the model stays plain."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ds2d2_yolo.bridge.distillation.distiller import Distiller, Guide
from ds2d2_yolo.bridge.distillation.gains import Gains
from ds2d2_yolo.bridge.distillation.gradient_norms import neck_gradients
from ds2d2_yolo.bridge.distillation.targets import Targets, tapped
from ds2d2_yolo.config.settings import TERMS

if TYPE_CHECKING:
    from ultralytics.nn.modules.head import Detect

LOSS_NAMES = {term: f"{term}_loss" for term in TERMS}  # 'loss' in the name: results.png plots such columns only


def loss_ratios(losses: Mapping[str, Any]) -> dict[str, float]:
    """Return each term's loss, gain included, over the task's.

    Args:
        losses (Mapping[str, Any]): Means of an epoch by name: the task's parts and the terms of `LOSS_NAMES`.

    The parts that Ultralytics reports of an end-to-end student are those of its one-to-one branch.

    Returns:
        (dict[str, float]): 'ratio/<term>' for the four terms.
    """
    task = sum(float(v) for k, v in losses.items() if k not in LOSS_NAMES.values())
    return {f"ratio/{t}": float(losses[name]) / task if task else math.nan for t, name in LOSS_NAMES.items()}


class DistillationCriterion:
    """A student's own criterion with the four DS2D2 terms added.

    total = YOLO loss + batch size x sum over the terms of gain x term; the columns hold gain x term. Where gradients
    are off (validation) or the terms are (no term active, or an epoch without distillation), the plain loss comes back
    as it is, with zeros in the columns.

    A copy or a pickle of it is None: what Ultralytics copies and saves is the plain student.

    Args:
        base (Any): The criterion that the student would have had (v8DetectionLoss, v8OBBLoss or E2ELoss).
        head (Detect): The student's head, uncompiled.
        distiller (Distiller | None): Computes the terms; None where no term is active.
        gains (Gains): What they are multiplied by.
    """

    def __init__(self, base: Any, head: Detect, distiller: Distiller | None, gains: Gains) -> None:
        self.base = base
        self.head = head
        self.distiller = distiller
        self.gains = gains
        # an end-to-end criterion holds two: features reach the neck through the one-to-many branch alone
        self.fades = hasattr(base, "one2many")
        self.dense = base.one2many if self.fades else base

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """Leave nothing of the distillation in a copy of the model."""
        return None

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        """Leave nothing of the distillation in a checkpoint."""
        return type(None), ()

    def update(self) -> None:
        """Pass an epoch's end on to a criterion that follows it (the fading of an end-to-end one)."""
        if self.fades:
            self.base.update()

    @property
    def fading(self) -> float:
        """(float): Weight of the one-to-many branch over its first one; it alone sends gradients into the neck."""
        return float(self.base.o2m / self.base.o2m_copy) if self.fades else 1.0

    def __call__(self, preds: Any, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss vector, multiplied by the batch size as Ultralytics does, and its detached parts."""
        if self.distiller is None or not torch.is_grad_enabled() or self.gains.factor == 0:
            loss, items = self.base(preds, batch)
            zero = loss.detach().new_zeros(())
            return self._with_edge(loss), {**items, **dict.fromkeys(LOSS_NAMES.values(), zero)}
        with tapped(self.dense.assigner) as seen:
            loss, items = self.base(preds, batch)
        dense = self._dense(preds)
        features = dense["feats"]
        # the gradient of a part of the images, scaled up, is longer than that of all: measured on it, gains came small
        guide = self.distiller.guide(batch["img"], whole=self.gains.due)
        if self.gains.due:
            self._measure(features, guide, seen[0], batch)
        terms = self.distiller.terms(features, guide, seen[0], self.distiller.own(self.head, dense))
        self.gains.note_left_out(guide.sound, self.distiller.left_out)
        gains = self.gains.current(self.fading)
        zero = loss.detach().new_zeros(())
        distilled = torch.stack([gains[t] * terms[t] if t in terms else zero for t in TERMS])
        columns = dict(zip(LOSS_NAMES.values(), distilled.detach().unbind(), strict=True))
        if self.distiller.settings.imfu_head == "own":  # the one term that may leave the adapters out
            loss = self._with_edge(loss)
        return torch.cat((loss, distilled * batch["img"].shape[0])), {**items, **columns}

    def _dense(self, preds: Any) -> dict[str, Any]:
        """Return the raw one-to-many outputs among a head's outputs."""
        outputs = self.dense.parse_output(preds)
        return dict(outputs.get("one2many", outputs))

    def _with_edge(self, loss: Tensor) -> Tensor:
        """Tie the adapters to the loss by zero: DDP with a static graph wants every parameter in every step."""
        if self.distiller is None or not torch.is_grad_enabled():
            return loss
        return loss + 0 * torch.stack([p.sum() for p in self.distiller.adapters.parameters()]).sum()

    def _measure(self, features: list[Tensor], guide: Guide, targets: Targets, batch: dict[str, Any]) -> None:
        """Hand the gradients of this batch to the gains."""
        distiller = self.distiller
        assert distiller is not None
        norms = neck_gradients(
            self.head,
            lambda preds: self.base(preds, batch)[0].sum() / batch["img"].shape[0],
            lambda leaves, preds: distiller.terms(leaves, guide, targets, distiller.own(self.head, self._dense(preds))),
            features,
            distiller.levels,
            spare=distiller.settings.active if self.gains.known else (),
        )
        self.gains.record(norms, self.fading)
