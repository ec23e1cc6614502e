"""The adapters: the one thing that trains besides the student, held on it while it trains and dropped at the end."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn
from ultralytics.utils.patches import torch_load

ATTRIBUTE = "ds2d2_adapters"
ARGS_KEY = "ds2d2"


def make_adapters(student: list[int], teacher: list[int], seed: int) -> nn.ModuleList:
    """Make the 1 x 1 convolutions, one per level and without bias, that lift student features to the teacher's width.

    Args:
        student (list[int]): Channels of the student's paired levels.
        teacher (list[int]): Channels of the teacher's.
        seed (int): Seed of their weights; the global random state is left as it was, or a run with all gains at 0
            would differ from a plain one.

    Returns:
        (nn.ModuleList): One `nn.Conv2d` a level: plain modules, so that any Ultralytics can load a checkpoint of them.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.ModuleList(nn.Conv2d(s, t, 1, bias=False) for s, t in zip(student, teacher, strict=True))


def attach_adapters(model: nn.Module, adapters: nn.ModuleList) -> None:
    """Hold the adapters on the student, where optimizer, DDP, EMA, NaN recovery and checkpoint find them."""
    setattr(model, ATTRIBUTE, adapters)


def adapters_of(model: nn.Module) -> nn.ModuleList | None:
    """Return the adapters that a model holds, None if it holds none."""
    found = model._modules.get(ATTRIBUTE)
    return found if isinstance(found, nn.ModuleList) else None


def drop_adapters(model: nn.Module) -> bool:
    """Take the adapters off a model and return whether it held any."""
    return model._modules.pop(ATTRIBUTE, None) is not None


def _drop_key(args: Any) -> bool:
    """Take our key out of a model's or a checkpoint's arguments, mapping or namespace, and tell whether it was there."""
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
