"""The explicit terms for Haar, near the cost of reading the features.

Left to autograd, they would keep several feature-sized intermediates for the backward pass. On one or two CPU threads a
loop in C reads the features once in each direction (`native`). With more threads, without a C compiler, and in float64,
the bands of the difference are written where the gradient will be, chunk by chunk through scratch that stays in the
cache, and the backward pass turns them into it. Either takes one new tensor of the feature's size in all. Features that
do not suit this are brought into shape a few images at a time, and on other devices a few images at a time pass through
a handful of kernels, in either direction; nothing but the inputs is kept.
"""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ds2d2_yolo.core.native import Haar, haar

# Threads up to which one thread in C is faster than eager operations in all of them; measured with one and two. Threads
# of our own would wait for those of torch, which go on spinning behind its operations.
_FEW_THREADS = 2
# Elements of the feature that are in the cache at a time, for each thread.
_CHUNK = 300_000
# Elements of the feature that are transformed at a time on other devices: large enough to occupy one, small in memory.
_SLICE = 2**25
# Bytes from which the C library takes new pages from the operating system for every tensor, and hands them back.
_LARGE = 2**25


def _empty_like(x: Tensor) -> Tensor:
    """Return an uninitialised CPU tensor like x, in huge pages if it is large and Linux has them.

    Four KiB at a time, the first touch of a new tensor costs several times the work that is done on it here.
    """
    if x.nbytes < _LARGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty_like(x)
    memory = mmap.mmap(-1, x.nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel without huge pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=x.dtype).view_as(x)


def _suits_cache(student: Tensor, teacher: Tensor, weight: Tensor) -> bool:
    """Return whether bands fit where the gradient will be: one dtype, even sides, rows one after the other."""
    h, w = weight.shape[-2:]
    return (
        student.device.type == "cpu"
        and student.shape[-2:] == (2 * h, 2 * w)
        and student.dtype == teacher.dtype == weight.dtype
        and student.is_contiguous()
        and teacher.is_contiguous()
    )


def _native(weight: Tensor) -> Haar | None:
    """Return the energies in C for a computation in the dtype of the weight, None where there are none."""
    return haar() if weight.dtype == torch.float32 and torch.get_num_threads() <= _FEW_THREADS else None


def _energy(student: Tensor, teacher: Tensor, weight: Tensor, scale: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the sums of W LL^2 and of W (LH^2 + HL^2 + HH^2) of features that suit the cache."""
    if native := _native(weight):
        return native.energy(student, teacher, weight, scale)
    return _cached_energy(student, teacher, weight, scale, None)


def _gradient(
    student: Tensor, teacher: Tensor, weight: Tensor, of_low: Tensor, of_high: Tensor, scale: Tensor | None
) -> Tensor:
    """Return the gradient of half of ``of_low W LL^2 + of_high W (LH^2 + HL^2 + HH^2)`` where the cache suits."""
    out = _empty_like(student)
    if native := _native(weight):
        return native.gradient(student, teacher, weight, scale, of_low.item(), of_high.item(), out)
    _cached_energy(student, teacher, weight, scale, out)
    return _cached_gradient(out, weight, scale, of_low, of_high)


def _step(x: Tensor) -> int:
    """Return the channels of a chunk: the most that divide all and stay in the cache, or one."""
    channels, most = x.shape[1], _CHUNK * torch.get_num_threads() // (x.shape[2] * x.shape[3])
    return max(n for n in range(1, channels + 1) if channels % n == 0 and n <= max(1, most))


def _cached_energy(
    student: Tensor, teacher: Tensor, weight: Tensor, scale: Tensor | None, bands: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the sums of W LL^2 and of W (LH^2 + HL^2 + HH^2); write the bands, if there is a tensor for them.

    Bands lie in an order that needs contiguous reads and writes alone. Sums and differences of two rows give s and t.
    LL and HL are half the sum and difference of neighbours of s: with neighbours as a complex number z,
    ``z (1 - i) = 2 (LL - i HL)``, one vectorised product. These pairs lie in the even rows, t in the odd ones: LH and
    HH have one weight, so that t need not be split, ``LH^2 + HH^2`` being half its sum of squares over the block.
    """
    (h, w), step = weight.shape[-2:], _step(student)
    chunks = student.shape[1] // step
    shape = (len(student) * chunks, step, h, 2, 2 * w)
    # Without a tensor for the bands, scratch of one chunk serves for all.
    target = student.new_empty(shape[1:]).expand(shape) if bands is None else bands.view(shape)
    evens, odds = target.unbind(3)
    pairs = torch.view_as_complex(evens.unflatten(-1, (w, 2)))  # type: ignore[no-untyped-call]
    scales = [None] * chunks if scale is None else scale.view(chunks, step, 1, 1, 1)
    squares, sums = torch.empty_like(target[0]), weight.new_empty(len(student), h, 2, 2 * w)
    parts = zip(student.view(shape), teacher.view(shape), target, evens, odds, pairs, strict=True)
    for index, (s, t, both, even, odd, pair) in enumerate(parts):
        image, chunk = divmod(index, chunks)
        torch.sub(s, t, out=both)
        if scale is not None:
            both.mul_(scales[chunk])
        torch.add(even, odd, out=even)
        torch.sub(even, odd, alpha=2, out=odd)
        torch.mul(pair, 1 - 1j, out=pair)
        torch.addcmul(squares, both, both, out=squares) if chunk else torch.mul(both, both, out=squares)
        if chunk == chunks - 1:
            torch.sum(squares, 0, out=sums[image])
    energy = (sums.view(-1, h, 2, w, 2) * weight.view(-1, h, 1, w, 1)).sum((0, 1, 3), dtype=torch.float64)
    return energy[0, 0] / 4, energy[0, 1] / 4 + energy[1].sum() / 2


def _cached_gradient(bands: Tensor, weight: Tensor, scale: Tensor | None, of_low: Tensor, of_high: Tensor) -> Tensor:
    """Turn the bands into the gradient of half of ``of_low W LL^2 + of_high W (LH^2 + HL^2 + HH^2)``, in place."""
    (h, w), step = weight.shape[-2:], _step(bands)
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
    return bands if scale is None else bands.mul_(scale)


def _slices(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Cut tensors into the images that are transformed at a time, one at least."""
    size = _CHUNK * torch.get_num_threads() if tensors[0].device.type == "cpu" else _SLICE
    step = max(1, size // tensors[0][0].numel())
    return zip(*(torch.split(x, step) for x in tensors), strict=True)


def _fit(x: Tensor, weight: Tensor) -> Tensor:
    """Return x in the dtype of the weight, with even sides, contiguous."""
    h, w = weight.shape[-2:]
    return F.pad(x.to(weight.dtype), (0, 2 * w - x.shape[3], 0, 2 * h - x.shape[2])).contiguous()


def _fitted_energy(student: Tensor, teacher: Tensor, weight: Tensor, scale: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return what ``_energy`` does, of features that do not suit it, a few images at a time."""
    parts = _slices(student, teacher, weight)
    sums = [torch.stack(_energy(_fit(s, m), _fit(t, m), m, scale)) for s, t, m in parts]
    low, high = torch.stack(sums).sum(0)
    return low, high


def _fitted_gradient(
    student: Tensor, teacher: Tensor, weight: Tensor, of_low: Tensor, of_high: Tensor, scale: Tensor | None
) -> Tensor:
    """Return what ``_gradient`` does, of features that do not suit it, a few images at a time."""
    grad = torch.empty_like(student)
    for s, t, m, g in _slices(student, teacher, weight, grad):
        part = _gradient(_fit(s, m), _fit(t, m), m, of_low, of_high, scale)
        g.copy_(part[:, :, : g.shape[2], : g.shape[3]])
    return grad


def _blocks(student: Tensor, teacher: Tensor, weight: Tensor, scale: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return scale (student - teacher) as 2 x 2 blocks (B, C, h, 2, w, 2) and the means LL / 2 (B, C, h, 1, w, 1)."""
    h, w = weight.shape[-2:]
    difference = student.to(weight.dtype) - teacher.to(weight.dtype)
    if scale is not None:
        difference.mul_(scale)
    difference = F.pad(difference, (0, 2 * w - student.shape[3], 0, 2 * h - student.shape[2])).contiguous()
    return difference.view(*student.shape[:2], h, 2, w, 2), F.avg_pool2d(difference, 2)[:, :, :, None, :, None]


def _sliced_energy(student: Tensor, teacher: Tensor, weight: Tensor, scale: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return what ``_cached_energy`` does, a few images at a time: the high bands are what a block's mean leaves."""
    low, high = weight.new_zeros(()), weight.new_zeros(())
    for s, t, m in _slices(student, teacher, weight):
        blocks, mean = _blocks(s, t, m, scale)
        factor = m[:, 0, :, None, :, None]
        low = low + (torch.linalg.vector_norm(mean, dim=1).square() * factor).sum() * 4
        high = high + (torch.linalg.vector_norm(blocks - mean, dim=1).square() * factor).sum()
    return low, high


def _sliced_gradient(
    student: Tensor, teacher: Tensor, weight: Tensor, of_low: Tensor, of_high: Tensor, scale: Tensor | None
) -> Tensor:
    """Return what ``_cached_gradient`` does, a few images at a time: ``W (b d + (a - b) mean)``."""
    grad = torch.empty_like(student)
    scale = scale if scale is None else scale.square()  # once for each direction
    for s, t, m, g in _slices(student, teacher, weight, grad):
        blocks, mean = _blocks(s, t, m, scale)
        factor = m[:, :, :, None, :, None]
        blocks = blocks.mul_(factor * of_high).add_(mean * (factor * (of_low - of_high)))
        g.copy_(blocks.flatten(4).flatten(2, 3)[:, :, : g.shape[2], : g.shape[3]])
    return grad


class HaarEnergy(torch.autograd.Function):
    """Weighted energies of the Haar bands of student - teacher: ``mean(W LL^2)``, ``mean(W {LH, HL, HH}^2)``.

    Inputs: student and teacher (B, C, H, W), weight (B, 1, h, w) in the dtype of the computation, and in the same dtype
    None or factors of the channels, (C, 1, 1), that multiply the difference. The gradient of the student is
    ``2 W (a LL-part + b high part)`` with a, b the incoming gradients over the counts; the others get none.
    Differentiable once.
    """

    @staticmethod
    def forward(
        ctx: Any, student: Tensor, teacher: Tensor, weight: Tensor, scale: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Sum the energies; keep the inputs, and without C code the bands where they will be the gradient."""
        ctx.save_for_backward(student, teacher, weight, scale)
        ctx.bands = None
        if _suits_cache(student, teacher, weight):
            if ctx.needs_input_grad[0] and _native(weight) is None:
                ctx.bands = _empty_like(student)
                low, high = _cached_energy(student, teacher, weight, scale, ctx.bands)
            else:
                low, high = _energy(student, teacher, weight, scale)
        else:
            energy = _fitted_energy if student.device.type == "cpu" else _sliced_energy
            low, high = energy(student, teacher, weight, scale)
        count = student.shape[1] * weight.numel()
        return (low / count).to(weight.dtype), (high / (3 * count)).to(weight.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_low: Tensor, grad_high: Tensor) -> tuple[Tensor, None, None, None]:
        """Write the gradient; where the graph is used a second time, the bands are computed again."""
        student, teacher, weight, scale = ctx.saved_tensors
        count = student.shape[1] * weight.numel()
        of_low, of_high = grad_low * 2 / count, grad_high * 2 / (3 * count)
        if not _suits_cache(student, teacher, weight):
            gradient = _fitted_gradient if student.device.type == "cpu" else _sliced_gradient
            return gradient(student, teacher, weight, of_low, of_high, scale), None, None, None
        bands, ctx.bands = ctx.bands, None
        if bands is None:
            return _gradient(student, teacher, weight, of_low, of_high, scale), None, None, None
        return _cached_gradient(bands, weight, scale, of_low, of_high), None, None, None
