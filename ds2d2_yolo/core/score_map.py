"""Weight map of the cells in which the teacher detects an object. Not part of the published method."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ds2d2_yolo.core.wavelet import filter_length

_TINY = torch.finfo(torch.float32).tiny


@torch.no_grad()
def score_map(scores: Tensor, wavelet: str = "haar", weight: Tensor | None = None) -> Tensor:
    """Return a weight map of mean 1 from class scores. Not part of the published method.

    ``W = V s / mean(V s)``. Here s is the mean score of the samples of a cell of the band, without the samples outside
    the map, and V is a further weight. The mean is taken over the images with a score above 0: an image without any
    gets no weight and does not change that of the others. The grid is that of ``disw_map``: a cell of the band is two
    samples wide, see ``wavelet.band_origin``. A cell without a sample weighs 0.

    The published method weighs by ``disw_map`` only. That map gives each object its weight on every level, also where
    the teacher detects nothing of it, and no cell less than 1. This map gives next to nothing to background beside
    objects and to objects that the teacher misses. Its mean is 1 whatever the scores are: a level on which the teacher
    detects nothing in any image of the batch weighs its cells alike. Where the teacher detects little, few cells have
    nearly all of the weight.

    Args:
        scores (torch.Tensor): Largest class score of the teacher at each sample, shape (B, H, W), in 0 .. 1.
        wavelet (str): Any name of ``pywt.wavelist(kind="discrete")``.
        weight (torch.Tensor, optional): V of shape (B, 1, h, w) with the (h, w) of ``wavelet.band_shape``; default 1.

    Returns:
        (torch.Tensor): Weights of shape (B, 1, h, w), at least 0, float32; all 0 where no sample has a score.

    Raises:
        ValueError: If a shape or the wavelet is not a valid one.

    Examples:
        >>> score_map(torch.tensor([[[0.0, 0.0, 0.2], [0.0, 0.0, 0.6]]]))[0, 0]
        tensor([[0., 2.]])
    """
    if scores.ndim != 3 or not scores.numel():
        raise ValueError(f"expected scores of shape (B, H, W), got {tuple(scores.shape)}")
    height, width = scores.shape[1:]
    before = filter_length(wavelet) // 2 - 1
    # Pad to full cells: the cells of the band end with the first one that leaves the map.
    sides = (before, before + (width % 2), before, before + (height % 2))
    inside = F.avg_pool2d(F.pad(torch.ones_like(scores[:1], dtype=torch.float32), sides).unsqueeze(1), 2)
    cells = F.avg_pool2d(F.pad(scores.float(), sides).unsqueeze(1), 2) / inside.clamp(min=0.25)
    if weight is not None:
        if weight.shape != cells.shape:
            raise ValueError(f"weight must be {tuple(cells.shape)} for these scores, got {tuple(weight.shape)}")
        cells = cells * weight
    counted = (scores > 0).flatten(1).any(1).sum().clamp(min=1)
    return cells / (cells.sum() / (counted * cells[0].numel())).clamp(min=_TINY)
