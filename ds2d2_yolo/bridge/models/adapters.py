"""Adapters: 1 x 1 convolutions that are trained with the student, as its submodules, and removed after training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ds2d2_yolo.bridge.upstream.rng_state import preserve_rng

ATTRIBUTE = "ds2d2_adapters"


def make_adapters(student: list[int], teacher: list[int], seed: int) -> nn.ModuleList:
    """Make 1 x 1 convolutions without bias, one per level, that map student features to the teacher's channels.

    Args:
        student (list[int]): Channels of the student on each paired level.
        teacher (list[int]): Channels of the teacher on each paired level.
        seed (int): Seed of the weights. The global random state is restored: otherwise a run with all gains at 0 would
            differ from a plain one.

    Returns:
        (nn.ModuleList): One `nn.Conv2d` per level: plain modules, which any Ultralytics can load from a checkpoint.
    """
    with preserve_rng():
        torch.manual_seed(seed)
        return nn.ModuleList(nn.Conv2d(s, t, 1, bias=False) for s, t in zip(student, teacher, strict=True))


def attach_adapters(model: nn.Module, adapters: nn.ModuleList, as_weights: bool = False) -> None:
    """Make the adapters a submodule of the student, where optimizer, DDP, EMA, NaN recovery and checkpoint see them.

    Args:
        model (nn.Module): The student.
        adapters (nn.ModuleList): See `make_adapters`.
        as_weights (bool): Whether only their weights are held, in an `nn.ParameterList`. A student that ModelOpt (0.47)
            quantises needs this: ModelOpt converts each convolution of a model, and restores its state only into a
            model that has exactly the convolutions that were converted.
    """
    setattr(model, ATTRIBUTE, nn.ParameterList(a.weight for a in adapters) if as_weights else adapters)


def get_adapters(model: nn.Module) -> nn.ModuleList | None:
    """Return the adapters of a model.

    Args:
        model (nn.Module): A student, or what a checkpoint holds.

    Returns:
        (nn.ModuleList | None): Convolutions with the parameters that the model holds; None if it has none.
    """
    adapters = model._modules.get(ATTRIBUTE)
    if isinstance(adapters, nn.ParameterList):
        return nn.ModuleList(_adapter_of(weight) for weight in adapters)
    return adapters if isinstance(adapters, nn.ModuleList) else None


def _adapter_of(weight: nn.Parameter) -> nn.Conv2d:
    """Return an adapter with a given parameter as its weight."""
    adapter = nn.Conv2d(weight.shape[1], weight.shape[0], 1, bias=False, device="meta")  # takes no random numbers
    adapter.weight = weight
    return adapter


@contextmanager
def without_adapters(model: nn.Module) -> Iterator[None]:
    """Take the adapters off a model while the context lasts.

    Args:
        model (nn.Module): A student, with or without adapters.
    """
    adapters = model._modules.pop(ATTRIBUTE, None)
    try:
        yield
    finally:
        if adapters is not None:
            model._modules[ATTRIBUTE] = adapters


def detach_adapters(model: nn.Module) -> bool:
    """Remove the adapters of a model.

    Args:
        model (nn.Module): A student, or what a checkpoint holds.

    Returns:
        (bool): Whether it had any.
    """
    return model._modules.pop(ATTRIBUTE, None) is not None
