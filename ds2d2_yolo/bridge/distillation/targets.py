"""The ground truth of a batch, as the student's task-aligned assigner receives it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Targets:
    """Ground truth of one batch.

    Attributes:
        boxes (Tensor): B x M x 4 (xyxy) or x 5 (xywhr, radians) in pixels of the network's input, padded.
        mask (Tensor): B x M bool, False for padding.
    """

    boxes: Tensor
    mask: Tensor


def dense_criterion(criterion: Any) -> Any:
    """Return the one-to-many part of an end-to-end criterion, any other criterion as it is.

    An end-to-end criterion (E2ELoss) holds two; features reach the neck through the one-to-many branch only.

    Args:
        criterion (Any): v8DetectionLoss, v8OBBLoss or E2ELoss.

    Returns:
        (Any): With an `assigner` and `parse_output`.
    """
    return getattr(criterion, "one2many", criterion)


@contextmanager
def capture_targets(criterion: Any) -> Iterator[list[Targets]]:
    """Record the targets of each call of a criterion's assigner while the context lasts.

    The hook is removed at the end: the live tensors that it holds would break a copy or a pickle of the criterion.

    Args:
        criterion (Any): The student's criterion.

    Yields:
        (list[Targets]): One entry for each call of the one-to-many assigner.
    """
    targets: list[Targets] = []

    def record(_: nn.Module, args: tuple[Tensor, ...], __: tuple[Tensor, ...]) -> None:
        boxes, mask = args[4], args[5]
        targets.append(Targets(boxes.detach(), mask.detach().bool().squeeze(-1)))

    handle = dense_criterion(criterion).assigner.register_forward_hook(record)
    try:
        yield targets
    finally:
        handle.remove()
