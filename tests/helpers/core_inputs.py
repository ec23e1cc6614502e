"""Random inputs for the tests of the core."""

from __future__ import annotations

import torch
from torch import Tensor

from ds2d2_yolo.core.wavelet import band_shape


def feature_inputs(
    shape: tuple[int, ...], dtype: torch.dtype = torch.float64, wavelet: str = "haar", seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Student feature, teacher feature and weight map."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, *shape, generator=generator, dtype=dtype)
    grid = band_shape(*shape[2:], wavelet)
    return student, teacher, 1 + torch.rand(shape[0], 1, *grid, generator=generator, dtype=dtype)


def dense_predictions(dtype: torch.dtype = torch.float64, columns: int = 4, seed: int = 0) -> tuple[Tensor, ...]:
    """Student logits and boxes, teacher logits and boxes of a dense head: (B, N, nc), (B, N, columns)."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 2, 6, 3, generator=generator, dtype=dtype) * 2
    low = torch.rand(2, 2, 6, 2, generator=generator, dtype=dtype) * 4
    side = torch.rand(2, 2, 6, 2, generator=generator, dtype=dtype) * 20 + 10
    box = torch.cat((low, low + side), -1)
    if columns == 5:
        box = torch.cat((low, side, torch.rand(2, 2, 6, 1, generator=generator, dtype=dtype)), -1)
    return logits[0], box[0], logits[1], box[1]


def wide_values(shape: tuple[int, ...], offset: float, dtype: torch.dtype, seed: int) -> Tensor:
    """Values around an offset with outliers of 10^4, representable in a half-precision dtype."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, generator=generator) + offset
    outlier = torch.rand(*shape, generator=generator) < 0.01
    return torch.where(outlier, x.sign() * 1e4, x).to(dtype)
