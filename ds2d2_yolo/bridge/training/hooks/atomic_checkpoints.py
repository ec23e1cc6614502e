"""Checkpoints: written whole or not at all while a run goes on, and made plain when it ends."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.tasks import torch_safe_load
from ultralytics.utils import RANK
from ultralytics.utils.torch_utils import strip_optimizer

from ds2d2_yolo.bridge.models.adapters import detach_adapters
from ds2d2_yolo.bridge.training.hooks.exact_resume import drop_side_files
from ds2d2_yolo.bridge.upstream.arguments import ARGS_KEY
from ds2d2_yolo.utils.atomic_files import replacing

STAGING = ".staging"


class WholeCheckpoints(DetectionTrainer):
    """A trainer whose checkpoints a kill leaves as they were or as they were to be; Ultralytics writes in place."""

    csv: Path
    ddp: bool
    _saved = False
    _renamed = 0  # inode of the last.pt that is, or is about to be, in its place

    def save_model(self) -> bool:
        """Let Ultralytics write into a staging folder, then rename each file over the one it replaces."""
        weights, staging = self.wdir, self.wdir / STAGING
        shutil.rmtree(staging, ignore_errors=True)  # what a kill left there may be half written
        self._write_to(staging)
        try:
            try:
                saved = bool(super().save_model())
            finally:
                self._write_to(weights)
            # last.pt at the end: the epoch that it stands for is repeated until all of its files are there
            for file in sorted(staging.glob("*.pt"), key=lambda f: f.name == "last.pt"):
                self._renamed = file.stat().st_ino
                _replace(file, weights / file.name)
            self._saved = self._saved or saved
        finally:
            shutil.rmtree(staging, ignore_errors=True)  # on a full disk it would keep the rest of it
        return saved

    @property
    def saved(self) -> bool:
        """(bool): Whether the run has saved a checkpoint; asked of the disk, in case a signal came then.

        A process that launched others for several GPUs saves none itself. Ultralytics emptied the folder before.
        """
        return self._saved or (self.last.is_file() and (self.ddp or self.last.stat().st_ino == self._renamed))

    def save_metrics(self, metrics: dict[str, Any]) -> None:
        """Write the epoch's row into results.csv, whole or not at all, in the place of rows that are run again."""
        before = self.csv.read_text(encoding="utf-8").splitlines(keepends=True) if self.csv.is_file() else []
        rows = before[:1] + [row for row in before[1:] if _epoch_of(row) <= self.epoch]
        with replacing(self.csv) as temporary:
            if rows:
                temporary.write_text("".join(rows), encoding="utf-8")
            own, self.csv = self.csv, temporary
            try:
                super().save_metrics(metrics)
            finally:
                self.csv = own

    def final_eval(self) -> None:
        """Evaluate as usual; Ultralytics strips best and last in place first, so it gets copies, which replace them.

        Under DDP all processes have to look at the same files, so there it is as Ultralytics does it.
        """
        if RANK != -1:
            super().final_eval()
            return
        weights, staging = self.wdir, self.wdir / STAGING
        staging.mkdir(parents=True, exist_ok=True)
        for file in (self.last, self.best):
            if file.is_file():
                shutil.copyfile(file, staging / file.name)
        self._write_to(staging)
        try:
            super().final_eval()
        finally:
            self._write_to(weights)
        for file in staging.glob("*.pt"):
            _replace(file, weights / file.name)
        shutil.rmtree(staging, ignore_errors=True)

    def _write_to(self, folder: Path) -> None:
        """Point the trainer at a folder for its checkpoints."""
        self.wdir, self.last, self.best = folder, folder / "last.pt", folder / "best.pt"


def finish_files(weights: Path) -> None:
    """Make every checkpoint of a run a plain, finished one: nothing of ours, no optimizer state, no file beside them.

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
            detach_adapters(model)
            _drop_key(getattr(model, "args", None))
        torch.save(checkpoint, staging / file.name)
        strip_optimizer(staging / file.name)
        _replace(staging / file.name, file)
    drop_left_over(weights)


def drop_left_over(weights: Path) -> None:
    """Remove from a finished run's `weights` folder what is no checkpoint: side files, and what a kill left."""
    shutil.rmtree(weights / STAGING, ignore_errors=True)
    drop_side_files(weights)


def _epoch_of(row: str) -> float:
    """Return the epoch of a row of results.csv, from 1; half a row counts as none."""
    try:
        return float(row.split(",")[0]) if row.endswith("\n") else math.inf
    except ValueError:
        return math.inf


def _drop_key(args: Any) -> None:
    """Take our key out of a model's arguments, mapping or namespace; Ultralytics strips those of the checkpoint."""
    table = args if isinstance(args, dict) else getattr(args, "__dict__", {})
    table.pop(ARGS_KEY, None)


def _replace(source: Path, target: Path) -> None:
    """Put a written file in the place of another, so that a kill leaves the one or the other."""
    with source.open("rb+") as f:
        os.fsync(f.fileno())
    os.replace(source, target)
