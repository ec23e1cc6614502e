"""Adapters from ridge regression in the first epochs of a run. Not part of the published method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ds2d2_yolo.bridge.distillation.finite_guard import valid_images
from ds2d2_yolo.bridge.upstream.distributed import distributed
from ds2d2_yolo.core.ridge import ridge_map, second_moments

DECAY = 1 - 1 / 8  # weight of the earlier batches' sums in each batch: a memory of about eight batches


class AdapterFit:
    """Sets the adapters by ridge regression of the teacher's features on the student's while it is active.

    Each batch adds its sums of T S' and S S' to the earlier ones, which fade by `DECAY`, before the terms of the batch
    are computed. The sums are those of all processes, so all of them have the same adapters.

    Args:
        epochs (int): Epochs with a fit, from the first; 0 is none.

    Attributes:
        active (bool): Whether the adapters are fitted in this epoch. The optimizer must leave them alone then.
    """

    def __init__(self, epochs: int) -> None:
        self.active = False
        self._epochs = epochs
        self._sums: list[Tensor] = []  # T S' and S S' of the first level, of the second, ...
        self._epoch = -1
        self._sums_at_start: list[Tensor] = []

    def start_epoch(self, epoch: int) -> None:
        """Begin an epoch. One that is repeated, as after a NaN, begins with the sums of its first start.

        Args:
            epoch (int): Epoch, from 0.
        """
        self.active = epoch < self._epochs
        if not self.active:
            self._sums = []
        if epoch == self._epoch:
            self._sums = self._sums_at_start
        self._epoch, self._sums_at_start = epoch, self._sums

    @torch.no_grad()
    def update(
        self, adapters: nn.ModuleList, student: Sequence[Tensor], teacher: Sequence[Tensor], valid: Tensor
    ) -> None:
        """Add a batch and set the weights of the adapters, if the fit is active.

        An adapter keeps its weight where the sums have no solution, such as those of a batch without a valid image.

        Args:
            adapters (nn.ModuleList): One 1 x 1 convolution without bias per level; changed in place.
            student (Sequence[Tensor]): Student feature of each level, B x Cs x H x W.
            teacher (Sequence[Tensor]): Teacher feature of each level, B x Ct x H x W.
            valid (Tensor): B bool, images with finite outputs of the teacher.
        """
        if not self.active:
            return
        counted = valid & valid_images(student)
        sums = [m for s, t in zip(student, teacher, strict=True) for m in second_moments(s, t, counted)]
        sums = _sum_over_processes([_precise(m) for m in sums])
        self._sums = [DECAY * old + new for old, new in zip(self._sums, sums, strict=True)] if self._sums else sums
        for weight, cross, gram in zip(adapters.parameters(), self._sums[::2], self._sums[1::2], strict=True):
            solution = ridge_map(cross, gram).to(weight.dtype).view_as(weight)
            weight.copy_(torch.where(solution.isfinite().all(), solution, weight))
            if distributed():  # the solutions of two kinds of GPU differ by rounding
                dist.broadcast(weight, 0)

    def state(self) -> dict[str, Tensor]:
        """Return the sums, which an exactly resumed run needs; empty unless the fit is active."""
        return {str(i): sums for i, sums in enumerate(self._sums)}

    def restore(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        """Take the sums of an earlier part of the run.

        Args:
            state (Mapping[str, Tensor]): From `state`.
            device (torch.device): Device of the features.
        """
        self._sums = [state[str(i)].to(device) for i in range(len(state))]


def _precise(x: Tensor) -> Tensor:
    """Return a tensor in float64, in float32 on Apple's GPUs, which have no float64."""
    return x.float() if x.device.type == "mps" else x.double()


def _sum_over_processes(tensors: list[Tensor]) -> list[Tensor]:
    """Return the sum of each tensor over the processes, by one reduction."""
    if not distributed():
        return tensors
    flat = torch.cat([x.flatten() for x in tensors])
    dist.all_reduce(flat)
    parts = torch.split(flat, [x.numel() for x in tensors])
    return [part.view_as(x) for part, x in zip(parts, tensors, strict=True)]
