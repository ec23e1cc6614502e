"""Checkpoints: written whole or not at all while a run goes on, and made plain when it ends."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils.patches import torch_load
from ultralytics.utils.torch_utils import strip_optimizer

from ds2d2_yolo.bridge.adapters import ARGS_KEY, drop_adapters


class WholeCheckpoints(DetectionTrainer):
    """A trainer whose checkpoints a kill leaves as they were or as they were to be; Ultralytics writes in place."""

    def save_model(self) -> bool:
        """Let Ultralytics write into a staging folder, then rename each file over the one it replaces."""
        weights, staging = self.wdir, self.wdir / ".staging"
        self._write_to(staging)
        try:
            saved = bool(super().save_model())
        finally:
            self._write_to(weights)
        for file in staging.glob("*.pt"):
            with file.open("rb+") as f:
                os.fsync(f.fileno())
            os.replace(file, weights / file.name)
        shutil.rmtree(staging, ignore_errors=True)
        return saved

    def _write_to(self, folder: Path) -> None:
        """Point the trainer at a folder for its checkpoints."""
        self.wdir, self.last, self.best = folder, folder / "last.pt", folder / "best.pt"


def finish_files(weights: Path) -> None:
    """Take all that is ours out of the checkpoints of a run, and the optimizer state out of those of single epochs.

    Args:
        weights (Path): The run's `weights` folder.
    """
    for file in sorted(weights.glob("*.pt")):
        if clean_checkpoint(file) and file.stem.startswith("epoch"):
            strip_optimizer(file)  # its optimizer state counts the adapters; Ultralytics strips best and last alone


def _drop_key(args: Any) -> bool:
    """Take our key out of arguments, mapping or namespace, and tell whether it was there."""
    table = args if isinstance(args, dict) else getattr(args, "__dict__", {})
    return table.pop(ARGS_KEY, None) is not None


def clean_checkpoint(path: Path) -> bool:
    """Make a checkpoint of a finished run a plain one: no adapters, no key of ours in its arguments.

    The file is replaced whole, so that a kill leaves either the old one or the new one.

    Args:
        path (Path): Checkpoint that a run of this package wrote.

    Returns:
        (bool): Whether there was anything to take out.
    """
    checkpoint = torch_load(path, map_location="cpu")
    models = [m for m in (checkpoint.get("ema"), checkpoint.get("model")) if isinstance(m, nn.Module)]
    dropped = [drop_adapters(m) for m in models]
    dropped += [_drop_key(getattr(m, "args", None)) for m in models]
    dropped.append(_drop_key(checkpoint.get("train_args")))
    if any(dropped):
        save_whole(checkpoint, path)
    return any(dropped)


def save_whole(value: Any, path: Path) -> None:
    """Write a torch file whole or not at all: to a temporary sibling, synced, then renamed."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as f:
        torch.save(value, f)
        f.flush()
        os.fsync(f.fileno())
    os.replace(temporary, path)
