"""Noise and wave fields made of integer arithmetic, so that every processor draws the same pixels."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]
U16 = NDArray[np.uint16]

SINE: U8 = np.array([round(127.5 + 127.5 * math.sin(2 * math.pi * i / 256)) for i in range(256)], dtype=np.uint8)


def fractal(rng: np.random.Generator, size: int, coarse: float, gain: float = 0.6, finest: int = 1) -> U8:
    """Draw fractal value noise with mean 128 and standard deviation 48.

    A random grid is doubled again and again by exact bilinear interpolation, and each octave adds `gain` times the
    amplitude of the one before. Repeated doubling tends to a quadratic B-spline, so no grid shows.

    Args:
        rng (np.random.Generator): Source of the noise.
        size (int): Side of the square field in pixels.
        coarse (float): Wavelength of the coarsest octave in pixels.
        gain (float): Amplitude ratio of neighbouring octaves; towards 1 the field is rougher.
        finest (int): Wavelength in pixels below which no octave is added.

    Returns:
        (np.ndarray): Field of shape (size, size), uint8.
    """
    doublings = max(0, round(math.log2(max(coarse, 1.0))))
    side = math.ceil(size / 2**doublings) + 2
    octaves = [gain**k if 2 ** (doublings - k) >= finest else 0.0 for k in range(doublings + 1)]
    scale = 65535.0 / (sum(octaves) * 65536.0)
    field: U16 = np.zeros((side, side), np.uint16)
    for k, amplitude in enumerate(octaves):
        if k:
            field = cv2.resize(field, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR_EXACT)
        if amplitude:
            grain = rng.integers(0, 65536, field.shape, dtype=np.uint16)
            weight = np.uint32(round(amplitude * scale * 65536))
            field = field + ((grain * weight) >> np.uint32(16)).astype(np.uint16)
    dy, dx = (int(v) for v in rng.integers(0, field.shape[0] - size + 1, 2))
    return _standardise(field[dy : dy + size, dx : dx + size])


def _standardise(field: U16) -> U8:
    """Shift and scale a field to mean 128 and standard deviation 48; the sums are integers, hence exact."""
    count = field.size
    total = int(field.sum(dtype=np.uint64))
    squares = int((field.astype(np.uint64) ** 2).sum(dtype=np.uint64))
    mean = total // count
    deviation = max(1, math.isqrt(max(squares // count - mean * mean, 1)))
    centred = (field.astype(np.int32) - mean) * 48 // deviation + 128
    return np.clip(centred, 0, 255).astype(np.uint8)


def ripple(rng: np.random.Generator, warp: U8, wavelengths: list[float], direction: float, spread: float) -> U8:
    """Draw the sum of plane waves about one direction, bent by a noise field.

    Args:
        rng (np.random.Generator): Source of phases and directions.
        warp (np.ndarray): Square noise field, uint8, that bends the wave fronts.
        wavelengths (list[float]): Wavelength of each wave in pixels.
        direction (float): Mean direction in radians.
        spread (float): Half width of the range of directions in radians.

    Returns:
        (np.ndarray): Field in 0..255 of the shape of `warp`.
    """
    size = warp.shape[0]
    axis = np.arange(size, dtype=np.int32)
    total = np.zeros((size, size), np.uint16)
    for wavelength in wavelengths:
        angle = direction + float(rng.uniform(-spread, spread))
        kx = round(math.cos(angle) * 65536 / wavelength)
        ky = round(math.sin(angle) * 65536 / wavelength)
        phase = ((axis * kx)[None, :] + (axis * ky)[:, None]) >> 8
        phase = phase + warp.astype(np.int32) * 2 + int(rng.integers(256))
        total += SINE[(phase & 255).astype(np.uint8)]
    return (total // len(wavelengths)).astype(np.uint8)


def blend_fields(a: U8, b: U8, share: float) -> U8:
    """Return `share` of field `b` over field `a`."""
    weight = round(share * 256)
    return ((a.astype(np.uint16) * (256 - weight) + b.astype(np.uint16) * weight) >> 8).astype(np.uint8)
