"""A teacher that sees larger images than the student. Not part of the published method.

The loader makes the teacher's image, and the student gets the mean of each square of `ratio` x `ratio` pixels. A level
of the teacher then has the grid of the student's level whose stride is smaller by that ratio, and the two are paired.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

TEACHER_IMAGE = "teacher_img"  # key of a batch, beside 'img'


def share_batch(batch: dict[str, Any], ratio: int) -> dict[str, Any]:
    """Give the teacher the images of a batch, and the student the same images scaled down by area.

    The labels are shares of the image, so that they fit both.

    Args:
        batch (dict[str, Any]): With 'img', B x C x H x W, whose sides are multiples of the ratio.
        ratio (int): From `config.image_sizes.size_ratio`; 1 changes nothing.

    Returns:
        (dict[str, Any]): With the larger images under `TEACHER_IMAGE`.
    """
    if ratio == 1:
        return batch
    return {**batch, TEACHER_IMAGE: batch["img"], "img": scale_down(batch["img"], ratio)}


def scale_down(images: Tensor, ratio: int) -> Tensor:
    """Return the mean of each square of `ratio` x `ratio` pixels.

    Args:
        images (Tensor): B x C x H x W, floating point; H and W are multiples of the ratio.
        ratio (int): Pixels of a square's side.

    Returns:
        (Tensor): B x C x H/ratio x W/ratio.
    """
    height, width = images.shape[2:]
    return F.interpolate(images, size=(height // ratio, width // ratio), mode="area")


def enlarge(images: Tensor, ratio: int) -> Tensor:
    """Return images in which each pixel is a square of `ratio` x `ratio` pixels: the inverse of `scale_down`.

    Args:
        images (Tensor): B x C x H x W.
        ratio (int): Pixels of a square's side; 1 returns the images.

    Returns:
        (Tensor): B x C x ratio H x ratio W.
    """
    return images if ratio == 1 else F.interpolate(images, scale_factor=ratio, mode="nearest")


def teacher_images(batch: Mapping[str, Any]) -> Tensor:
    """Return the images of a batch that the teacher sees.

    Args:
        batch (Mapping[str, Any]): A batch, with `TEACHER_IMAGE` where the teacher's images are larger.

    Returns:
        (Tensor): B x C x H x W.
    """
    images: Tensor = batch.get(TEACHER_IMAGE, batch["img"])
    return images


def in_student_frame(boxes: Tensor, ratio: int) -> Tensor:
    """Return boxes of the teacher's images in pixels of the student's.

    Args:
        boxes (Tensor): ... x 4 (xyxy) or 5 (xywhr, radians) in pixels of the teacher's images.
        ratio (int): Side of the teacher's images over that of the student's.

    Returns:
        (Tensor): Of the same shape; an angle stays.
    """
    return torch.cat((boxes[..., :4] / ratio, boxes[..., 4:]), -1)
