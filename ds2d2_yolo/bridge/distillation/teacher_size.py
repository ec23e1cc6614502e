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


def share_batch(batch: dict[str, Any], ratio: int, with_teacher: bool = True) -> dict[str, Any]:
    """Give the teacher the images of a batch, and the student the same images scaled down by area.

    The labels are shares of the image, so that they fit both.

    Args:
        batch (dict[str, Any]): With 'img', B x C x H x W, whose sides are multiples of the ratio.
        ratio (int): From `config.image_sizes.size_ratio`; 1 changes nothing.
        with_teacher (bool): Whether a teacher sees the batch.

    Returns:
        (dict[str, Any]): With the larger images under `TEACHER_IMAGE` if a teacher sees them.
    """
    if ratio == 1:
        return batch
    larger = {TEACHER_IMAGE: batch["img"]} if with_teacher else {}
    return {**batch, **larger, "img": F.avg_pool2d(batch["img"], ratio)}


def enlarge(images: Tensor, ratio: int) -> Tensor:
    """Return images in which each pixel is a square of `ratio` x `ratio` pixels.

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
