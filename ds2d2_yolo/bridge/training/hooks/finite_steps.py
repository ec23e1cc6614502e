"""Leaves out optimizer steps with a non-finite gradient, which would turn every weight that they reach into NaN."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from ultralytics.utils import LOGGER

from ds2d2_yolo.errors import DS2D2Error

MAX_LEFT_OUT = 20  # consecutive steps left out that end a run; fewer where an epoch has fewer, but at least 3


class FiniteSteps:
    """Decides before each optimizer step whether the gradients are finite, and ends a run in which they never are.

    Ultralytics (8.4.190) looks at the loss of an epoch's last batch only, when the weights are NaN already. In a run's
    first epoch it goes on with them. Under mixed precision the gradient scaler leaves such steps out itself.

    Args:
        trainer (Any): The trainer.

    Attributes:
        left_out (int): Consecutive steps that were left out.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self.left_out = 0
        self._warned_epoch = -1

    def allow_step(self) -> bool:
        """Return whether all gradients are finite; if not, drop them.

        Returns:
            (bool): Whether the optimizer may step.

        Raises:
            DS2D2Error: If too many consecutive steps had to be left out.
        """
        trainer = self._trainer
        gradients = [p.grad for p in trainer.model.parameters() if p.grad is not None]
        if trainer.scaler.is_enabled() or _all_finite(gradients):
            self.left_out = 0
            return True
        trainer.optimizer.zero_grad()
        self.left_out += 1
        message = f"epoch {trainer.epoch + 1}: a gradient is not finite{self._non_finite_losses()}"
        if self.left_out >= max(3, min(MAX_LEFT_OUT, len(trainer.train_loader))):
            raise DS2D2Error(
                f"{message}, {self.left_out} steps in a row: lower lr0=, or try the teacher on these data with "
                "'ds2d2-yolo check'; what was saved before is whole"
            )
        if self._warned_epoch != trainer.epoch:
            self._warned_epoch = trainer.epoch
            LOGGER.warning(f"DS2D2: {message}: such a step is left out")
        return False

    def _non_finite_losses(self) -> str:
        """Return the names of the non-finite parts of the latest loss, in brackets."""
        losses = self._trainer.loss_items.items()
        names = [k for k, v in losses if not torch.isfinite(torch.as_tensor(v)).all()]
        return f" ({', '.join(names)})" if names else ""


def _all_finite(gradients: list[Tensor]) -> bool:
    """Return whether all gradients are finite; one synchronisation with the device for all of them."""
    # an infinite value, or NaN, stays one in a sum; infinities of both signs make NaN
    return not gradients or bool(torch.stack([g.sum() for g in gradients]).sum().isfinite())
