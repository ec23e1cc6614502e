"""A step whose gradient is not finite is left out: it would make NaN of every weight that it reaches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils import LOGGER

from ds2d2_yolo.errors import DS2D2Error

IN_A_ROW = 20  # steps left out one after the other that end a run; fewer where an epoch has fewer, but 3 at least


class FiniteSteps(DetectionTrainer):
    """A trainer that leaves out steps with NaN or infinite gradients, and ends where nothing else comes.

    Ultralytics (8.4.190) looks at the loss of an epoch's last batch only, when the weights are NaN already, and in the
    first epoch of a run it goes on with them. Under mixed precision with a gradient scaler that one leaves such steps
    out itself.

    Attributes:
        left_out (int): Steps that were left out in a row.
    """

    loss_items: dict[str, Any]
    left_out = 0
    _warned = -1  # epoch of the last warning

    def optimizer_step(self) -> None:
        """Step as usual if all gradients are finite.

        Raises:
            DS2D2Error: If too many steps in a row had to be left out.
        """
        if self.scaler.is_enabled() or _finite([p.grad for p in self.model.parameters() if p.grad is not None]):
            self.left_out = 0
            super().optimizer_step()
            return
        self.optimizer.zero_grad()
        self.left_out += 1
        said = f"epoch {self.epoch + 1}: a gradient is not finite{self._not_finite()}"
        if self.left_out >= max(3, min(IN_A_ROW, len(self.train_loader))):
            raise DS2D2Error(
                f"{said}, {self.left_out} steps in a row: lower lr0=, or try the teacher on these data with "
                "'ds2d2-yolo check'; what was saved before is whole"
            )
        if self._warned != self.epoch:
            self._warned = self.epoch
            LOGGER.warning(f"DS2D2: {said}: such a step is left out")

    def _not_finite(self) -> str:
        """Return which parts of the last loss are not finite."""
        found = [k for k, v in self.loss_items.items() if not torch.isfinite(torch.as_tensor(v)).all()]
        return f" ({', '.join(found)})" if found else ""


def _finite(gradients: list[Tensor]) -> bool:
    """Return whether all gradients are finite; one synchronisation with the device for all of them."""
    # an infinite value, or NaN, stays one in a sum; infinities of both signs make NaN
    return not gradients or bool(torch.stack([g.sum() for g in gradients]).sum().isfinite())
