"""Linear stretch of pixel values to 8 bits, between percentiles of a sample of the image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

PERCENTILES = (2.0, 98.0)  # that become 0 and 255 where the user does not choose
SAMPLES, SAMPLE_SIDE = 8, 256  # windows per axis of the sample, their side in pixels


def sample_windows(width: int, height: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield the windows of an image's sample: up to 64, spread evenly.

    Args:
        width (int): Width of the image in pixels.
        height (int): Height of the image in pixels.

    Yields:
        (tuple[int, int, int, int]): Left, top, right and bottom in pixels.
    """
    columns, rows = (
        sorted({round(i * max(0, side - SAMPLE_SIDE) / (SAMPLES - 1)) for i in range(SAMPLES)})
        for side in (width, height)
    )
    for y in rows:
        for x in columns:
            yield x, y, min(x + SAMPLE_SIDE, width), min(y + SAMPLE_SIDE, height)


def percentile_limits(
    samples: Sequence[Sequence[NDArray[Any]]], percentiles: tuple[float, float] = PERCENTILES
) -> NDArray[np.float64]:
    """Return the values that become 0 and 255.

    Args:
        samples (Sequence[Sequence[NDArray[Any]]]): Finite values of each band, in parts.
        percentiles (tuple[float, float]): Lower and upper percentile, 0 to 100.

    Returns:
        (NDArray[np.float64]): Lower and upper value of each band, (C, 2); 0 and 1 for a band without values.
    """
    limits = []
    for parts in samples:
        values = np.concatenate(parts)
        low, high = np.percentile(values, percentiles) if len(values) else (0.0, 1.0)
        limits.append((float(low), float(high) if high > low else float(low) + 1.0))
    return np.array(limits)


def stretch(pixels: NDArray[Any], limits: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Map the values between two limits to 0..255, band by band; values outside are clipped, NaN becomes 0.

    Args:
        pixels (NDArray[Any]): Values, C x H x W.
        limits (NDArray[np.float64]): Lower and upper value of each band, (C, 2).

    Returns:
        (NDArray[np.uint8]): C x H x W.
    """
    low, high = limits[:, :1, None], limits[:, 1:, None]
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = (pixels.astype(np.float32) - low.astype(np.float32)) * (255 / (high - low)).astype(np.float32)
    finite = np.nan_to_num(scaled, nan=0.0, posinf=255.0, neginf=0.0).clip(0, 255)
    return np.asarray(np.rint(finite), np.uint8)
