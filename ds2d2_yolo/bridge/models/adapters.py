"""The adapters: the one thing that trains besides the student, held on it while it trains and dropped at the end."""

from __future__ import annotations

import torch
from torch import nn

from ds2d2_yolo.bridge.upstream.rng_state import preserve_rng

ATTRIBUTE = "ds2d2_adapters"


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
    with preserve_rng():
        torch.manual_seed(seed)
        return nn.ModuleList(nn.Conv2d(s, t, 1, bias=False) for s, t in zip(student, teacher, strict=True))


def attach_adapters(model: nn.Module, adapters: nn.ModuleList) -> None:
    """Hold the adapters on the student, where optimizer, DDP, EMA, NaN recovery and checkpoint find them."""
    setattr(model, ATTRIBUTE, adapters)


def get_adapters(model: nn.Module) -> nn.ModuleList | None:
    """Return the adapters that a model holds, None if it holds none."""
    found = model._modules.get(ATTRIBUTE)
    return found if isinstance(found, nn.ModuleList) else None


def detach_adapters(model: nn.Module) -> bool:
    """Take the adapters off a model and return whether it held any."""
    return model._modules.pop(ATTRIBUTE, None) is not None
