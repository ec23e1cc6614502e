"""A start of the adapters by ridge regression. Not part of the published method, where they start at random."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ds2d2_yolo.bridge.distillation.finite_guard import valid_images
from ds2d2_yolo.bridge.upstream.distributed import distributed
from ds2d2_yolo.core.ridge import PENALTY, ridge_map, second_moments

BATCHES = 8


class RidgeInit:
    """Sets the adapters in the first batches of a run by ridge regression of the teacher's features on the student's.

    Each of these batches adds its sums of T S' and S S' to those before it, and sets the adapters before its terms are
    computed. The sums are those of all processes. The adapters train as usual from then on. A run that resumes has the
    adapters of its checkpoint.

    Args:
        adapters (nn.ModuleList): One 1 x 1 convolution without bias per level.
    """

    def __init__(self, adapters: nn.ModuleList) -> None:
        self._adapters = adapters
        self._remaining = 0
        self._sums: list[Tensor] = []  # T S' and S S' of the first level, of the second, ...

    def start_epoch(self, epoch: int) -> None:
        """Begin an epoch; the first one sets the adapters, also where it is repeated.

        Args:
            epoch (int): Epoch, from 0.
        """
        self._remaining, self._sums = (BATCHES if epoch == 0 else 0), []

    @torch.no_grad()
    def update(self, student: Sequence[Tensor], teacher: Sequence[Tensor], valid: Tensor) -> None:
        """Add a batch and set the adapters, in the first batches of a run.

        An adapter keeps its weight where the sums have no solution, such as those of a batch without a valid image.

        Args:
            student (Sequence[Tensor]): Student feature of each level, B x Cs x H x W.
            teacher (Sequence[Tensor]): Teacher feature of each level, B x Ct x H x W.
            valid (Tensor): B bool, images with finite outputs of the teacher.
        """
        if not self._remaining:
            return
        self._remaining -= 1
        counted = (valid & valid_images(student))[:, None, None, None]
        pairs = [(s.where(counted, 0), t.where(counted, 0)) for s, t in zip(student, teacher, strict=True)]
        sums = _sum_over_processes([_precise(moment) for pair in pairs for moment in second_moments(*pair)])
        self._sums = [old + new for old, new in zip(self._sums, sums, strict=True)] if self._sums else sums
        for weight, cross, gram in zip(self._adapters.parameters(), self._sums[::2], self._sums[1::2], strict=True):
            solution = ridge_map(cross, gram, PENALTY).to(weight.dtype).view_as(weight)
            weight.copy_(torch.where(solution.isfinite().all(), solution, weight))
            if distributed():  # the solutions of two kinds of GPU differ by rounding
                dist.broadcast(weight, 0)


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
