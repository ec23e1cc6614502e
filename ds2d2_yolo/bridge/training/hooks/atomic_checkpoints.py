"""Checkpoints: written atomically while a run goes on, and made plain at its end."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from ultralytics.nn.tasks import torch_safe_load
from ultralytics.utils import RANK
from ultralytics.utils.torch_utils import strip_optimizer

from ds2d2_yolo.bridge.models.adapters import detach_adapters
from ds2d2_yolo.bridge.training.hooks.exact_resume import remove_resume_files
from ds2d2_yolo.bridge.upstream.arguments import ARGS_KEY
from ds2d2_yolo.utils.atomic_files import replacing

STAGING = ".staging"


class AtomicCheckpoints:
    """Writes a trainer's files atomically: after a kill, each file is either the old or the new one.

    Ultralytics (8.4.190) writes them in place.

    Args:
        trainer (Any): The trainer whose `wdir`, `last`, `best` and `csv` are redirected.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._saved = False
        self._inode = 0  # of the last.pt that is, or is about to be, in its place

    def save(self, save_model: Callable[[], bool]) -> bool:
        """Let Ultralytics write into a staging folder, then rename each file over the one that it replaces.

        Args:
            save_model (Callable[[], bool]): Ultralytics' own method.

        Returns:
            (bool): Its result.
        """
        weights = self._trainer.wdir
        staging = weights / STAGING
        shutil.rmtree(staging, ignore_errors=True)  # what a kill left there may be incomplete
        self._write_to(staging)
        try:
            try:
                saved = bool(save_model())
            finally:
                self._write_to(weights)
            # last.pt last: its epoch is repeated until all of its files are in place
            for file in sorted(staging.glob("*.pt"), key=lambda f: f.name == "last.pt"):
                self._inode = file.stat().st_ino
                _replace(file, weights / file.name)
            self._saved = self._saved or saved
        finally:
            shutil.rmtree(staging, ignore_errors=True)  # on a full disk it would occupy the remaining space
        return saved

    @property
    def saved(self) -> bool:
        """(bool): Whether the run has saved a checkpoint. The disk is asked too, for a signal that came in between.

        A process that launched others for several GPUs saves none itself; Ultralytics emptied the folder before.
        """
        last = self._trainer.last
        return self._saved or (last.is_file() and (self._trainer.ddp or last.stat().st_ino == self._inode))

    def save_metrics(self, save_metrics: Callable[[], None]) -> None:
        """Write the epoch's row into results.csv atomically, in the place of rows of epochs that are run again.

        Args:
            save_metrics (Callable[[], None]): Ultralytics' own method, bound to the epoch's metrics.
        """
        trainer = self._trainer
        csv: Path = trainer.csv
        lines = csv.read_text(encoding="utf-8").splitlines(keepends=True) if csv.is_file() else []
        rows = lines[:1] + [row for row in lines[1:] if _epoch_of(row) <= trainer.epoch]
        with replacing(csv) as temporary:
            if rows:
                temporary.write_text("".join(rows), encoding="utf-8")
            trainer.csv = temporary
            try:
                save_metrics()
            finally:
                trainer.csv = csv

    def final_eval(self, final_eval: Callable[[], None]) -> None:
        """Evaluate on copies, which then replace the checkpoints: Ultralytics strips best and last in place first.

        Under DDP all processes have to look at the same files, so Ultralytics' own way stays.

        Args:
            final_eval (Callable[[], None]): Ultralytics' own method.
        """
        if RANK != -1:
            final_eval()
            return
        trainer = self._trainer
        weights = trainer.wdir
        staging = weights / STAGING
        staging.mkdir(parents=True, exist_ok=True)
        for file in (trainer.last, trainer.best):
            if file.is_file():
                shutil.copyfile(file, staging / file.name)
        self._write_to(staging)
        try:
            final_eval()
        finally:
            self._write_to(weights)
        for file in staging.glob("*.pt"):
            _replace(file, weights / file.name)
        shutil.rmtree(staging, ignore_errors=True)

    def _write_to(self, folder: Path) -> None:
        """Point the trainer at a folder for its checkpoints."""
        self._trainer.wdir, self._trainer.last, self._trainer.best = folder, folder / "last.pt", folder / "best.pt"


def finalize_checkpoints(weights: Path) -> None:
    """Make every checkpoint of a run a plain, finished one: no adapters, no DS2D2 settings, no optimizer state.

    Each file is replaced atomically. Ultralytics strips best and last only. The optimizer state counts the adapters.

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
            _drop_settings(getattr(model, "args", None))
        torch.save(checkpoint, staging / file.name)
        strip_optimizer(staging / file.name)
        _replace(staging / file.name, file)
    remove_leftovers(weights)


def remove_leftovers(weights: Path) -> None:
    """Remove everything but checkpoints from a finished run's `weights` folder: resume files and staging folders.

    Args:
        weights (Path): The folder.
    """
    shutil.rmtree(weights / STAGING, ignore_errors=True)
    remove_resume_files(weights)


def _epoch_of(row: str) -> float:
    """Return the epoch of a row of results.csv, from 1; an incomplete row counts as none."""
    try:
        return float(row.split(",")[0]) if row.endswith("\n") else math.inf
    except ValueError:
        return math.inf


def _drop_settings(args: Any) -> None:
    """Remove the DS2D2 settings from a model's arguments; Ultralytics strips those of the checkpoint itself."""
    table = args if isinstance(args, dict) else getattr(args, "__dict__", {})
    table.pop(ARGS_KEY, None)


def _replace(source: Path, target: Path) -> None:
    """Rename a written file over another, so that a kill leaves the one or the other."""
    with source.open("rb+") as f:
        os.fsync(f.fileno())
    os.replace(source, target)
