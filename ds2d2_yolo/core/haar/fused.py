"""The Haar energies as one kernel for each direction, for GPUs. Off by default: not measured on one yet.

``low = mean(W LL(D)^2)`` and ``high = mean(W {LH, HL, HH}(D)^2)`` with D = student - teacher, the explicit terms of
DS2D2 (arXiv 2512.04413). The gradient of a sample x of D is ``2 W (h (x - m) + l m)``: m is the mean of its 2 x 2
block, l and h are the incoming gradients over the numbers of coefficients.

The operators of `haar.energy` write intermediates to memory: counted for half precision, they move 13 times the bytes
that the terms need at least. Those are two reads of the features for the energies, and two reads and one write for the
gradient, which computes D again. A kernel each moves just these, for any memory order of student and teacher.
``torch.compile`` fuses operators too, but it compiles anew for new shapes, and what it fuses is its choice. The kernels
are operators of torch (`torch.ops.ds2d2`): fake tensors can pass through them, so that `tools/count_step.py` counts
them.
"""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Channels and blocks of a tile. 16 channels in half precision are the 32 bytes that a GPU reads at least.
_CHANNELS, _CELLS = 16, 64
_INPUTS = "Tensor student, Tensor teacher, Tensor weight"


def can_fuse(student: Tensor, teacher: Tensor, weight: Tensor) -> bool:
    """Return whether the kernels can compute the energies: on a GPU with Triton, in float32.

    Args:
        student (torch.Tensor): Feature of shape (B, C, H, W).
        teacher (torch.Tensor): Feature of the same shape.
        weight (torch.Tensor): Weight map (B, 1, h, w) in the dtype of the computation.

    Returns:
        (bool): Also True on a CPU where Triton's interpreter is on (``TRITON_INTERPRET=1``), which is slow.

    Examples:
        >>> double = torch.zeros(1, 1, 2, 2, dtype=torch.float64)
        >>> can_fuse(double, double, double[:, :, :1, :1])
        False
    """
    if weight.dtype != torch.float32 or {x.device.type for x in (student, teacher, weight)} != {student.device.type}:
        return False
    computes = student.device.type == "cuda" or os.environ.get("TRITON_INTERPRET") == "1"
    return computes and importlib.util.find_spec("triton") is not None


def _grid(student: Tensor, weight: Tensor) -> tuple[int, int, int]:
    """Return the tiles of cells, of channels, and the images."""
    images, channels = student.shape[:2]
    return -(-weight[0].numel() // _CELLS), -(-channels // _CHANNELS), images


def _geometry(student: Tensor, weight: Tensor) -> tuple[int, ...]:
    """Return channels, height and width of a feature, cells of the weight map, and their number in a row."""
    return *student.shape[1:], weight[0].numel(), weight.shape[-1]


def _factors(student: Tensor, weight: Tensor) -> tuple[float, float]:
    """Return one over the number of coefficients in the low and in the high bands."""
    count = student.shape[1] * weight.numel()
    return 1 / count, 1 / (3 * count)


def _on(student: Tensor) -> Any:
    """Return a context in which the student's GPU is the current one, on which Triton launches."""
    return torch.cuda.device_of(student)  # type: ignore[no-untyped-call]


def _empty_sums(student: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    """Return the memory of the parts."""
    tiles, of_channels, images = _grid(student, weight)
    return weight.new_empty(tiles * of_channels * images, 2)


@torch.library.custom_op("ds2d2::haar_energy", mutates_args=(), schema=f"({_INPUTS}) -> Tensor")
def haar_energy(student: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted mean energies of the low and of the high bands, in parts that are to be added.

    Args:
        student (torch.Tensor): Feature of shape (B, C, H, W), any strides.
        teacher (torch.Tensor): Feature of the same shape.
        weight (torch.Tensor): Weight map (B, 1, h, w), float32.

    Returns:
        (torch.Tensor): Low and high energy of each tile, shape (tiles, 2), float32.
    """
    from ds2d2_yolo.core.haar.kernel import energy_kernel

    sums = _empty_sums(student, teacher, weight)
    weight = weight.contiguous()
    with _on(student):
        energy_kernel[_grid(student, weight)](
            *(student, teacher, weight, sums),
            *(*_geometry(student, weight), *student.stride(), *teacher.stride(), *_factors(student, weight)),
            **{"CHANNELS": _CHANNELS, "CELLS": _CELLS},
        )
    return sums


haar_energy.register_fake(_empty_sums)


def _empty_gradient(student: Tensor, teacher: Tensor, weight: Tensor, grad_low: Tensor, grad_high: Tensor) -> Tensor:
    """Return the memory of the gradient."""
    return torch.empty_like(student)


@torch.library.custom_op(
    "ds2d2::haar_gradient", mutates_args=(), schema=f"({_INPUTS}, Tensor grad_low, Tensor grad_high) -> Tensor"
)
def haar_gradient(student: Tensor, teacher: Tensor, weight: Tensor, grad_low: Tensor, grad_high: Tensor) -> Tensor:
    """Return the gradient of the student, in its dtype and memory order.

    Args:
        student (torch.Tensor): As in `haar_energy`.
        teacher (torch.Tensor): As in `haar_energy`.
        weight (torch.Tensor): As in `haar_energy`.
        grad_low (torch.Tensor): Scalar, incoming gradient of the low energy.
        grad_high (torch.Tensor): Scalar, incoming gradient of the high energy.

    Returns:
        (torch.Tensor): Shape (B, C, H, W).
    """
    from ds2d2_yolo.core.haar.kernel import gradient_kernel

    grad, weight = torch.empty_like(student), weight.contiguous()
    strides = *student.stride(), *teacher.stride(), *grad.stride()
    with _on(student):
        gradient_kernel[_grid(student, weight)](
            *(student, teacher, weight, grad, grad_low, grad_high),
            *(*_geometry(student, weight), *strides, *_factors(student, weight)),
            **{"CHANNELS": _CHANNELS, "CELLS": _CELLS},
        )
    return grad


haar_gradient.register_fake(_empty_gradient)


class FusedHaarEnergy(torch.autograd.Function):
    """`haar.energy.HaarEnergy` with the same arguments, where `can_fuse` is True; differentiable once."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Add the energies of the tiles; save the inputs only."""
        ctx.save_for_backward(student, teacher, weight)
        low, high = haar_energy(student, teacher, weight).sum(0)
        return low, high

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_low: Tensor, grad_high: Tensor) -> tuple[Tensor, None, None]:
        """Write the gradient."""
        return haar_gradient(*ctx.saved_tensors, grad_low, grad_high), None, None
