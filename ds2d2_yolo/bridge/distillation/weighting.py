"""Weights of the terms: maps of the explicit stream, sums over levels, a normaliser for the implicit stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ds2d2_yolo.config.settings import Settings
from ds2d2_yolo.core.disw import disw_map
from ds2d2_yolo.core.score_map import score_map
from ds2d2_yolo.core.wavelet import band_origin, band_shape

if TYPE_CHECKING:
    from ds2d2_yolo.bridge.distillation.targets import Targets


def level_scores(logits: Tensor, features: list[Tensor], valid: Tensor) -> list[Tensor]:
    """Return the largest class score at each cell of each level.

    Args:
        logits (Tensor): Class logits of the teacher, B x anchors x classes, level after level, row after row.
        features (list[Tensor]): Its neck outputs, B x C x H x W each.
        valid (Tensor): B bool; images that are not valid get scores of 0.

    Returns:
        (list[Tensor]): B x H x W each, float32.
    """
    scores = logits.float().amax(2).sigmoid().where(valid[:, None], 0)
    sizes = [(f.shape[2], f.shape[3]) for f in features]
    parts = torch.split(scores, [height * width for height, width in sizes], 1)
    return [part.reshape(-1, *size) for part, size in zip(parts, sizes, strict=True)]


def teacher_score_sum(logits: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return the normaliser of the implicit terms: the sum over the images of max(sum of the teacher's scores, 1).

    The published code divides by the number of positives. Its targets are 0 or 1, so there that equals a sum of scores.
    The task-aligned assigner takes about ten positives an object with soft scores, and none in an empty image.
    Divided by positives, batches without objects sent 25 times the gradient of other batches into the neck (HIT-UAV,
    320 px, a YOLOv8s teacher). Divided by this sum, the ratio of the terms was 1.2.

    Args:
        logits (Tensor): The teacher's class logits, B x anchors x classes.
        valid (Tensor | None): B bool; images that are not valid count 1. None for all valid.

    Returns:
        (Tensor): Scalar, at least B.
    """
    sums = logits.sigmoid().sum((1, 2)).clamp(min=1)
    return (sums if valid is None else sums.where(valid, 1)).sum()


def sum_levels(values: Sequence[Tensor], weights: Sequence[float] | None) -> Tensor:
    """Return the weighted sum of a term over the levels.

    Args:
        values (Sequence[Tensor]): Scalar of each level.
        weights (Sequence[float] | None): Weight of each level. None for 1 each.

    Returns:
        (Tensor): Scalar.
    """
    if weights is not None:
        values = [value * weight for value, weight in zip(values, weights, strict=True)]
    return torch.stack(list(values)).sum()


def weight_maps(
    settings: Settings, features: list[Tensor], strides: Sequence[float], targets: Targets, scores: list[Tensor] | None
) -> Iterator[Tensor]:
    """Make the weight map of each level as `settings.weight_map` asks for it, one after the other.

    ``disw``: ``1 + disw x`` what `disw_map` adds to 1 for the ground truth; ``score``: `score_map` of the teacher's
    scores; ``both``: their product, of mean 1. With several processes that mean is over the images of each.

    Args:
        settings (Settings): Kind of map, wavelet, strength of DISW.
        features (list[Tensor]): Maps to weigh, B x C x H x W each.
        strides (Sequence[float]): Pixels per sample of each.
        targets (Targets): Ground truth as the student's assigner received it.
        scores (list[Tensor] | None): From `level_scores`, needed for 'score' and 'both'.

    Yields:
        (Tensor): B x 1 x h x w, on the grid of `band_shape`.
    """
    batch, count = targets.mask.shape
    index = torch.arange(batch, device=targets.mask.device).repeat_interleave(count, output_size=batch * count)
    flat, valid = (targets.boxes.flatten(0, 1).float(), index, batch), targets.mask.flatten()
    for level, (feature, stride) in enumerate(zip(features, strides, strict=True)):
        weight = None
        if settings.weight_map != "score":
            height, width = feature.shape[2:]
            grid, origin = band_shape(height, width, settings.wavelet), band_origin(settings.wavelet, stride)
            weight = disw_map(*flat, grid, (2 * stride, 2 * stride), origin, valid=valid)
            weight = weight if settings.disw == 1 else 1 + settings.disw * (weight - 1)
        if settings.weight_map != "disw" and scores is not None:
            weight = score_map(scores[level], settings.wavelet, weight)
        assert weight is not None
        yield weight
