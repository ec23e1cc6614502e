"""The two options of the explicit terms: features in the teacher's units, and a robust value in place of the square."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ds2d2_yolo.core.wavelet import dwt2

# A channel's standard deviation counts as at least this fraction of the largest one: dead channels must not blow up.
_SMALLEST_DEVIATION = 0.01
# Coefficients of a teacher that has none are taken for this large.
_SMALLEST_COEFFICIENT = torch.finfo(torch.float32).eps
# Elements of the feature that are computed at a time: on a CPU they stay in the cache, others are kept busy.
_CHUNK, _SLICE = 2**18, 2**23


def _sum(parts: Iterable[Tensor]) -> Tensor:
    """Return the sum of tensors of one shape."""
    return torch.stack(list(parts)).sum(0)


def channel_scale(teacher: Tensor, dtype: torch.dtype, counted: Tensor | None = None) -> Tensor:
    """Return one over the standard deviation of each channel over batch and positions.

    A deviation counts as at least 1 % of the largest one, and as 1 where no channel varies.

    Args:
        teacher (torch.Tensor): Feature of shape (B, C, H, W), finite.
        dtype (torch.dtype): Of the computation and the result.
        counted (torch.Tensor, optional): B bool, the images that the deviation is taken over; all without it.

    Returns:
        (torch.Tensor): Factors, shape (C, 1, 1).
    """
    mask = (teacher.new_ones(len(teacher)) if counted is None else counted).to(dtype)[:, None]
    number = mask.sum().clamp(min=1)  # on the device: it need not be waited for
    mean = ((mask * teacher.mean((2, 3), dtype=dtype)).sum(0) / number)[:, None, None]
    # Image by image, so that no centred copy of the whole feature is held.
    squares = torch.stack([torch.linalg.vector_norm(x.to(dtype) - mean, dim=(1, 2)).square() for x in teacher])
    deviation = ((mask * squares).sum(0) / (number * teacher[0, 0].numel())).sqrt()
    deviation = deviation.maximum(_SMALLEST_DEVIATION * deviation.max())
    return deviation.where(deviation > 0, torch.ones_like(deviation)).reciprocal()[:, None, None]


def _bands(x: Tensor, scale: Tensor | None, wavelet: str) -> tuple[Tensor, Tensor]:
    """Return the bands of x times scale."""
    return dwt2(x if scale is None else x * scale, wavelet)


def _parts(scale: Tensor | None, *tensors: Tensor) -> Iterator[tuple[Any, ...]]:
    """Cut scale and tensors of (B, C or 1, H, W) into a few images, or a few channels of one."""
    if torch.compiler.is_compiling():  # a compiler takes them whole, and chooses for itself what to keep
        yield scale, *tensors
        return
    _, channels, height, width = tensors[0].shape
    size = _CHUNK * torch.get_num_threads() if tensors[0].device.type == "cpu" else _SLICE
    images = max(1, size // (channels * height * width))
    step = max(1, min(channels, size // (height * width)))
    count = -(-channels // step)
    scales = [None] * count if scale is None else torch.split(scale, step)
    for part in zip(*(torch.split(x, images) for x in tensors), strict=True):
        yield from zip(scales, *(torch.split(x, step, 1) if len(x[0]) > 1 else [x] * count for x in part), strict=True)


def _squares(image: Tensor, scale: Tensor | None, dtype: torch.dtype, wavelet: str) -> Tensor:
    """Return the sums of the squares of the low and of the high bands of one image."""
    bands = (_bands(t.to(dtype), k, wavelet) for k, t in _parts(scale, image))
    return _sum(torch.stack([x.square().sum() for x in pair]) for pair in bands)


def _robust_sums(
    scale: Tensor | None, student: Tensor, teacher: Tensor, weight: Tensor, d: Tensor, wavelet: str
) -> Tensor:
    """Return the weighted sums of the pseudo-Huber values of the low and of the high bands."""
    bands = _bands(student.to(weight.dtype) - teacher.to(weight.dtype), scale, wavelet)
    sums = []
    for x, k, w in zip(bands, d, (weight, weight.unsqueeze(2)), strict=True):
        # 2 d^2 (sqrt(1 + (x / d)^2) - 1) without the difference that cancels.
        sums.append((w * (2 * x.square() / (1 + (1 + (x / k).square()).sqrt()))).sum())
    return torch.stack(sums)


class _RobustSums(torch.autograd.Function):
    """``_robust_sums`` piece by piece, forward and again backward, where a dozen intermediates would be kept."""

    @staticmethod
    def forward(
        ctx: Any, scale: Tensor | None, student: Tensor, teacher: Tensor, weight: Tensor, d: Tensor, wavelet: str
    ) -> Tensor:
        """Add the pieces; keep the inputs alone."""
        ctx.save_for_backward(scale, student, teacher, weight, d)
        ctx.wavelet = wavelet
        parts = _parts(scale, student, teacher, weight)
        return _sum(_robust_sums(k, s, t, w, d, wavelet) for k, s, t, w in parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None, None, None, None]:
        """Compute each piece again and let autograd differentiate it."""
        scale, student, teacher, weight, d = ctx.saved_tensors
        out = torch.empty_like(student)
        for k, s, t, w, o in _parts(scale, student, teacher, weight, out):
            with torch.enable_grad(), torch.autocast(s.device.type, enabled=False):
                s = s.detach().requires_grad_()
                sums = _robust_sums(k, s, t, w, d, ctx.wavelet)
            o.copy_(torch.autograd.grad(sums, s, grad)[0])
        return None, out, None, None, None, None


def robust_energies(
    student: Tensor, teacher: Tensor, weight: Tensor, scale: Tensor | None, wavelet: str, counted: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the explicit terms with pseudo-Huber values for squares, a piece at a time.

    ``2 d^2 (sqrt(1 + (x / d)^2) - 1)`` is x^2 for small x and 2 d |x| for large; d is the root mean square of the
    teacher's LL for the low, of its LH, HL and HH for the high term, in the median image: over all of them, an image
    on which the teacher itself is out of range would raise d and pass for usual. The backward pass computes a piece
    again: a dozen feature-sized intermediates would be kept otherwise.

    Args:
        student (torch.Tensor): Adapted student feature, shape (B, C, H, W).
        teacher (torch.Tensor): Teacher feature, detached, same shape.
        weight (torch.Tensor): Weight map (B, 1, h, w) in the dtype of the computation.
        scale (torch.Tensor, optional): Factors of the channels, (C, 1, 1).
        wavelet (str): Name of a discrete wavelet.
        counted (torch.Tensor, optional): B bool, the images that the median is taken over; all without it.

    Returns:
        low (torch.Tensor): Scalar of the low band.
        high (torch.Tensor): Scalar of the three high bands.
    """
    # Of one low and three high bands, made on the device: it need not be waited for.
    counts = student.shape[1] * weight.numel() * torch.arange(1, 4, 2, device=weight.device)
    squares = torch.stack([_squares(image, scale, weight.dtype, wavelet) for image in torch.split(teacher, 1)])
    d = (squares * len(teacher) / counts).sqrt()
    if counted is not None:
        d = d.where(counted[:, None], torch.full_like(d, torch.nan))
    d = d.nanquantile(0.5, 0).nan_to_num(0).clamp(min=_SMALLEST_COEFFICIENT)
    sums = _robust_sums if torch.compiler.is_compiling() else _RobustSums.apply
    low, high = sums(scale, student, teacher, weight, d, wavelet) / counts
    return low, high
