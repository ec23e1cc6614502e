"""The teacher's detections as boxes of images without labels. Not part of the published method."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from ultralytics.utils.nms import non_max_suppression
from ultralytics.utils.ops import xyxy2xywh

from ds2d2_yolo.bridge.distillation.targets import Targets

NMS_IOU = 0.7  # Ultralytics' default `iou`
MAX_DETECTIONS = 1000  # of an image
MIN_SIDE = 2  # pixels of the sides of an oriented box
NO_TIME_LIMIT = 1e9  # seconds an image; Ultralytics' limit would make boxes depend on how busy the machine is


def teacher_detections(logits: Tensor, boxes: Tensor, valid: Tensor, conf: float, size: Sequence[int]) -> list[Tensor]:
    """Return the teacher's detections over a confidence, after suppression by class as in Ultralytics' predictions.

    Upright boxes are cut at the border of the image, as Ultralytics cuts labels and detections (8.4.190).

    Args:
        logits (Tensor): Class logits, B x anchors x classes.
        boxes (Tensor): Boxes in pixels, B x anchors x 4 (xyxy) or x 5 (xywhr, radians).
        valid (Tensor): B bool; images that are not valid have no detection.
        conf (float): Confidence that a detection has to exceed, 0 to 1.
        size (Sequence[int]): Height and width of the images in pixels.

    Returns:
        (list[Tensor]): For each image N x 6 (xyxy, confidence, class) or N x 7 (xywhr, confidence, class), the best one
            first.
    """
    rotated = boxes.shape[2] == 5
    scores = logits.float().sigmoid().where(valid[:, None, None], 0)
    parts = [boxes[..., :4] if rotated else xyxy2xywh(boxes), scores, boxes[..., 4:]]
    detections = non_max_suppression(
        torch.cat(parts, 2).transpose(1, 2), conf, NMS_IOU, max_det=MAX_DETECTIONS, nc=logits.shape[2],
        max_time_img=NO_TIME_LIMIT, rotated=rotated,
    )  # fmt: skip
    if not rotated:
        limit = boxes.new_tensor([size[1], size[0]] * 2)
        detections = [torch.cat((d[:, :4].clamp(min=0).minimum(limit), d[:, 4:]), 1) for d in detections]
    return [torch.cat((d[:, :4], d[:, 6:], d[:, 4:6]), 1) for d in detections]


def append_detections(targets: Targets, detections: list[Tensor]) -> Targets:
    """Append the detections of unlabelled images as targets behind those of the labelled images.

    Those that Ultralytics drops from labels (8.4.190) are padding: upright ones without an area in the image, oriented
    ones with a side below `MIN_SIDE`. To leave them out instead, the host would have to wait for a GPU.

    Args:
        targets (Targets): Ground truth of the labelled images.
        detections (list[Tensor]): From `teacher_detections`, of the images behind them.

    Returns:
        (Targets): Of all images.
    """
    size = targets.boxes.shape[2]
    boxes = [*targets.boxes.unbind(), *(d[:, :size].to(targets.boxes.dtype) for d in detections)]
    masks = [*targets.mask.unbind(), *(_is_label(d, rotated=size == 5) for d in detections)]
    return Targets(pad_sequence(boxes, batch_first=True), pad_sequence(masks, batch_first=True))


def _is_label(detections: Tensor, rotated: bool) -> Tensor:
    """Return which detections of an image could be its labels."""
    return detections[:, 2:4].amin(1) >= MIN_SIDE if rotated else (detections[:, 2:4] > detections[:, :2]).all(1)
