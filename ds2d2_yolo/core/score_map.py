"""Weight map from the teacher's class scores: what counts are the cells in which it sees an object."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ds2d2_yolo.core.wavelet import filter_length

_TINY = torch.finfo(torch.float32).tiny


@torch.no_grad()
def score_map(scores: Tensor, wavelet: str = "haar", weight: Tensor | None = None) -> Tensor:
    """Return the weight map of one level of the explicit terms, of mean 1 over the images that have a score.

    ``W = V s / mean(V s)``, s being the mean of the scores in each cell of the band, samples outside the map left out,
    V a further weight, and the mean that over the images with a score above 0: one without any takes no weight and
    leaves that of the others as it is. The grid is that of ``disw_map``: a band's cell is two samples wide, see
    ``wavelet.band_origin``; a cell without a sample weighs 0.

    This map is not part of the published method, which weighs by ``disw_map`` alone. That one gives each object its
    weight on every level, also where the teacher sees nothing of it, and no cell less than 1; this one has next to
    nothing for background beside objects, nor for those that the teacher misses. The mean is taken to 1 whatever the
    scores are: a level on which the teacher sees nothing in any image of the batch weighs its cells alike, and where it
    sees little, few cells have nearly all of the weight.

    Args:
        scores (torch.Tensor): Largest class score of the teacher at each sample, in 0 .. 1, shape (B, H, W).
        wavelet (str): Any name of ``pywt.wavelist(kind="discrete")``.
        weight (torch.Tensor, optional): V, shape (B, 1, h, w) with the (h, w) of ``wavelet.band_shape``; none is 1.

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
    # to whole cells: those of the band end with the first one that leaves the map
    sides = (before, before + (width % 2), before, before + (height % 2))
    held = F.avg_pool2d(F.pad(torch.ones_like(scores[:1], dtype=torch.float32), sides).unsqueeze(1), 2)
    cells = F.avg_pool2d(F.pad(scores.float(), sides).unsqueeze(1), 2) / held.clamp(min=0.25)
    if weight is not None:
        if weight.shape != cells.shape:
            raise ValueError(f"weight must be {tuple(cells.shape)} for these scores, got {tuple(weight.shape)}")
        cells = cells * weight
    counted = (scores > 0).flatten(1).any(1).sum().clamp(min=1)
    return cells / (cells.sum() / (counted * cells[0].numel())).clamp(min=_TINY)
