"""Checkpoints: written whole or not at all while a run goes on, and made plain when it ends."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.tasks import torch_safe_load
from ultralytics.utils.torch_utils import strip_optimizer

from ds2d2_yolo.bridge.adapters import ARGS_KEY, drop_adapters

STAGING = ".staging"


class WholeCheckpoints(DetectionTrainer):
    """A trainer whose checkpoints a kill leaves as they were or as they were to be; Ultralytics writes in place."""

    def save_model(self) -> bool:
        """Let Ultralytics write into a staging folder, then rename each file over the one it replaces."""
        weights, staging = self.wdir, self.wdir / STAGING
        shutil.rmtree(staging, ignore_errors=True)  # what a kill left there may be half written
        self._write_to(staging)
        try:
            saved = bool(super().save_model())
        finally:
            self._write_to(weights)
        for file in staging.glob("*.pt"):
            _replace(file, weights / file.name)
        shutil.rmtree(staging, ignore_errors=True)
        return saved

    def _write_to(self, folder: Path) -> None:
        """Point the trainer at a folder for its checkpoints."""
        self.wdir, self.last, self.best = folder, folder / "last.pt", folder / "best.pt"


def finish_files(weights: Path) -> None:
    """Make every checkpoint of a run a plain, finished one: nothing of ours, no optimizer state.

    Each file is replaced whole. Ultralytics strips best and last alone, and the optimizer state counts the adapters.

    Args:
        weights (Path): The run's `weights` folder.
    """
    staging = weights / STAGING
    staging.mkdir(exist_ok=True)
    for file in sorted(weights.glob("*.pt")):
        checkpoint, _ = torch_safe_load(file)
        models = [m for m in (checkpoint.get("ema"), checkpoint.get("model")) if isinstance(m, nn.Module)]
        for model in models:
            drop_adapters(model)
            _drop_key(getattr(model, "args", None))
        torch.save(checkpoint, staging / file.name)
        strip_optimizer(staging / file.name)
        _replace(staging / file.name, file)
    shutil.rmtree(staging, ignore_errors=True)


def _drop_key(args: Any) -> None:
    """Take our key out of a model's arguments, mapping or namespace; Ultralytics strips those of the checkpoint."""
    table = args if isinstance(args, dict) else getattr(args, "__dict__", {})
    table.pop(ARGS_KEY, None)


def _replace(source: Path, target: Path) -> None:
    """Put a written file in the place of another, so that a kill leaves the one or the other."""
    with source.open("rb+") as f:
        os.fsync(f.fileno())
    os.replace(source, target)
