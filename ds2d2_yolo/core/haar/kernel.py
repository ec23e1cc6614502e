"""Triton kernels of the Haar energies; `haar.fused` imports this module where it launches one of them.

A program takes a tile of 2 x 2 blocks of one image: channels along axis 0, cells of the weight map along axis 1. Such a
tile has short rows in either memory order, channels first or last, so that student and teacher may differ in it.
Triton comes with torch's Linux wheels for CUDA. Nothing else in the core needs it.
"""

from __future__ import annotations  # and no annotation but constexpr: Triton evaluates them

import triton
import triton.language as tl


@triton.jit
def _tile(channels, cells, w, CHANNELS: tl.constexpr, CELLS: tl.constexpr):
    """Return channel, cell, upper row and left column of each block, and whether it lies in the map."""
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)[:, None]
    cell = tl.program_id(0) * CELLS + tl.arange(0, CELLS)[None, :]
    return channel, cell, 2 * (cell // w), 2 * (cell % w), (channel < channels) & (cell < cells)


@triton.jit
def _address(x, channel, row, column, s_image, s_channel, s_row, s_column):
    """Return the addresses of samples of the program's image, for strides in elements."""
    image = tl.program_id(2).to(tl.int64)
    return x + image * s_image + channel * s_channel + row * s_row + column * s_column


@triton.jit
def _difference(student, teacher, inside):
    """Return student - teacher in float32, and 0 outside the map."""
    s = tl.load(student, mask=inside, other=0.0).to(tl.float32)
    return s - tl.load(teacher, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _differences(s, t, inside, right, below, s_row, s_column, t_row, t_column):
    """Return the differences a, b, c, d of blocks ``[[a b], [c d]]``, given the addresses of their first samples."""
    a = _difference(s, t, inside)
    b = _difference(s + s_column, t + t_column, right)
    c = _difference(s + s_row, t + t_row, below)
    d = _difference(s + s_row + s_column, t + t_row + t_column, right & below)
    return a, b, c, d


@triton.jit
def energy_kernel(
    student,
    teacher,
    weight,
    sums,
    channels,
    height,
    width,
    cells,
    w,
    s_image,
    s_channel,
    s_row,
    s_column,
    t_image,
    t_channel,
    t_row,
    t_column,
    of_low,
    of_high,
    CHANNELS: tl.constexpr,
    CELLS: tl.constexpr,
):
    """Write ``of_low W LL^2`` and ``of_high W (LH^2 + HL^2 + HH^2)``, each summed over the tile."""
    channel, cell, row, column, inside = _tile(channels, cells, w, CHANNELS, CELLS)
    right, below = inside & (column + 1 < width), inside & (row + 1 < height)
    s = _address(student, channel, row, column, s_image, s_channel, s_row, s_column)
    t = _address(teacher, channel, row, column, t_image, t_channel, t_row, t_column)
    a, b, c, d = _differences(s, t, inside, right, below, s_row, s_column, t_row, t_column)
    ll, lh, hl, hh = (a + b + c + d) / 2, (a + b - c - d) / 2, (a - b + c - d) / 2, (a - b - c + d) / 2
    of_cell = tl.load(weight + tl.program_id(2) * cells + cell, mask=cell < cells, other=0.0)
    program = (tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)) * tl.num_programs(0) + tl.program_id(0)
    tl.store(sums + 2 * program, of_low * tl.sum(tl.sum(of_cell * (ll * ll), 1), 0))
    tl.store(sums + 2 * program + 1, of_high * tl.sum(tl.sum(of_cell * (lh * lh + hl * hl + hh * hh), 1), 0))


@triton.jit
def gradient_kernel(
    student,
    teacher,
    weight,
    grad,
    grad_low,
    grad_high,
    channels,
    height,
    width,
    cells,
    w,
    s_image,
    s_channel,
    s_row,
    s_column,
    t_image,
    t_channel,
    t_row,
    t_column,
    g_image,
    g_channel,
    g_row,
    g_column,
    of_low,
    of_high,
    CHANNELS: tl.constexpr,
    CELLS: tl.constexpr,
):
    """Write the gradient ``2 W (of_high (x - mean) + of_low mean)`` of each difference x.

    ``mean`` is that of the block, LL / 2; both factors are multiplied by the incoming gradients.
    """
    channel, cell, row, column, inside = _tile(channels, cells, w, CHANNELS, CELLS)
    right, below = inside & (column + 1 < width), inside & (row + 1 < height)
    s = _address(student, channel, row, column, s_image, s_channel, s_row, s_column)
    t = _address(teacher, channel, row, column, t_image, t_channel, t_row, t_column)
    a, b, c, d = _differences(s, t, inside, right, below, s_row, s_column, t_row, t_column)
    of_cell = 2 * tl.load(weight + tl.program_id(2) * cells + cell, mask=cell < cells, other=0.0)
    high = of_cell * (of_high * tl.load(grad_high))
    mean = (a + b + c + d) / 4 * (of_cell * (of_low * tl.load(grad_low)) - high)
    g = _address(grad, channel, row, column, g_image, g_channel, g_row, g_column)
    tl.store(g, high * a + mean, mask=inside)
    tl.store(g + g_column, high * b + mean, mask=right)
    tl.store(g + g_row, high * c + mean, mask=below)
    tl.store(g + g_row + g_column, high * d + mean, mask=right & below)
