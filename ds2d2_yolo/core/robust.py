"""Channel normalisation and pseudo-Huber values for the explicit terms. Not part of the published method.

The pseudo-Huber value is the loss of Barron, "A General and Adaptive Robust Loss Function", CVPR 2019,
arXiv 1701.03077, with alpha = 1, times 2 d^2: it equals the square for small values.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ds2d2_yolo.core.standardise import channel_moments
from ds2d2_yolo.core.wavelet import dwt2

# Smallest standard deviation of a channel, as a fraction of the largest one: dead channels must not blow up.
_SMALLEST_DEVIATION = 0.01
# Smallest scale d, for a teacher whose coefficients are all zero.
_SMALLEST_COEFFICIENT = torch.finfo(torch.float32).eps
# Elements of the feature that are computed at a time: few enough for the cache of a CPU, enough to occupy a GPU.
_CHUNK, _SLICE = 2**18, 2**23


def _sum(parts: Iterable[Tensor]) -> Tensor:
    """Return the sum of tensors of one shape."""
    return torch.stack(list(parts)).sum(0)


def channel_scale(teacher: Tensor, dtype: torch.dtype, counted: Tensor | None = None) -> Tensor:
    """Return one over the standard deviation of each channel. Not part of the published method.

    The deviation is taken over batch and positions. It is floored at 1 % of the largest one, and is 1 where no channel
    varies.

    Args:
        teacher (torch.Tensor): Feature of shape (B, C, H, W), finite.
        dtype (torch.dtype): Type of the computation and of the result.
        counted (torch.Tensor, optional): Boolean mask (B,) of the images that the deviation is taken over; default all.

    Returns:
        (torch.Tensor): Factors of shape (C, 1, 1).

    Examples:
        >>> channel_scale(torch.tensor([[[[-2.0, 2.0]], [[-0.5, 0.5]]]]), torch.float32).flatten()
        tensor([0.5000, 2.0000])
    """
    deviation = channel_moments(teacher, dtype, counted)[1].sqrt()
    deviation = deviation.maximum(_SMALLEST_DEVIATION * deviation.max())
    return deviation.where(deviation > 0, torch.ones_like(deviation)).reciprocal()[:, None, None]


def _bands(x: Tensor, scale: Tensor | None, wavelet: str) -> tuple[Tensor, Tensor]:
    """Return low and high bands of x times scale."""
    return dwt2(x if scale is None else x * scale, wavelet)


def _parts(scale: Tensor | None, *tensors: Tensor) -> Iterator[tuple[Any, ...]]:
    """Split scale and tensors of (B, C or 1, H, W) into a few images, or a few channels of one image."""
    if torch.compiler.is_compiling():  # the compiler plans memory by itself
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
        # 2 d^2 (sqrt(1 + (x / d)^2) - 1), written without the difference that cancels.
        sums.append((w * (2 * x.square() / (1 + (1 + (x / k).square()).sqrt()))).sum())
    return torch.stack(sums)


class _RobustSums(torch.autograd.Function):
    """``_robust_sums`` in pieces, computed again in the backward pass: autograd would keep a dozen intermediates."""

    @staticmethod
    def forward(
        ctx: Any, scale: Tensor | None, student: Tensor, teacher: Tensor, weight: Tensor, d: Tensor, wavelet: str
    ) -> Tensor:
        """Add the pieces; save the inputs only."""
        ctx.save_for_backward(scale, student, teacher, weight, d)
        ctx.wavelet = wavelet
        parts = _parts(scale, student, teacher, weight)
        return _sum(_robust_sums(k, s, t, w, d, wavelet) for k, s, t, w in parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None, None, None, None]:
        """Compute each piece again and differentiate it by autograd."""
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
    """Return the explicit terms with pseudo-Huber values in place of squares. Not part of the published method.

    ``2 d^2 (sqrt(1 + (x / d)^2) - 1)`` is x^2 for small x and 2 d |x| for large x. The scale d is the root mean square
    of the teacher's LL for the low term, and of its LH, HL and HH for the high term, in the median image. A mean over
    all images would grow with one image on which the teacher is out of range, which would then pass for usual.

    Source: Barron, CVPR 2019, arXiv 1701.03077, general loss with alpha = 1, times 2 d^2.

    Args:
        student (torch.Tensor): Adapted student feature of shape (B, C, H, W).
        teacher (torch.Tensor): Teacher feature of the same shape, detached.
        weight (torch.Tensor): Weight map of shape (B, 1, h, w) in the dtype of the computation.
        scale (torch.Tensor | None): Factors of the channels of shape (C, 1, 1).
        wavelet (str): Any name of ``pywt.wavelist(kind="discrete")``.
        counted (torch.Tensor, optional): Boolean mask (B,) of the images that the median is taken over; default all.

    Returns:
        low (torch.Tensor): Scalar of the low band.
        high (torch.Tensor): Scalar of the three high bands.

    Examples:
        >>> teacher, weight = torch.ones(1, 1, 2, 2), torch.ones(1, 1, 1, 1)
        >>> low, high = robust_energies(teacher + 100, teacher, weight, None, "haar")
        >>> low.item() < 0.02 * 200**2, high.item()
        (True, 0.0)
    """
    # Of one low and three high bands, made on the device: no synchronisation.
    counts = student.shape[1] * weight.numel() * torch.arange(1, 4, 2, device=weight.device)
    squares = torch.stack([_squares(image, scale, weight.dtype, wavelet) for image in torch.split(teacher, 1)])
    d = (squares * len(teacher) / counts).sqrt()
    if counted is not None:
        d = d.where(counted[:, None], torch.full_like(d, torch.nan))
    d = d.nanquantile(0.5, 0).nan_to_num(0).clamp(min=_SMALLEST_COEFFICIENT)
    sums = _robust_sums if torch.compiler.is_compiling() else _RobustSums.apply
    low, high = sums(scale, student, teacher, weight, d, wavelet) / counts
    return low, high
