"""Haar energies on a CPU, in chunks that stay in the cache.

The bands of the difference are written where the gradient will be, so that forward and backward pass together take one
new tensor of the feature's size. Features that cannot hold the bands (odd sides, other strides, a lower precision) are
copied a few images at a time first.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

# Elements of a feature that stay in the cache, for each thread.
_CHUNK = 300_000


def can_hold_bands(student: Tensor, teacher: Tensor, weight: Tensor) -> bool:
    """Return whether the bands fit into a tensor laid out like the student: one dtype, even sides, contiguous.

    Args:
        student (torch.Tensor): Feature of shape (B, C, H, W).
        teacher (torch.Tensor): Feature of the same shape.
        weight (torch.Tensor): Weight map (B, 1, h, w) in the dtype of the computation.

    Returns:
        (bool): True where ``bands_energy`` and ``bands_to_gradient`` can be used.

    Examples:
        >>> even, odd = torch.zeros(1, 1, 4, 6), torch.zeros(1, 1, 3, 6)
        >>> can_hold_bands(even, even, torch.ones(1, 1, 2, 3)), can_hold_bands(odd, odd, torch.ones(1, 1, 2, 3))
        (True, False)
    """
    h, w = weight.shape[-2:]
    same_dtype = student.dtype == teacher.dtype == weight.dtype
    return student.shape[-2:] == (2 * h, 2 * w) and same_dtype and student.is_contiguous() and teacher.is_contiguous()


def _channels_per_chunk(x: Tensor) -> int:
    """Return the largest divisor of the number of channels whose chunk fits the cache, at least 1."""
    channels, limit = x.shape[1], _CHUNK * torch.get_num_threads() // (x.shape[2] * x.shape[3])
    return max(n for n in range(1, channels + 1) if channels % n == 0 and n <= max(1, limit))


def bands_energy(
    student: Tensor, teacher: Tensor, weight: Tensor, bands: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the sums of ``W LL^2`` and ``W (LH^2 + HL^2 + HH^2)``; write the bands into ``bands`` if it is given.

    The order of the bands needs contiguous reads and writes only. Sums and differences of two rows give s and t.
    LL and HL are half the sum and difference of neighbours of s: with neighbours as a complex number z,
    ``z (1 - i) = 2 (LL - i HL)``, one vectorised product. These pairs lie in the even rows, t in the odd ones: LH and
    HH have one weight, so that t need not be split, ``LH^2 + HH^2`` being half its sum of squares over the block.

    Args:
        student (torch.Tensor): Feature (B, C, 2 h, 2 w) for which `can_hold_bands` is True.
        teacher (torch.Tensor): Feature of the same shape.
        weight (torch.Tensor): Weight map (B, 1, h, w).
        bands (torch.Tensor, optional): Contiguous tensor like the student; overwritten.

    Returns:
        low (torch.Tensor): Scalar, float64.
        high (torch.Tensor): Scalar, float64.

    Examples:
        >>> student, teacher = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), torch.zeros(1, 1, 2, 2)
        >>> low, high = bands_energy(student, teacher, torch.ones(1, 1, 1, 1))
        >>> low.item(), high.item()
        (25.0, 5.0)
    """
    (h, w), step = weight.shape[-2:], _channels_per_chunk(student)
    chunks = student.shape[1] // step
    shape = (len(student) * chunks, step, h, 2, 2 * w)
    # Without a tensor for the bands, all chunks share the scratch of one.
    target = student.new_empty(shape[1:]).expand(shape) if bands is None else bands.view(shape)
    evens, odds = target.unbind(3)
    pairs = torch.view_as_complex(evens.unflatten(-1, (w, 2)))  # type: ignore[no-untyped-call]
    squares, sums = torch.empty_like(target[0]), weight.new_empty(len(student), h, 2, 2 * w)
    parts = zip(student.view(shape), teacher.view(shape), target, evens, odds, pairs, strict=True)
    for index, (s, t, both, even, odd, pair) in enumerate(parts):
        image, chunk = divmod(index, chunks)
        torch.sub(s, t, out=both)
        torch.add(even, odd, out=even)
        torch.sub(even, odd, alpha=2, out=odd)
        torch.mul(pair, 1 - 1j, out=pair)
        torch.addcmul(squares, both, both, out=squares) if chunk else torch.mul(both, both, out=squares)
        if chunk == chunks - 1:
            torch.sum(squares, 0, out=sums[image])
    energy = (sums.view(-1, h, 2, w, 2) * weight.view(-1, h, 1, w, 1)).sum((0, 1, 3), dtype=torch.float64)
    return energy[0, 0] / 4, energy[0, 1] / 4 + energy[1].sum() / 2


def bands_to_gradient(bands: Tensor, weight: Tensor, of_low: Tensor, of_high: Tensor) -> Tensor:
    """Turn bands into the gradient of half of ``of_low W LL^2 + of_high W (LH^2 + HL^2 + HH^2)``, in place.

    Args:
        bands (torch.Tensor): As `bands_energy` writes them, shape (B, C, 2 h, 2 w).
        weight (torch.Tensor): Weight map (B, 1, h, w).
        of_low (torch.Tensor): Scalar, the incoming gradient of the low energy.
        of_high (torch.Tensor): Scalar, the incoming gradient of the high energy.

    Returns:
        (torch.Tensor): ``bands``, which now hold the gradient of the student.

    Examples:
        >>> student, teacher, weight = torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 1, 1)
        >>> bands, one = torch.empty_like(student), torch.tensor(1.0)
        >>> _ = bands_energy(student, teacher, weight, bands)
        >>> bands_to_gradient(bands, weight, one, one).flatten()
        tensor([1., 1., 1., 1.])
    """
    (h, w), step = weight.shape[-2:], _channels_per_chunk(bands)
    chunks = bands.shape[1] // step
    # Undoes the factors of both directions: 2 * 2 for the pairs, 2 for the row differences.
    gains = torch.stack((of_low / 4, of_high / 4, of_high / 2, of_high / 2)).view(2, 1, 2)
    factors = (weight.view(-1, 1, h, 1, w, 1) * gains).view(-1, 1, h, 2, 2 * w)
    of_rows = [pair for pair in zip(*factors.unbind(3), strict=True) for _ in range(chunks)]
    weighted = bands.new_empty(step, h, 2 * w)
    pairs = torch.view_as_complex(weighted.view(step, h, w, 2))
    rows = bands.view(-1, step, h, 2, 2 * w).unbind(3)
    for even, odd, (of_even, of_odd) in zip(*rows, of_rows, strict=True):
        torch.mul(even, of_even, out=weighted)
        torch.mul(pairs, 1 + 1j, out=pairs)
        torch.addcmul(weighted, odd, of_odd, out=even)
        torch.addcmul(weighted, odd, of_odd, value=-1, out=odd)
    return bands


def _padded(student: Tensor, teacher: Tensor, weight: Tensor, *grad: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield features that can hold the bands: as they are, or copied and zero-padded a few images at a time."""
    if can_hold_bands(student, teacher, weight):
        yield student, teacher, weight, *grad
        return
    images = max(1, _CHUNK * torch.get_num_threads() // student[0].numel())
    for s, t, w, *g in zip(*(torch.split(x, images) for x in (student, teacher, weight, *grad)), strict=True):
        sides = (0, 2 * w.shape[3] - s.shape[3], 0, 2 * w.shape[2] - s.shape[2])
        s, t = (F.pad(x.to(w.dtype), sides).contiguous() for x in (s, t))
        yield s, t, w, *g


def cpu_energy(student: Tensor, teacher: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sums of ``W LL^2`` and ``W (LH^2 + HL^2 + HH^2)`` of features of any layout.

    Args:
        student (torch.Tensor): Feature of shape (B, C, H, W).
        teacher (torch.Tensor): Feature of the same shape.
        weight (torch.Tensor): Weight map (B, 1, h, w) in the dtype of the computation.

    Returns:
        low (torch.Tensor): Scalar, float64.
        high (torch.Tensor): Scalar, float64.

    Examples:
        >>> low, high = cpu_energy(torch.ones(1, 1, 3, 3), torch.zeros(1, 1, 3, 3), torch.ones(1, 1, 2, 2))
        >>> low.item(), high.item()
        (6.25, 2.75)
    """
    sums = [torch.stack(bands_energy(s, t, w)) for s, t, w in _padded(student, teacher, weight)]
    low, high = torch.stack(sums).sum(0)
    return low, high


def cpu_gradient(student: Tensor, teacher: Tensor, weight: Tensor, of_low: Tensor, of_high: Tensor) -> Tensor:
    """Return the gradient of half of ``of_low W LL^2 + of_high W (LH^2 + HL^2 + HH^2)`` for features of any layout.

    Args:
        student (torch.Tensor): As in `cpu_energy`.
        teacher (torch.Tensor): As in `cpu_energy`.
        weight (torch.Tensor): As in `cpu_energy`.
        of_low (torch.Tensor): Scalar, the incoming gradient of the low energy.
        of_high (torch.Tensor): Scalar, the incoming gradient of the high energy.

    Returns:
        (torch.Tensor): Gradient of the student, in its shape, dtype and strides.

    Examples:
        >>> student, teacher = torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
        >>> cpu_gradient(student, teacher, torch.ones(1, 1, 1, 1), torch.tensor(1.0), torch.tensor(0.0)).sum()
        tensor(4.)
    """
    grad = torch.empty_like(student)
    for s, t, w, g in _padded(student, teacher, weight, grad):
        bands = g if can_hold_bands(g, g, w) else torch.empty_like(s)
        bands_energy(s, t, w, bands)
        bands_to_gradient(bands, w, of_low, of_high)
        if bands is not g:
            g.copy_(bands[:, :, : g.shape[2], : g.shape[3]])
    return grad
