"""What the student's task-aligned assigner receives and returns in a batch: ground truth and positive anchors."""

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


@dataclass(frozen=True)
class AssignerCall:
    """One call of Ultralytics' task-aligned assigner (8.4.190).

    Attributes:
        inputs (tuple[Any, ...]): Scores, boxes, anchor points, labels, ground-truth boxes and their mask.
        extra (dict[str, Any]): Keyword arguments.
        outputs (tuple[Tensor, ...]): Target labels, boxes and scores, mask of the positives, index of the object.
    """

    inputs: tuple[Any, ...]
    extra: dict[str, Any]
    outputs: tuple[Tensor, ...]

    @property
    def targets(self) -> Targets:
        """(Targets): Ground truth of the batch."""
        return Targets(self.inputs[4].detach(), self.inputs[5].detach().bool().squeeze(-1))

    @property
    def positives(self) -> Tensor:
        """(Tensor): B x anchors bool, the anchors that were given an object."""
        return self.outputs[3].detach().bool()


@contextmanager
def capture_assigner_calls(criterion: Any) -> Iterator[list[AssignerCall]]:
    """Record each call of a criterion's one-to-many assigner while the context lasts.

    The hook is removed at the end: the live tensors that it holds would break a copy or a pickle of the criterion.

    Args:
        criterion (Any): The student's criterion.

    Yields:
        (list[AssignerCall]): One entry for each call.
    """
    calls: list[AssignerCall] = []

    def record(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: tuple[Tensor, ...]) -> None:
        calls.append(AssignerCall(args, kwargs, outputs))

    handle = dense_criterion(criterion).assigner.register_forward_hook(record, with_kwargs=True)
    try:
        yield calls
    finally:
        handle.remove()
