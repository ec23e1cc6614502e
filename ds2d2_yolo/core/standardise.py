"""Standardisation of feature maps, channel by channel, for the explicit terms. Not part of the published method.

`standardise` is batch normalisation without learned parameters, with a mask of the images that make the statistics.
PKD (Cao et al., NeurIPS 2022, arXiv 2207.02039) standardises both features before it compares them: half the mean
square of the difference is then one minus Pearson's correlation of a channel.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Added to the variances, as in BatchNorm: a constant channel becomes zeros, not noise of variance 1.
_EPSILON = 1e-5
# Elements of a feature that are computed at a time: few enough for the cache of a CPU, enough to occupy a GPU.
_CHUNK, _SLICE = 2**18, 2**25


def channel_moments(x: Tensor, dtype: torch.dtype, counted: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return mean and variance of each channel over batch and positions, without a device sync.

    Args:
        x (torch.Tensor): Feature of shape (B, C, H, W), finite.
        dtype (torch.dtype): Type of the computation and of the result.
        counted (torch.Tensor, optional): Boolean mask (B,) of the images that the moments are taken over; default all.

    Returns:
        mean (torch.Tensor): Shape (C,), zeros if no image counts.
        variance (torch.Tensor): Shape (C,), the mean square of the deviations, zeros if no image counts.

    Examples:
        >>> channel_moments(torch.tensor([[[[1.0, 1.0, 3.0, 3.0]], [[5.0, 5.0, 5.0, 5.0]]]]), torch.float32)
        (tensor([2., 5.]), tensor([1., 0.]))
    """
    mask = (x.new_ones(len(x)) if counted is None else counted).to(dtype)[:, None]
    number = mask.sum().clamp(min=1)  # stays on the device: no synchronisation
    mean = (mask * x.mean((2, 3), dtype=dtype)).sum(0) / number
    # Image by image, to avoid a centred copy of the feature.
    squares = torch.stack([torch.linalg.vector_norm(i.to(dtype) - mean[:, None, None], dim=(1, 2)).square() for i in x])
    return mean, (mask * squares).sum(0) / (number * x[0, 0].numel())


def _forward(x: Tensor, counted: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the standardised feature and one over the deviation of each channel, (C, 1, 1)."""
    mean, variance = channel_moments(x, x.dtype, counted)
    factor = (variance + _EPSILON).rsqrt()[:, None, None]
    return (x - mean[:, None, None]).mul_(factor), factor


class _Standardise(torch.autograd.Function):
    """`_forward` that keeps one tensor of the feature's size for its backward pass: the result.

    With y the result, k the factors, g the incoming gradient, c the mask and n the number of counted elements of a
    channel, the gradient is ``k (g - c / n (sum g + y sum(g y)))``. The sums go over batch and positions.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, counted: Tensor | None) -> Tensor:
        """Standardise; save the result, the factors and the mask."""
        result, factor = _forward(x, counted)
        ctx.save_for_backward(result, factor, counted)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Return the gradient, a few images at a time."""
        result, factor, counted = ctx.saved_tensors
        images = max(1, (_CHUNK * torch.get_num_threads() if grad.is_cpu else _SLICE) // grad[0].numel())
        pairs = list(zip(torch.split(grad, images), torch.split(result, images), strict=True))
        mask = (grad.new_ones(len(grad)) if counted is None else counted.to(grad.dtype))[:, None, None, None]
        share = mask / (mask.sum().clamp(min=1) * grad[0, 0].numel())
        sums = torch.stack([g.sum((0, 2, 3)) for g, _ in pairs]).sum(0)[:, None, None]
        products = torch.stack([(g * y).sum((0, 2, 3)) for g, y in pairs]).sum(0)[:, None, None]
        out = torch.empty_like(result)
        for (g, y), of_image, target in zip(pairs, torch.split(share, images), torch.split(out, images), strict=True):
            torch.addcmul(g, y, -of_image * products, out=target)
            target.sub_(of_image * sums).mul_(factor)
        return out, None


def standardise(x: Tensor, counted: Tensor | None = None) -> Tensor:
    """Return ``(x - mean) / sqrt(variance + 1e-5)`` channel by channel. Not part of the published method.

    Mean and variance are taken over batch and positions of this process; the gradient passes through both. The function
    is differentiable once.

    Source: PKD, Cao et al., NeurIPS 2022, arXiv 2207.02039. The epsilon is that of batch normalisation.

    Args:
        x (torch.Tensor): Feature of shape (B, C, H, W), float32 or float64.
        counted (torch.Tensor, optional): Boolean mask (B,) of the images that mean and variance are taken over; default
            all. The others are standardised with the same numbers.

    Returns:
        (torch.Tensor): Shape and dtype of x. A channel that does not vary becomes zeros.

    Examples:
        >>> standardise(torch.tensor([[[[-1.0, 1.0], [3.0, 5.0]]]])).flatten().round(decimals=2)
        tensor([-1.3400, -0.4500,  0.4500,  1.3400])
    """
    if torch.compiler.is_compiling():  # the compiler plans memory by itself
        return _forward(x, counted)[0]
    return _Standardise.apply(x, counted)  # type: ignore[no-any-return]
