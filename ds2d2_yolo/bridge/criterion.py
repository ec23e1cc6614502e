"""The criterion of a distilled student: the one it would have had, plus the DS2D2 terms; the model stays plain."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ds2d2_yolo.bridge.distiller import Distiller
from ds2d2_yolo.settings import TERMS

LOSS_NAMES = {term: f"{term}_loss" for term in TERMS}  # 'loss' in the name: results.png plots such columns only


@dataclass(frozen=True)
class Targets:
    """What the student's task-aligned assigner received for one batch.

    Attributes:
        boxes (Tensor): B x M x 4 (xyxy) or x 5 (xywhr, radians) in pixels of the network's input, padded.
        mask (Tensor): B x M bool, which of them are boxes and not padding.
    """

    boxes: Tensor
    mask: Tensor


@contextmanager
def tapped(assigner: nn.Module) -> Iterator[list[Targets]]:
    """Record the targets of an assigner's calls while the context lasts.

    The hook lives no longer than that: the live tensors that it keeps would break a copy or a pickle of the criterion.

    Args:
        assigner (nn.Module): Task-aligned assigner of a criterion.

    Yields:
        (list[Targets]): Filled as the assigner is called.
    """
    seen: list[Targets] = []

    def record(_: nn.Module, args: tuple[Tensor, ...], __: tuple[Tensor, ...]) -> None:
        boxes, mask = args[4], args[5]
        seen.append(Targets(boxes.detach(), mask.detach().bool().squeeze(-1)))

    handle = assigner.register_forward_hook(record)
    try:
        yield seen
    finally:
        handle.remove()


class DistillationCriterion:
    """A student's own criterion with the four DS2D2 terms added.

    total = YOLO loss + batch size x sum over the terms of gain x term; the columns hold gain x term. Where gradients
    are off (validation) or no term is active, the plain loss comes back as it is, with zeros in the columns.

    A copy or a pickle of it is None: what Ultralytics copies and saves is the plain student.

    Args:
        base (Any): The criterion that the student would have had (v8DetectionLoss, v8OBBLoss or E2ELoss).
        distiller (Distiller | None): Computes the terms; None where no term is active.
    """

    def __init__(self, base: Any, distiller: Distiller | None) -> None:
        self.base = base
        self.distiller = distiller
        # an end-to-end criterion holds two: features reach the neck through the one-to-many branch alone
        self.dense = base.one2many if hasattr(base, "one2many") else base

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """Leave nothing of the distillation in a copy of the model."""
        return None

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        """Leave nothing of the distillation in a checkpoint."""
        return type(None), ()

    def update(self) -> None:
        """Pass an epoch's end on to a criterion that follows it (the fading of an end-to-end one)."""
        if hasattr(self.base, "update"):
            self.base.update()

    def __call__(self, preds: Any, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss vector, multiplied by the batch size as Ultralytics does, and its detached parts."""
        if self.distiller is None or not torch.is_grad_enabled():
            loss, items = self.base(preds, batch)
            zero = loss.detach().new_zeros(())
            return loss, {**items, **dict.fromkeys(LOSS_NAMES.values(), zero)}
        with tapped(self.dense.assigner) as seen:
            loss, items = self.base(preds, batch)
        outputs = self.dense.parse_output(preds)
        features = outputs.get("one2many", outputs)["feats"]
        terms = self.distiller(batch["img"], features, seen[0])
        zero = loss.detach().new_zeros(())
        distilled = torch.stack([terms.get(term, zero) for term in TERMS])
        columns = dict(zip(LOSS_NAMES.values(), distilled.detach().unbind(), strict=True))
        return torch.cat((loss, distilled * batch["img"].shape[0])), {**items, **columns}
