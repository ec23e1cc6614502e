"""A memory-lean autograd function for the explicit terms with the Haar wavelet.

Plain autograd would keep several feature-sized intermediates for the backward pass. `HaarEnergy` saves its inputs and,
on a CPU, the bands of the difference in the memory that becomes the gradient (`haar.cpu`). On other devices a few
images at a time pass through a handful of kernels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ds2d2_yolo.core.haar.cpu import bands_energy, bands_to_gradient, can_hold_bands, cpu_energy, cpu_gradient

# Elements of a feature that are transformed at a time on other devices: large enough to occupy one, small in memory.
_SLICE = 2**25


def _split(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Split tensors along the batch into the images that are transformed at a time, at least one."""
    images = max(1, _SLICE // tensors[0][0].numel())
    return zip(*(torch.split(x, images) for x in tensors), strict=True)


def _blocks(student: Tensor, teacher: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return student - teacher as 2 x 2 blocks (B, C, h, 2, w, 2) and the means LL / 2 (B, C, h, 1, w, 1)."""
    h, w = weight.shape[-2:]
    difference = student.to(weight.dtype) - teacher.to(weight.dtype)
    difference = F.pad(difference, (0, 2 * w - student.shape[3], 0, 2 * h - student.shape[2])).contiguous()
    return difference.view(*student.shape[:2], h, 2, w, 2), F.avg_pool2d(difference, 2)[:, :, :, None, :, None]


def _device_energy(student: Tensor, teacher: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return `cpu_energy` on another device: the high bands are what remains of a block without its mean."""
    low, high = weight.new_zeros(()), weight.new_zeros(())
    for s, t, w in _split(student, teacher, weight):
        blocks, mean = _blocks(s, t, w)
        factor = w[:, 0, :, None, :, None]
        low = low + (torch.linalg.vector_norm(mean, dim=1).square() * factor).sum() * 4
        high = high + (torch.linalg.vector_norm(blocks - mean, dim=1).square() * factor).sum()
    return low, high


def _device_gradient(student: Tensor, teacher: Tensor, weight: Tensor, of_low: Tensor, of_high: Tensor) -> Tensor:
    """Return `cpu_gradient` on another device: ``W (of_high d + (of_low - of_high) mean)`` of the difference d."""
    grad = torch.empty_like(student)
    for s, t, w, g in _split(student, teacher, weight, grad):
        blocks, mean = _blocks(s, t, w)
        factor = w[:, :, :, None, :, None]
        blocks = blocks.mul_(factor * of_high).add_(mean * (factor * (of_low - of_high)))
        g.copy_(blocks.flatten(4).flatten(2, 3)[:, :, : g.shape[2], : g.shape[3]])
    return grad


class HaarEnergy(torch.autograd.Function):
    """Weighted mean energies of the Haar bands of ``D = student - teacher``, differentiable once.

    ``low = mean(W LL(D)^2)`` and ``high = mean(W {LH, HL, HH}(D)^2)``, the explicit terms of DS2D2 (arXiv 2512.04413).
    The gradient is that of the student; teacher and weight get none. Arguments of ``apply``: student
    and teacher of shape (B, C, H, W), weight W of shape (B, 1, ceil(H / 2), ceil(W / 2)) in the dtype of the
    computation.

    Examples:
        >>> student = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]], requires_grad=True)
        >>> low, high = HaarEnergy.apply(student, torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 1, 1))
        >>> low.item(), round(high.item(), 4)
        (25.0, 1.6667)
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Sum the energies; save the inputs and, on a CPU, the bands in the memory of the gradient."""
        ctx.save_for_backward(student, teacher, weight)
        ctx.bands = None
        if student.device.type != "cpu":
            low, high = _device_energy(student, teacher, weight)
        elif ctx.needs_input_grad[0] and can_hold_bands(student, teacher, weight):
            ctx.bands = torch.empty_like(student)
            low, high = bands_energy(student, teacher, weight, ctx.bands)
        else:
            low, high = cpu_energy(student, teacher, weight)
        count = student.shape[1] * weight.numel()
        return (low / count).to(weight.dtype), (high / (3 * count)).to(weight.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_low: Tensor, grad_high: Tensor) -> tuple[Tensor, None, None]:
        """Write the gradient; a second pass through one graph computes the bands again."""
        student, teacher, weight = ctx.saved_tensors
        count = student.shape[1] * weight.numel()
        of_low, of_high = grad_low * 2 / count, grad_high * 2 / (3 * count)
        bands, ctx.bands = ctx.bands, None
        if bands is not None:
            return bands_to_gradient(bands, weight, of_low, of_high), None, None
        gradient = cpu_gradient if student.device.type == "cpu" else _device_gradient
        return gradient(student, teacher, weight, of_low, of_high), None, None
