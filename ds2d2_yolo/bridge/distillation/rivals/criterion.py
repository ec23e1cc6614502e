"""The criterion of a rival's student: its usual loss plus the rival's term. The model stays the plain student."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ds2d2_yolo.bridge.distillation.criterion_with_terms import CriterionWithTerms
from ds2d2_yolo.bridge.distillation.rivals.methods import Rival, RivalBatch
from ds2d2_yolo.bridge.distillation.targets import capture_assigner_calls, dense_criterion


class RivalCriterion(CriterionWithTerms):
    """A student's usual criterion with a rival's term added.

    total = YOLO loss + batch size x term, as DS2D2 adds its terms. For an end-to-end student the term follows the
    weight of the one-to-many branch. Where gradients are off (validation) the usual loss is returned.

    Args:
        base (Any): The criterion that the student would have had (v8DetectionLoss, v8OBBLoss or E2ELoss).
        rival (Rival): Computes the term.
        name (str): Name of the term's column, such as 'pkd'.
    """

    def __init__(self, base: Any, rival: Rival, name: str) -> None:
        super().__init__(base)
        self.rival = rival
        self.column = f"{name}_loss"

    def __call__(self, preds: Any, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss vector, multiplied by the batch size as Ultralytics does, and its detached parts."""
        if not torch.is_grad_enabled():
            loss, items = self.base(preds, batch)
            return loss, {**items, self.column: loss.detach().new_zeros(())}
        with capture_assigner_calls(self.base) as calls:
            loss, items = self.base(preds, batch)
        parsed = dense_criterion(self.base).parse_output(preds)
        term = self.rival(RivalBatch(batch["img"], parsed.get("one2many", parsed), calls[0].positives))
        term = term * self.one2many_weight
        return torch.cat((loss, (term * batch["img"].shape[0])[None])), {**items, self.column: term.detach()}
