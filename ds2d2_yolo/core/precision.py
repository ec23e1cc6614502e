"""Precision in which the losses are computed."""

from __future__ import annotations

import torch
from torch import Tensor


def float32_or_64(x: Tensor) -> Tensor:
    """Return x in float32, or unchanged if it is float64.

    Args:
        x (torch.Tensor): Any tensor.

    Returns:
        (torch.Tensor): Of the same shape.

    Examples:
        >>> float32_or_64(torch.ones(2, dtype=torch.float16)).dtype, float32_or_64(torch.ones(2).double()).dtype
        (torch.float32, torch.float64)
    """
    return x if x.dtype == torch.float64 else x.float()
