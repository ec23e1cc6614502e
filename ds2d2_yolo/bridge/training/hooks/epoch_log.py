"""What a run says about its terms: columns and warnings of each epoch, and where the terms acted."""

from __future__ import annotations

from typing import Any

import torch
from ultralytics.utils import LOGGER

from ds2d2_yolo.bridge.distillation.criterion import loss_ratios
from ds2d2_yolo.bridge.distillation.gradients.levels import describe_levels, describe_weights
from ds2d2_yolo.bridge.training.hooks.adapter_optimizer import clipped_share, clipping_warning


class EpochLog:
    """Describes the gains of a run, and names each lasting condition once.

    Args:
        trainer (Any): The trainer, with a distiller.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._warned: set[str] = set()
        self._norms: list[float] = []  # of the student's gradient in each step of the epoch

    def columns(self) -> dict[str, float]:
        """Return the columns of the epoch for results.csv, and keep its gradient norms for `report`.

        Returns:
            (dict[str, float]): Gains, shares, ratios of the losses and the share of clipped steps, by column.
        """
        trainer = self._trainer
        step_norms = trainer.adapter_optimizer.step_norms
        self._norms = torch.stack(step_norms).tolist() if step_norms else []
        return {
            **trainer.gains.columns(trainer.distiller.strides),
            **loss_ratios(trainer.tloss),
            "clip/steps": clipped_share(self._norms),
        }

    def report(self) -> None:
        """Log the weights of the levels that this epoch measured, and what is newly out of order."""
        trainer = self._trainer
        for line in describe_weights(trainer.gains.new_weights, trainer.distiller.strides):
            LOGGER.info(f"DS2D2: epoch {trainer.epoch + 1}: {line}")
        warnings = trainer.gains.warnings()
        if warning := clipping_warning(self._norms, trainer.gains.shares()):
            warnings["clip"] = warning
        for key in warnings.keys() - self._warned:
            LOGGER.warning(f"DS2D2: epoch {trainer.epoch + 1}: {warnings[key]}")
        self._warned = set(warnings)

    def report_levels(self) -> None:
        """Log the level on which each term acts, as the last measured epoch has it."""
        trainer = self._trainer
        for line in describe_levels(trainer.gains.measured, trainer.run.settings.active, trainer.distiller.strides):
            LOGGER.info(f"DS2D2: {line}")
