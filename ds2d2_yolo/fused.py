"""The explicit terms for Haar, near the cost of reading the features.

Left to autograd, they would keep several feature-sized intermediates for the backward pass. Here nothing but the inputs
is kept, and the gradient is written in closed form. On the CPU a few channels at a time pass through scratch buffers
that stay in the cache; on other devices a few images at a time pass through a handful of kernels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# Elements of the feature that are in the cache at a time, for each thread.
_CHUNK = 200_000
# Elements of the feature that are transformed at a time on other devices: large enough to occupy one, small in memory.
_SLICE = 2**25


class _Bands:
    """Scratch for the Haar bands of a few channels, in an order that needs contiguous reads and writes alone.

    Sums and differences of two rows give ``s`` and ``t``. LL and HL are half the sum and difference of neighbours of
    ``s``: taking neighbours as a complex number z, ``z (1 - i) = 2 (LL - i HL)``, one vectorised product. LH and HH
    have one weight, so that ``t`` need not be split: ``LH^2 + HH^2`` is half its sum of squares over the block.
    """

    def __init__(self, channels: int, h: int, w: int, dtype: torch.dtype) -> None:
        self.difference = torch.zeros(channels, 2 * h, 2 * w, dtype=dtype)  # padding stays zero
        self.top, self.bottom = self.difference[:, ::2], self.difference[:, 1::2]
        self.both = torch.empty(2, channels, h, 2 * w, dtype=dtype)
        self.sum, self.diff = self.both.unbind(0)
        self._pairs = torch.view_as_complex(self.sum.view(channels, h, w, 2))

    def analyse(self, student: Tensor, teacher: Tensor) -> None:
        """Fill ``sum`` with the pairs (2 LL, -2 HL) of student - teacher and ``diff`` with its row differences."""
        target = self.difference[:, : student.shape[1], : student.shape[2]]
        if student.dtype == target.dtype:
            torch.sub(student, teacher, out=target)
        else:  # a difference of two halves would be taken in half precision
            target.copy_(student).sub_(teacher)
        torch.add(self.top, self.bottom, out=self.sum)
        torch.sub(self.top, self.bottom, out=self.diff)
        torch.mul(self._pairs, 1 - 1j, out=self._pairs)

    def synthesise(self, out: Tensor) -> None:
        """Write the map, up to a scale, whose bands are now in ``sum`` and ``diff``; padding is cut off."""
        torch.mul(self._pairs, 1 + 1j, out=self._pairs)
        upper, lower = out[:, ::2], out[:, 1::2]
        rows, columns = lower.shape[1:]
        torch.add(self.sum[..., :columns], self.diff[..., :columns], out=upper)
        torch.sub(self.sum[:, :rows, :columns], self.diff[:, :rows, :columns], out=lower)


def _plan(student: Tensor, weight: Tensor) -> tuple[int, list[_Bands]]:
    """Return the channels of a chunk and scratch for a full and, if there is one, a last smaller chunk."""
    channels, (h, w) = student.shape[1], weight.shape[-2:]
    parts = -(-channels * 4 * h * w // (_CHUNK * torch.get_num_threads()))
    step = -(-channels // max(1, min(channels, parts)))
    sizes = [step, channels % step] if channels % step else [step]
    return step, [_Bands(size, h, w, weight.dtype) for size in sizes]


def _cached_energy(student: Tensor, teacher: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sums of W LL^2 and of W (LH^2 + HL^2 + HH^2), on the CPU, image by image."""
    step, scratch = _plan(student, weight)
    h, w = weight.shape[-2:]
    low, high = torch.zeros(2, dtype=torch.float64)
    for s, t, m in zip(student, teacher, weight, strict=True):
        squares = torch.zeros_like(scratch[0].both)
        for s_part, t_part in zip(s.split(step), t.split(step), strict=True):
            bands = scratch[0] if len(s_part) == step else scratch[1]
            bands.analyse(s_part, t_part)
            squares[:, : len(s_part)].addcmul_(bands.both, bands.both)
        energy = (squares.sum(1).view(2, h, w, 2) * m.view(h, w, 1)).sum((1, 2), dtype=torch.float64)
        low += energy[0, 0] / 4
        high += energy[0, 1] / 4 + energy[1].sum() / 2
    return low, high


def _cached_gradient(student: Tensor, teacher: Tensor, weight: Tensor, of_low: Tensor, of_high: Tensor) -> Tensor:
    """Return the gradient of half of ``of_low W LL^2 + of_high W (LH^2 + HL^2 + HH^2)``: transform, weight, invert."""
    step, scratch = _plan(student, weight)
    h, w = weight.shape[-2:]
    # Undoes the scales of analyse and synthesise: 2 * 2 for the pairs, 2 for the row differences.
    scale = torch.stack((of_low / 4, of_high / 4, of_high / 2, of_high / 2)).view(2, 1, 1, 1, 2)
    grad = torch.empty_like(student)
    for s, t, m, g in zip(student, teacher, weight, grad, strict=True):
        factor = (m.view(1, 1, h, w, 1) * scale).view(2, 1, h, 2 * w)
        for s_part, t_part, g_part in zip(s.split(step), t.split(step), g.split(step), strict=True):
            bands = scratch[0] if len(s_part) == step else scratch[1]
            bands.analyse(s_part, t_part)
            bands.both.mul_(factor)
            bands.synthesise(g_part)
    return grad


def _blocks(student: Tensor, teacher: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return student - teacher as 2 x 2 blocks (B, C, h, 2, w, 2) and the blocks' means, LL / 2, (B, C, h, 1, w, 1)."""
    h, w = weight.shape[-2:]
    difference = student.to(weight.dtype) - teacher.to(weight.dtype)
    difference = F.pad(difference, (0, 2 * w - student.shape[3], 0, 2 * h - student.shape[2])).contiguous()
    return difference.view(*student.shape[:2], h, 2, w, 2), F.avg_pool2d(difference, 2)[:, :, :, None, :, None]


def _sliced_energy(student: Tensor, teacher: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Do what ``_cached_energy`` does, a few images at a time: the high bands are what the mean of a block leaves."""
    low, high = weight.new_zeros(()), weight.new_zeros(())
    step = max(1, _SLICE // student[0].numel())
    for s, t, m in zip(*(torch.split(x, step) for x in (student, teacher, weight)), strict=True):
        blocks, mean = _blocks(s, t, m)
        factor = m[:, 0, :, None, :, None]
        low = low + (torch.linalg.vector_norm(mean, dim=1).square() * factor).sum() * 4
        high = high + (torch.linalg.vector_norm(blocks - mean, dim=1).square() * factor).sum()
    return low, high


def _sliced_gradient(student: Tensor, teacher: Tensor, weight: Tensor, of_low: Tensor, of_high: Tensor) -> Tensor:
    """Do what ``_cached_gradient`` does, a few images at a time: ``W (b d + (a - b) mean)``."""
    grad = torch.empty_like(student)
    step = max(1, _SLICE // student[0].numel())
    parts = (torch.split(x, step) for x in (student, teacher, weight, grad))
    for s, t, m, g in zip(*parts, strict=True):
        blocks, mean = _blocks(s, t, m)
        factor = m[:, :, :, None, :, None]
        blocks = blocks.mul_(factor * of_high).add_(mean * (factor * (of_low - of_high)))
        g.copy_(blocks.flatten(4).flatten(2, 3)[:, :, : g.shape[2], : g.shape[3]])
    return grad


class HaarEnergy(torch.autograd.Function):
    """Weighted energies of the Haar bands of student - teacher: ``mean(W LL^2)``, ``mean(W {LH, HL, HH}^2)``.

    Inputs: student and teacher (B, C, H, W), weight (B, 1, h, w) in the dtype of the computation. The gradient of the
    student is ``2 W (a LL-part + b high part)`` with a, b the incoming gradients over the counts; teacher and weight
    get none. Differentiable once.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Sum the energies; keep the inputs alone."""
        ctx.save_for_backward(student, teacher, weight)
        energy = _cached_energy if student.device.type == "cpu" else _sliced_energy
        low, high = energy(student, teacher, weight)
        count = student.shape[0] * student.shape[1] * weight.shape[2] * weight.shape[3]
        return (low / count).to(weight.dtype), (high / (3 * count)).to(weight.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_low: Tensor, grad_high: Tensor) -> tuple[Tensor, None, None]:
        """Transform again and write the gradient."""
        student, teacher, weight = ctx.saved_tensors
        count = student.shape[0] * student.shape[1] * weight.shape[2] * weight.shape[3]
        gradient = _cached_gradient if student.device.type == "cpu" else _sliced_gradient
        return gradient(student, teacher, weight, grad_low * 2 / count, grad_high * 2 / (3 * count)), None, None
