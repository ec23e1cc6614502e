"""The ground truth that the student's task-aligned assigner receives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Targets:
    """What the student's task-aligned assigner received for one batch.

    Attributes:
        boxes (Tensor): B x M x 4 (xyxy) or x 5 (xywhr, radians) in pixels of the network's input, padded.
        mask (Tensor): B x M bool, which of them are boxes and not padding.
    """

    boxes: Tensor
    mask: Tensor


@contextmanager
def tapped(assigner: nn.Module) -> Iterator[list[Targets]]:
    """Record the targets of an assigner's calls while the context lasts.

    The hook lives no longer than that: the live tensors that it keeps would break a copy or a pickle of the criterion.

    Args:
        assigner (nn.Module): Task-aligned assigner of a criterion.

    Yields:
        (list[Targets]): Filled as the assigner is called.
    """
    seen: list[Targets] = []

    def record(_: nn.Module, args: tuple[Tensor, ...], __: tuple[Tensor, ...]) -> None:
        boxes, mask = args[4], args[5]
        seen.append(Targets(boxes.detach(), mask.detach().bool().squeeze(-1)))

    handle = assigner.register_forward_hook(record)
    try:
        yield seen
    finally:
        handle.remove()
